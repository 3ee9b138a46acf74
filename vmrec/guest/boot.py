# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine is booted from: images, each at its place, and where the hart begins.

    Image   one of them: what it is, where it lies, and what names its bytes
    Boot    all of them; a trace's header holds it (`to_dict`), and pages of the trace hold the bytes

Who makes them is vmrec.machine.boot. On replay nothing is placed or made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vmrec.errors import UsageError

__all__ = ["Boot", "Image"]

KINDS = ("bios", "kernel", "initrd", "dtb")
ROM_MAX = 4096


@dataclass(frozen=True, slots=True)
class Image:
    """One image: `kind` bios, kernel, initrd or dtb; `name` of its file, "" for a generated device tree.

    It lies at `address` and takes `size` bytes there, zeros at its end included. `hash` is the BLAKE3 of the file.
    """

    kind: str
    name: str
    address: int
    size: int
    hash: bytes

    @property
    def end(self) -> int:
        """First address behind it."""
        return self.address + self.size


@dataclass(frozen=True, slots=True)
class Boot:
    """A set of images in memory: `rom` is what the boot ROM begins with.

    With the VMM as firmware the hart begins at `entry` instead, with the address `tree` of the device tree in a1.
    """

    entry: int
    tree: int
    rom: bytes
    images: tuple[Image, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a trace header."""
        images = [asdict(image) for image in self.images]
        return {"entry": self.entry, "tree": self.tree, "rom": self.rom, "images": images}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Boot:
        """What a trace header holds, other keys aside. Raises UsageError if it is not that: headers come from files."""
        types = {"entry": int, "tree": int, "rom": bytes, "images": list}
        if any(type(values.get(key)) is not kind for key, kind in types.items()) or len(values["rom"]) > ROM_MAX:
            raise UsageError("the header's description of the boot is not one that this vmrec knows; upgrade vmrec")
        if not all(0 <= values[key] < 2**64 for key in ("entry", "tree")):
            raise UsageError("the header's boot addresses are outside 0 … 2**64-1: it is damaged")
        images = tuple(_image(image) for image in values["images"])
        return cls(values["entry"], values["tree"], values["rom"], images)


def _image(values: Any) -> Image:
    types = {"kind": str, "name": str, "address": int, "size": int, "hash": bytes}
    if type(values) is not dict or any(type(values.get(key)) is not kind for key, kind in types.items()):
        raise UsageError("the header's list of images is damaged")
    return Image(**{key: values[key] for key in types})
