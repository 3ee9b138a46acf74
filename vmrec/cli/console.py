# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's console as the command line wires it: where it goes, and where its input comes from."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import select
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from vmrec.cli.output import write_bytes
from vmrec.errors import UsageError
from vmrec.machine.machine import Machine
from vmrec.record.sources import FilePaced, InputSource, LiveInput
from vmrec.record.terminal import EscapeParser

__all__ = ["GuestConsole", "open_input"]


class GuestConsole:
    """Where the guest's console goes: stdout, a file or nowhere. A context manager.

    Bytes are written at once, as they are. When that fails, `error` holds why, `failed` is called, and the rest is
    dropped. After `give_up` a reader that does not read is waited for no longer.
    """

    def __init__(self, path: Path | None, *, json: bool) -> None:
        """Raises UsageError if `path` cannot be written. "-" is stdout."""
        if path == Path("-"):
            if json:
                raise UsageError("--console -: with --json stdout is for the report; name a file.")
            path = None
        self.error: OSError | None = None
        self.failed: Callable[[], None] = lambda: None
        self.last = b"\n"  # what was written last
        self.seconds = 0.0  # spent writing, that is mostly waiting for whoever reads
        self._write: Callable[[bytes], object] | None = None
        self._file: io.FileIO | None = None
        self._control = os.pipe()
        if path is not None:
            try:
                self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - __exit__ closes it
            except OSError as error:
                self.__exit__(None, None, None)
                raise UsageError(f"--console {path}: cannot be written: {error.strerror}.") from None
            self._write = functools.partial(self._write_all, self._file.fileno())
        elif not json and sys.stdout is not None:
            sys.stdout.flush()
            try:
                self._write = functools.partial(self._write_all, sys.stdout.fileno())
            except io.UnsupportedOperation:  # somebody inside this process listens
                self._write = write_bytes

    @property
    def on_terminal(self) -> bool:
        """Whether it is shown on a terminal, where nothing else may interfere."""
        return self._write is not None and self._file is None and sys.stdout.isatty()

    def write(self, data: bytes) -> None:
        """Writes what the guest has printed."""
        if self._write is None or self.error is not None or not data:
            return
        begin = time.perf_counter()
        try:
            self._write(data)
            self.last = data[-1:]
        except OSError as error:
            self.error = error
            self.failed()
        self.seconds += time.perf_counter() - begin

    def give_up(self) -> None:
        """Ends a `write` whose reader does not read. May be called from any thread."""
        os.write(self._control[1], b"!")

    def end_line(self) -> None:
        """On a terminal, what comes next begins a line of its own."""
        if self.on_terminal and self.last != b"\n":
            self.write(b"\n")

    def require_written(self) -> None:
        """Raises what made a write fail: BrokenPipeError if the reader went away, else UsageError."""
        if isinstance(self.error, BrokenPipeError):
            raise self.error
        if self.error is not None:
            raise UsageError(
                f"the guest's console could not be written ({self.error.strerror}), so the run was ended; "
                "let it go elsewhere with --console FILE."
            )

    def _write_all(self, fd: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            _, ready, _ = select.select([self._control[0]], [fd], [])
            if not ready:
                return
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(fd, view[:4096]) :]  # a pipe that is ready takes 4096 bytes without waiting

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write = None
        if self._file is not None:
            self._file.close()
        for end in self._control:
            os.close(end)


def open_input(argument: str | None, machine: Machine, stack: contextlib.ExitStack) -> tuple[InputSource | None, bool]:
    """The source of console input that --input means, and whether it is the terminal. Raises UsageError.

    `stack` closes what is opened here.
    """
    source: InputSource | None = None
    if argument is None or argument == "-":
        source = _stdin(machine, asked=argument is not None)
    elif os.path.exists(argument) and not os.path.isfile(argument) and not os.path.isdir(argument):
        try:
            fd = os.open(argument, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as error:
            raise UsageError(f"--input {argument}: cannot be read: {error.strerror}.") from None
        stack.callback(os.close, fd)
        source = LiveInput(fd, machine.set_attention)
    else:
        source = FilePaced(argument)
    if source is not None:
        stack.callback(source.close)
    return source, isinstance(source, LiveInput) and source.fileno() == 0 and os.isatty(0)


def _stdin(machine: Machine, *, asked: bool) -> InputSource | None:
    """Stdin as a source; None if it is no terminal and was not asked for."""
    if sys.__stdin__ is None:  # closed: what has the number 0 now is something else
        if asked:
            raise UsageError("--input -: stdin is closed; give it something to read.")
        return None
    if os.isatty(0):
        return LiveInput(0, machine.set_attention, parser=EscapeParser())
    if not asked:
        return None
    return FilePaced(0) if stat.S_ISREG(os.fstat(0).st_mode) else LiveInput(0, machine.set_attention)
