# SPDX-License-Identifier: GPL-2.0-or-later
"""Drives and other virtio devices on the command line: options, images, and the image that a run leaves behind.

    --drive IMG ──▶ ImageSet (read only)      --drive-commit OUT ◀── what the machine holds, and IMG
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vmrec.cli.output import note, plural
from vmrec.errors import UsageError
from vmrec.guest.builtin import resolve_image
from vmrec.machine.board import DEVICES, DRIVES_MAX, SECTOR
from vmrec.machine.machine import Machine
from vmrec.record.drives import DriveImage, ImageSet, changed_since, check_new, write_image

__all__ = [
    "CommitOption",
    "DeviceOption",
    "DriveOption",
    "VirtioOption",
    "check_commits",
    "commit",
    "image_states",
    "open_images",
    "warn_of_changes",
]


def complete_device(incomplete: str) -> list[str]:
    """Devices that a shell completes `incomplete` to."""
    return [name for name in DEVICES if name.startswith(incomplete)]


DriveOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--drive",
        metavar="IMG",
        help="A disk image for a virtio drive; kernel.img is that of the teaching kernel. It is only read: what the "
        "guest writes stays in the machine and the "
        f"recording. May be given up to {DRIVES_MAX} times.",
        show_default=False,
    ),
]
DeviceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help=f"Another virtio device: {', '.join(DEVICES)}. May be given several times.",
        autocompletion=complete_device,
        show_default=False,
    ),
]
VirtioOption = Annotated[
    Literal["modern", "legacy"],
    typer.Option(help="The registers of virtio devices: as since virtio 1.0, or as old kernels know them."),
]
CommitOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--drive-commit",
        metavar="OUT",
        help="At the end write what the drive holds to OUT; the n-th is for the n-th drive.",
        show_default=False,
    ),
]


def open_images(paths: Sequence[Path], stack: ExitStack) -> ImageSet:
    """The images, open until the stack is closed; says which of them are padded. Raises UsageError."""
    images = stack.enter_context(ImageSet([resolve_image(os.fspath(path)) for path in paths]))
    for image in images.images:
        if image.padded != image.size:
            note(
                f"--drive {image.path}: {image.size} bytes are no whole number of sectors of {SECTOR}; the guest sees "
                f"{plural(image.padded - image.size, 'zero')} behind them."
            )
    return images


def check_commits(outputs: Sequence[Path], drives: int, inputs: Iterable[Path], *, force: bool) -> None:
    """Raises UsageError if images cannot be written there at the end."""
    if len(outputs) > drives:
        given = plural(len(outputs), "time")
        raise UsageError(f"--drive-commit: given {given}, but there are {plural(drives, 'drive')}.")
    for output in outputs:
        check_new("--drive-commit", output, force=force)
        if not os.path.isdir(output.parent):
            raise UsageError(f"--drive-commit {output}: there is no folder {output.parent}.")
        for image in inputs:
            if output.exists() and image.exists() and output.samefile(image):
                raise UsageError(f"--drive-commit {output}: is the image itself, which is never changed; name another.")


def commit(machine: Machine, images: ImageSet | None, outputs: Sequence[Path], *, force: bool) -> list[dict[str, Any]]:
    """Writes what the drives hold; returns what was written, for JSON. Raises UsageError."""
    found = []
    for drive, output in enumerate(outputs):
        image = images.images[drive] if images is not None and drive < len(images.images) else None
        touched = write_image(machine, drive, image, output, force=force)
        found.append({"drive": drive, "path": str(output), "touched_blocks": touched})
        note(f"drive {drive}: written to {output}, {plural(touched, 'block')} of it touched by the guest.")
    return found


def warn_of_changes(header: Mapping[str, Any], images: ImageSet) -> None:
    """Says which images are not what the recording was made from."""
    for image, then in zip(images.images, header.get("drives", []), strict=False):
        if changed_since(then, image):
            was = f"{then['name']}, {then['size']} bytes"
            note(f"--drive {image.path}: is not, or not any more, what the recording was made from ({was}).")


def image_states(header: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """What the header says of each image, and whether the file of that name beside the recording is still the same.

    `found`: same, changed, or missing.
    """
    states = []
    for then in header.get("drives", []):
        found = "missing"
        place = folder / os.path.basename(then["name"])
        for path in (place, Path(os.path.basename(then["name"]))):
            try:
                with DriveImage(path) as image:
                    found = "changed" if changed_since(then, image) else "same"
                break
            except UsageError:
                continue
        states.append({**{key: then[key] for key in ("name", "size", "modified")}, "found": found})
    return states
