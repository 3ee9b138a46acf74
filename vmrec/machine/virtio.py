# SPDX-License-Identifier: GPL-2.0-or-later
"""What a virtio device can hold: the ranges of its registers, for states that come from files.

    queue_num    0 or a power of two up to 256
    addresses    any: the device looks at each before it follows it
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["impossible_virtio"]

QUEUE_MAX = 256
NEEDS_RESET = 0x40


def impossible_virtio(name: str, state: Mapping[str, Any]) -> str | None:
    """The first field of device `name` with a value that no run leaves there, or None."""
    ranges = {
        "status": state["status"] <= 0xFF,
        "interrupt_status": state["interrupt_status"] <= 3,
        "queue_num": all(number <= QUEUE_MAX and number & (number - 1) == 0 for number in state["queue_num"]),
        "queue_ready": all(ready <= 1 for ready in state["queue_ready"]),
    }
    return next((f"{name}.{field}" for field, possible in ranges.items() if not possible), None)
