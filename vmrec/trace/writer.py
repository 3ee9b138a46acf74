# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes a trace, frame by frame, so that whatever is on disk can be read back at any moment.

A frame and its link are written together, behind everything that was written before; nothing is ever changed in
place. If the process dies, the file ends with a whole link, or with a torn frame that a reader cuts off. If the disk
fills up, the torn frame is cut off here and the error says how far the trace reaches.

There is no clock here: the caller decides when to `flush` (at least every 250 ms, so that a reader can follow and a
death costs little). There is no thread either: an object may be used from any thread, by one at a time.
"""

from __future__ import annotations

import fcntl
import io
import os
import stat
from array import array
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from vmrec.errors import TraceError, UsageError
from vmrec.trace.codec import compress, pack, unpack_stream
from vmrec.trace.frames import link_bytes, link_hash, seek_table
from vmrec.trace.layout import (
    FORK_VERSION,
    FORMAT,
    FORMAT_VERSION,
    FRAME_TARGET,
    LINK_VERSION,
    MAX_FRAME_RAW,
    MAX_FRAMES,
    MAX_GUEST,
    NO_HASH,
    PLAIN_VERSION,
    RECORD_KINDS,
)
from vmrec.trace.objects import Index, check

__all__ = ["FRAME_PAGES", "FrameFile", "TraceWriter"]

# --------------------------------------------------------------------------------------------------- the file itself


def _create(path: str, *, force: bool) -> io.FileIO:
    """A locked, empty file of mode 0600 at `path`. Raises UsageError if that cannot be had."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_CREAT | (0 if force else os.O_EXCL)
    try:
        file = io.FileIO(os.open(path, flags, 0o600), "r+b")
    except FileExistsError as error:
        if os.path.isdir(path):
            raise UsageError(f"{path}: is a directory; name a file in it with -o") from error
        if _locked_by_another(path):
            raise _being_recorded(path) from error
        raise UsageError(f"{path}: exists already; choose another name, or --force to overwrite it") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{path}: cannot be written ({reason}); choose another place with -o") from error
    try:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"{path}: is not a regular file; choose another name with -o")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _being_recorded(path) from error
        if not os.path.samestat(found, os.stat(path)):
            raise UsageError(f"{path}: was replaced by another process just now; try again")
        os.fchmod(file.fileno(), 0o600)
        os.ftruncate(file.fileno(), 0)
    except OSError as error:
        file.close()
        raise UsageError(f"{path}: cannot be written ({error.strerror}); choose another place with -o") from error
    except UsageError:
        file.close()
        raise
    return file


def _being_recorded(path: str) -> UsageError:
    return UsageError(f"{path}: another process is recording into it; wait for it to end, or choose another name")


def _locked_by_another(path: str) -> bool:
    """Whether a recorder holds the existing file at `path`."""
    try:
        with io.FileIO(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # a directory, or not ours to read: "exists" is all there is to say
    return False


class FrameFile:
    """A trace file being written: frames in, each with its link; the seek table at the end.

    `head` is the hash of the last link (32 bytes), `offset` the bytes written, `last` the last position covered.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, durable: bool, force: bool, sync: Callable[[int], None]
    ) -> None:
        """Raises UsageError if the file cannot be created or another recorder holds it."""
        self.path = os.fspath(path)
        self._file = _create(self.path, force=force)
        self._durable = durable
        self._sync = sync
        self._failure: TraceError | None = None
        self._dirty = False  # a write began and did not end: there may be bytes behind `offset`
        self._sizes = array("I")
        self._unpacked = array("I")
        self.head = NO_HASH
        self.offset = 0
        self.last = 0
        if durable:
            try:
                self._sync_folder()
            except OSError as error:
                self.remove()
                raise UsageError(f"{self.path}: its folder cannot be synced ({error.strerror})") from error

    @property
    def frames(self) -> int:
        """Frames written so far."""
        return len(self._sizes) // 2

    def put(self, frame: bytes, unpacked: int, first: int, last: int, *, rows: bool = False) -> None:
        """Writes one zstd frame, of `unpacked` bytes when unpacked, and its link. Raises TraceError.

        `rows`: the frame holds nothing but rows.
        """
        if self.frames == MAX_FRAMES:
            self._fail(f"it has {MAX_FRAMES} frames, more than the format allows")
        fields = [LINK_VERSION, self.frames, first, last, len(frame), int(rows)]
        head = link_hash(self.head, frame, fields)
        link = link_bytes(fields, head)
        self._write(frame + link)
        self._sizes.extend((len(frame), len(link)))
        self._unpacked.extend((unpacked, 0))
        self.head = head
        self.last = last

    def finish(self) -> None:
        """Writes the seek table and closes the file. Raises TraceError; the file is closed either way."""
        try:
            self._write(seek_table(self._sizes, self._unpacked))
        finally:
            self.release()

    def release(self) -> None:
        """Closes the file as it is; harmless when closed already."""
        if not self._file.closed and self._dirty:
            os.ftruncate(self._file.fileno(), self.offset)
        self._file.close()

    def remove(self) -> None:
        """Closes the file and removes it, because nothing in it is worth keeping."""
        os.unlink(self.path)
        self._file.close()

    def _write(self, data: bytes) -> None:
        """Appends `data`, all of it or (with a TraceError) nothing."""
        if self._failure is not None:
            raise self._failure
        descriptor = self._file.fileno()
        try:
            if self._dirty:  # an exception out of a signal handler ended the write before this one
                os.ftruncate(descriptor, self.offset)
            self._dirty = True
            done = 0
            while done < len(data):
                done += os.pwrite(descriptor, memoryview(data)[done:], self.offset + done)
            if self._durable:
                self._sync(descriptor)
        except OSError as error:
            self._fail(error.strerror or str(error), error)
        self.offset += done
        self._dirty = False

    def _fail(self, reason: str, cause: OSError | None = None) -> None:
        tail = ""
        try:
            os.ftruncate(self._file.fileno(), self.offset)
            self._dirty = False
        except OSError as error:
            tail = f" (the torn frame behind it could not be cut off: {error.strerror})"
        kept = (
            f"what was written before is a verified prefix up to position {self.last}{tail}; make room, then go on "
            f"with that prefix or record again"
        )
        self._failure = TraceError(self.path, self.offset, f"writing failed ({reason}): {kept}")
        raise self._failure from cause

    def _sync_folder(self) -> None:
        """The file's name is on disk when this returns, not only its content."""
        folder = os.open(os.path.dirname(self.path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


# ----------------------------------------------------------------------------------------------------- the recording


class TraceWriter:
    """A trace being recorded.

        with TraceWriter("run.vmrec", header) as trace:
            trace.append(machine.take_outputs(), first, machine.position)
            trace.flush()

    Left without an exception, the `with` block closes the trace (index, seek table); otherwise the file stays as it
    was after the last flush, which is a trace too. Every method may raise TraceError when the disk is full or fails;
    the message says how far the trace reaches, and every later call raises it again.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: Mapping[str, Any],
        *,
        durable: bool = False,
        force: bool = False,
        sync: Callable[[int], None] = os.fdatasync,
    ) -> None:
        """Creates the file (mode 0600), locks it, and writes the header.

        `header` holds the keys of `vmrec.trace.layout.MAPS["header"]`, that of a fork also "parent"; "format" and
        "version" are filled in here.
        With `durable` every frame is handed to `sync` before the call that wrote it returns. With `force` an
        existing file is overwritten, after the lock on it was had.

        Raises UsageError if the file exists, cannot be created or is being recorded into, or the guest is too large
        to embed; ValueError for a header that is not as the layout says.
        """
        parent = header.get("parent")
        version = PLAIN_VERSION if parent is None else FORK_VERSION
        machine = header.get("machine")
        if isinstance(machine, Mapping) and machine.get("revision", 1) != 1:
            version = FORMAT_VERSION
        header = {**header, "format": FORMAT, "version": version}
        check(["header", header])
        start = 0 if parent is None or parent["included"] else parent["position"]
        size = len(header["guest"]["elf"])
        if size > MAX_GUEST:
            raise UsageError(
                f"the guest has {size} bytes and a trace can hold {MAX_GUEST}; strip its debug information "
                f"(objcopy --strip-debug)"
            )
        self._index = Index()
        self._parts: list[bytes] = []
        self._size = 0
        self._first: int | None = None
        self._last = start
        self._rows = False  # the frame being collected holds rows, and only rows
        self._contents = 0  # pages appended one after the other
        self._closed = False
        self._file = FrameFile(path, durable=durable, force=force, sync=sync)
        raw = pack(["header", header])
        try:
            self._file.put(compress(raw), len(raw), start, start)
        except TraceError:
            self._file.remove()
            raise

    @property
    def path(self) -> str:
        return self._file.path

    @property
    def bytes_written(self) -> int:
        """Bytes in the file."""
        return self._file.offset

    @property
    def head(self) -> bytes:
        """Hash of the last link (32 bytes): names what is in the file so far."""
        return self._file.head

    @property
    def position(self) -> int:
        """Last position covered by what was appended, written or not."""
        return self._last

    @property
    def written_position(self) -> int:
        """Last position covered by what is in the file."""
        return self._file.last

    @property
    def buffered(self) -> int:
        """Unpacked bytes that the next flush will write."""
        return self._size

    def append(self, packed: bytes, first: int, last: int) -> None:
        """Adds whole msgpack objects, whose positions lie in first … last.

        `last` is a promise: every event, output, digest and checkpoint before it is in this call or an earlier one
        (rows may follow later). So drain the machine's outputs before anything younger is appended. Empty `packed`
        only says that nothing happened up to `last`.

        A call is never split between frames. Events, outputs and rows are taken as they are (a call with rows
        holds nothing else, and many rows get frames of their own); a call with a digest,
        checkpoint, page or end begins with one of these, is looked at object by object and noted in the index.
        Writes the frame when it holds 1 MiB.

        Raises ValueError for positions that go backwards or objects that are not as the layout says.
        """
        self._require_open()
        if not 0 <= first <= last < 2**64:
            raise ValueError(f"positions {first} to {last}")
        if len(packed) > MAX_FRAME_RAW:
            raise ValueError(f"{len(packed)} bytes in one call, over the limit of {MAX_FRAME_RAW}")
        if packed and self._index.end is not None:
            raise ValueError("nothing can be appended after the end")
        if self._size + len(packed) > MAX_FRAME_RAW:
            self.flush()
        kind = _first_kind(packed)
        if self._parts and self._rows != (kind == "rows") and max(self._size, len(packed)) >= APART:
            self.flush()
        # A checkpoint is found without unpacking the contents that it names.
        apart = kind == "checkpoint" and (self._size >= APART or self._contents >= FRAME_PAGES)
        self._contents = 0
        if apart:
            self.flush()
        self._rows = kind == "rows" and (self._rows or not self._parts)
        if kind not in _UNINDEXED:
            frame = self._file.frames
            for obj in unpack_stream(packed):
                check(obj)
                self._index.add(frame, obj)
        self._add(packed, first, last)
        if apart:
            self.flush()

    def append_page(self, hash_: bytes, content: bytes) -> bool:
        """Adds the content (4096 bytes) of a page with this hash (32 bytes, blake3), unless the trace has it already.

        Returns whether it was added. Belongs before the checkpoint that names the hash.
        """
        self._require_open()
        if hash_ in self._index.contents:
            return False
        obj = ["page", hash_, content]
        packed = pack(obj)
        self._rows = False
        if self._size + len(packed) > MAX_FRAME_RAW:
            self.flush()
        self._index.add(self._file.frames, obj)
        self._contents += 1
        self._add(packed, self._last, self._last)
        if self._contents % FRAME_PAGES == 0:
            self.flush()
        return True

    def flush(self) -> None:
        """Writes what was appended since the last flush as one frame; nothing happens if nothing was."""
        self._require_open()
        if self._first is None:
            return
        raw = b"".join(self._parts)
        self._file.put(compress(raw), len(raw), self._first, self._last, rows=self._rows)
        self._parts = []
        self._size = 0
        self._first = None

    def close(self) -> None:
        """Flushes, writes index and seek table, and closes the file; harmless when closed already."""
        if self._closed:
            return
        try:
            self.flush()
            index = self._index.to_object(self._last)
            if index is not None:
                raw = pack(index)
                self._file.put(compress(raw), len(raw), self._last, self._last)
            self._file.finish()
        finally:
            self.abort()

    def abort(self) -> None:
        """Closes the file as it is after the last flush; what was appended since is dropped."""
        self._closed = True
        self._file.release()

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _add(self, packed: bytes, first: int, last: int) -> None:
        self._parts.append(packed)
        self._size += len(packed)
        self._first = first if self._first is None else min(self._first, first)
        self._last = max(self._last, last)
        if self._size >= FRAME_TARGET:
            self.flush()

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError(f"{self.path}: the trace is closed")


#: So many bytes of rows, or of page contents, are not mixed with what belongs to readers of other things.
APART = 64 << 10
#: Page contents of a checkpoint in a frame: who wants one of them unpacks them all.
FRAME_PAGES = 16
#: Kinds that the index does not note.
_UNINDEXED = RECORD_KINDS | {"rows"}


def _first_kind(packed: bytes) -> str | None:
    """Kind of the first object; None if there is no telling without unpacking it. Empty bytes count as a record."""
    if not packed:
        return "console"
    size = packed[1] - 0xA0 if len(packed) > 1 else 0
    if packed[0] & 0xF0 != 0x90 or not 0 < size < 32:
        return None
    return packed[2 : 2 + size].decode("ascii", "replace")
