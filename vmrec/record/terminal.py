# SPDX-License-Identifier: GPL-2.0-or-later
"""The user's terminal as the guest's console: raw while the guest runs, always given back as it was.

Keys are those of QEMU's `-nographic`: Ctrl-A is a prefix, see `KEYS`. Ctrl-C and Ctrl-Z stay with the host, so that a
guest that does not answer can always be ended.
"""

from __future__ import annotations

import atexit
import contextlib
import enum
import os
import signal
import termios
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["KEYS", "EscapeParser", "Key", "RawTerminal"]

#: What Ctrl-A h shows, one line per key.
KEYS = """\
Ctrl-A h        this help
Ctrl-A x        end the run
Ctrl-A Ctrl-A   send Ctrl-A to the guest
Ctrl-C          end the run
Ctrl-Z          suspend; `fg` goes on
"""

PREFIX = 0x01  # Ctrl-A


class Key(enum.Enum):
    """What the user asked of vmrec itself."""

    QUIT = "quit"
    HELP = "help"


class EscapeParser:
    """Tells keys for vmrec from keys for the guest. Pure: bytes in, actions out, in order.

    Feeding byte by byte gives the same actions as feeding all at once (but for how bytes to the guest are grouped).
    As in QEMU, a key without meaning after Ctrl-A is dropped together with it.
    """

    def __init__(self) -> None:
        self._prefixed = False

    def feed(self, data: bytes) -> list[bytes | Key]:
        """The actions that `data` means: bytes to send to the guest (never empty), or a `Key`."""
        actions: list[bytes | Key] = []
        send = bytearray()
        for byte in data:
            if not self._prefixed:
                if byte == PREFIX:
                    self._prefixed = True
                else:
                    send.append(byte)
                continue
            self._prefixed = False
            if byte == PREFIX:
                send.append(byte)
            elif byte in b"xXhH?":
                if send:
                    actions.append(bytes(send))
                    send.clear()
                actions.append(Key.QUIT if byte in b"xX" else Key.HELP)
        if send:
            actions.append(bytes(send))
        return actions


class RawTerminal:
    """Holds the terminal at `fd` in raw mode; a context manager that does nothing if `fd` is no terminal.

    The terminal is restored on leaving the block, on SIGTERM and SIGHUP that nobody else handles, while the process is
    suspended, and when the interpreter ends. A process in the background leaves the terminal alone until `fg`.
    Output is still processed (a newline returns the carriage), as QEMU does.
    """

    def __init__(self, fd: int = 0) -> None:
        self._fd = fd
        self._saved: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._suspended = False

    @property
    def raw(self) -> bool:
        """Whether the terminal is in raw mode now."""
        return self._saved is not None

    def __enter__(self) -> RawTerminal:
        if not os.isatty(self._fd):
            return self
        atexit.register(self.restore)
        if threading.current_thread() is threading.main_thread():
            self._handle(signal.SIGTSTP, self._suspend)
            self._handle(signal.SIGCONT, self._resume)
            self._handle(signal.SIGTERM, self._die)
            self._handle(signal.SIGHUP, self._die)
        self._make_raw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()
        atexit.unregister(self.restore)
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, handler)

    def restore(self) -> None:
        """Gives the terminal back as it was. Harmless when it is not raw."""
        saved, self._saved = self._saved, None
        if saved is not None:
            self._set(saved)

    def _make_raw(self) -> None:
        if self.raw or not self._in_foreground():
            return
        try:
            saved = termios.tcgetattr(self._fd)
        except termios.error:  # the terminal went away
            return
        mode = [*saved[:6], list(saved[6])]
        mode[0] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
            | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        mode[1] |= termios.OPOST
        mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN)
        mode[6][termios.VMIN] = 1
        mode[6][termios.VTIME] = 0
        self._saved = saved
        self._set(mode)

    def _set(self, mode: list[Any]) -> None:
        # A background process that sets a terminal is stopped by SIGTTOU, unless it ignores that.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            with contextlib.suppress(termios.error):  # the terminal went away: nothing is left to restore
                termios.tcsetattr(self._fd, termios.TCSANOW, mode)  # not after a drain, which can block for ever
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _in_foreground(self) -> bool:
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:  # not our controlling terminal: nobody else can be in its foreground
            return True

    def _handle(self, number: int, handler: Any) -> None:
        """Handles a signal, unless it is ignored or somebody handles it, who then ends the block in an orderly way."""
        if signal.getsignal(number) is signal.SIG_DFL:
            self._handlers[number] = signal.signal(number, handler)

    def _suspend(self, number: int, frame: FrameType | None) -> None:
        self.restore()
        self._suspended = True
        own = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # stops here; SIGCONT goes on
        signal.signal(signal.SIGTSTP, own)
        self._suspended = False
        self._make_raw()

    def _resume(self, number: int, frame: FrameType | None) -> None:
        if not self._suspended:  # else the next SIGTSTP would stop us before it is handled again, and raw
            self._make_raw()

    def _die(self, number: int, frame: FrameType | None) -> None:
        self.restore()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
