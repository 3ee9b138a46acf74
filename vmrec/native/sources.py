# SPDX-License-Identifier: GPL-2.0-or-later
"""Which sources an extension was built from: a checkout may have moved on since, and would then run old C with new
Python, or replay by rules that are no longer those of its text.

The build writes the hash into the extension, `vmrec.native.core` compares. Called by build.py too, before there is a
package: Python's own library only.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["sources_hash"]


def sources_hash(package: Path) -> str | None:
    """A hash of every C source and header, and of the instruction table, below the package's folder.

    None where there are none: an installed wheel does not have them.
    """
    files = sorted(path for folder in ("native", "devices") for path in (package / folder).glob("*.[ch]"))
    if not files:
        return None
    found = hashlib.blake2b(digest_size=16)
    for path in [*files, package / "isa" / "instructions.py"]:
        content = path.read_bytes()
        found.update(f"{path.name}\0{len(content)}\0".encode() + content)
    return found.hexdigest()
