# SPDX-License-Identifier: GPL-2.0-or-later
"""Images of drives, as the recorder reads them: blocks that the guest needs for the first time, and images written out.

    image file ──read only──▶ DriveImage ──block──▶ LiveRun ──▶ disk event + page in the trace
    image file + what the machine holds ──▶ write_image ──▶ another file (--drive-commit)

An image is never written to. It must stay as it was while it is being recorded from: a block that is read after the
file has changed would not fit those read before, so that is an error.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

from vmrec.errors import UsageError
from vmrec.machine.board import PAGE_SIZE, SECTOR
from vmrec.machine.machine import Machine

__all__ = ["BlockSource", "DriveImage", "ImageSet", "NoBlocks", "changed_since", "check_new", "write_image"]

_COPY = 1 << 20


class BlockSource(Protocol):
    """Where the blocks of drives come from that nobody has touched yet."""

    def block(self, drive: int, block: int) -> bytes:
        """4096 bytes. Raises UsageError if they are not to be had."""


class NoBlocks:
    """There are none: for machines without drives."""

    def block(self, drive: int, block: int) -> bytes:
        """Raises UsageError."""
        raise UsageError(
            f"the guest needs block {block} of drive {drive}, which it had not touched before: name the image with "
            f"--drive."
        )


class DriveImage:
    """An image file, open for reading; a context manager.

    `path`; `size` of the file in bytes; `padded`: the drive's size, whole sectors; `modified`: ns since 1970. Raises
    UsageError if it cannot be an image.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise UsageError(f"--drive {self.path}: cannot be read ({reason}).") from error
        try:
            found = os.fstat(self._fd)
            if not stat.S_ISREG(found.st_mode):
                what = "a directory" if stat.S_ISDIR(found.st_mode) else "no regular file"
                raise UsageError(f"--drive {self.path}: is {what}; name an image file.")
            if not found.st_size:
                raise UsageError(f"--drive {self.path}: is empty; a drive has one sector of {SECTOR} bytes at least.")
        except UsageError:
            os.close(self._fd)
            raise
        self.size = found.st_size
        self.padded = -(-found.st_size // SECTOR) * SECTOR
        self.modified = found.st_mtime_ns

    def close(self) -> None:
        """Closes the file; harmless when closed already."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def block(self, block: int) -> bytes:
        """Block `block` (4096 bytes), zeros behind the end of the file. Raises UsageError if the image has changed."""
        content = self._read(block * PAGE_SIZE, PAGE_SIZE)
        self._check_unchanged()
        return content.ljust(PAGE_SIZE, b"\0")

    def _read(self, offset: int, size: int) -> bytes:
        found = b""
        try:
            while len(found) < size and (piece := os.pread(self._fd, size - len(found), offset + len(found))):
                found += piece
        except OSError as error:
            raise UsageError(f"--drive {self.path}: cannot be read any more ({error.strerror}).") from error
        return found

    def _check_unchanged(self) -> None:
        now = os.fstat(self._fd)
        if (now.st_size, now.st_mtime_ns) != (self.size, self.modified):
            raise UsageError(
                f"--drive {self.path}: was changed by somebody while it was in use; what was recorded up to here is "
                f"whole. Use a copy of the image."
            )

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Yields (offset, bytes) of all that is not a hole. Raises UsageError if the image has changed."""
        at = 0
        while at < self.size:
            try:
                at = os.lseek(self._fd, at, os.SEEK_DATA)
                end = os.lseek(self._fd, at, os.SEEK_HOLE)
            except OSError:  # nothing but a hole from here on
                return
            while at < end:
                content = self._read(at, min(_COPY, end - at))
                if not content:
                    break
                yield at, content
                at += len(content)
        self._check_unchanged()

    def note(self) -> dict[str, Any]:
        """What the header of a recording says about it: for people, and to find out later whether it changed."""
        return {"name": os.path.basename(self.path), "size": self.size, "modified": self.modified}


class ImageSet:
    """The images of a machine's drives, in their order. A context manager that closes them."""

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        """Raises UsageError if one of them cannot be an image."""
        self.images: list[DriveImage] = []
        try:
            for path in paths:
                self.images.append(DriveImage(path))
        except UsageError:
            self.close()
            raise

    def close(self) -> None:
        """Closes all of them."""
        for image in self.images:
            image.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def sizes(self) -> tuple[int, ...]:
        """The drives' sizes in bytes."""
        return tuple(image.padded for image in self.images)

    def block(self, drive: int, block: int) -> bytes:
        """A block of one of them."""
        if drive >= len(self.images):
            return NoBlocks().block(drive, block)
        return self.images[drive].block(block)


def changed_since(note: Mapping[str, Any], image: DriveImage) -> bool:
    """Whether an image is another than the one that a recording was made from, as its header tells."""
    return (image.size, image.modified) != (note["size"], note["modified"])


# ------------------------------------------------------------------------------------------------------- writing out


def check_new(option: str, path: str | os.PathLike[str], *, force: bool) -> None:
    """Raises UsageError if a file is not to be written there."""
    if os.path.isdir(path):
        raise UsageError(f"{option} {os.fspath(path)}: is a directory; name a file in it.")
    if os.path.lexists(path) and not force:
        raise UsageError(f"{option} {os.fspath(path)}: exists already; choose another name, or --force.")


def write_image(
    machine: Machine, drive: int, image: DriveImage | None, path: str | os.PathLike[str], *, force: bool
) -> int:
    """Writes what drive `drive` holds now to `path`, all of it or nothing; returns the number of its touched blocks.

    `image` has the blocks that were never touched; None if there is none. Raises UsageError if such a block is needed
    and there is no image, if it has another size, or the file cannot be written.
    """
    option, size = "--drive-commit", machine.config.drives[drive]
    first = machine.config.page_of(drive, 0)
    blocks = [block for block in range(-(-size // PAGE_SIZE)) if not machine.is_missing(first + block)]
    if image is None and len(blocks) < -(-size // PAGE_SIZE):
        raise UsageError(
            f"{option}: the guest touched {len(blocks)} of the {-(-size // PAGE_SIZE)} blocks of drive {drive}; name "
            f"the image with --drive, for the others."
        )
    if image is not None and image.padded != size:
        raise UsageError(f"--drive {image.path}: has {image.size} bytes, but drive {drive} has {size}: another image.")
    check_new(option, path, force=force)
    folder = os.path.dirname(os.fspath(path)) or "."
    try:
        handle, name = tempfile.mkstemp(prefix=".vmrec-", suffix=".partial", dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                os.ftruncate(file.fileno(), size)
                for offset, content in image.pieces() if image is not None else ():
                    os.pwrite(file.fileno(), content, offset)
                for block in blocks:
                    content = machine.page(first + block)[: size - block * PAGE_SIZE]
                    os.pwrite(file.fileno(), content, block * PAGE_SIZE)
                os.fsync(file.fileno())
            if force:
                os.replace(name, path)
            else:
                os.link(name, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
    except FileExistsError as error:
        raise UsageError(f"{option} {os.fspath(path)}: exists already; choose another name, or --force.") from error
    except OSError as error:
        raise UsageError(f"{option} {os.fspath(path)}: cannot be written ({error.strerror}).") from error
    return len(blocks)
