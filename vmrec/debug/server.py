# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections of debuggers: one client at a time, one after the other; what comes meanwhile is told so and refused.

    listener ──▶ Channel ──▶ serve (the caller's: one protocol)
        └──▶ while one is served: `busy` is sent to others, which are closed

A channel has a thread that reads, so that Ctrl-C and a client that goes away are seen while the target moves.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from vmrec.errors import UsageError

__all__ = ["Channel", "Connection", "Knocking", "SocketConnection", "StreamConnection", "listen", "serve_clients"]

#: Bytes that are read at once.
CHUNK = 1 << 16
#: Seconds that a client may leave what it is sent lying before it is given up.
SEND_SECONDS = 60
#: Seconds that a new client waits for the one before to be gone, before it is refused.
LEAVING_SECONDS = 1
#: Received items that wait to be handled, at the most; whoever sends more waits.
WAITING_MAX = 10_000

Item = TypeVar("Item")


class Connection(Protocol):
    """A way to a client, for bytes."""

    def receive(self) -> bytes:
        """The next bytes, empty at the end. Raises OSError."""

    def send(self, data: bytes) -> None:
        """Sends all of `data`. Raises OSError if the client is gone, or takes nothing."""

    def shut(self) -> None:
        """Ends both directions, so that a `receive` in another thread comes back."""


class SocketConnection:
    """A connected TCP socket, which the caller closes."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.settimeout(None)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            seconds = SEND_SECONDS.to_bytes(8, "little") + bytes(8)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)

    def receive(self) -> bytes:
        return self._socket.recv(CHUNK)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def shut(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class StreamConnection:
    """Two file descriptors, as of a client that has started us: stdin and stdout."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing
        self._control = os.pipe()

    def receive(self) -> bytes:
        with selectors.DefaultSelector() as selector:
            selector.register(self._reading, selectors.EVENT_READ)
            selector.register(self._control[0], selectors.EVENT_READ)
            ready = [key.fd for key, _ in selector.select()]
        return b"" if self._control[0] in ready else os.read(self._reading, CHUNK)

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._writing, view) :]

    def shut(self) -> None:
        os.write(self._control[1], b"!")


class Channel(Generic[Item]):
    """Items from a client, read and taken apart by a thread of its own, in order. A context manager.

    `feed` makes items of bytes; `seen` is called in the reading thread for each, before anybody gets it, and for the
    end (None). If it returns False, nobody gets the item.
    """

    def __init__(
        self,
        connection: Connection,
        feed: Callable[[bytes], list[Item]],
        seen: Callable[[Item | None], bool],
    ) -> None:
        self._connection = connection
        self._feed = feed
        self._seen = seen
        self._items: queue.Queue[Item | None] = queue.Queue(WAITING_MAX)
        self._thread = threading.Thread(target=self._read, name="vmrec-client", daemon=True)
        self._closed = False
        self._lock = threading.RLock()  # what is seen and what was handled are told one after the other
        self._received = self._handled = 0  # items that somebody gets, so far
        self._interrupted = 0  # an interrupt is meant for items up to this number

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._connection.receive():
                for item in self._feed(data):
                    with self._lock:
                        wanted = self._seen(item)
                        self._received += wanted
                    if wanted:
                        self._put(item)
        with self._lock:
            self._seen(None)
        self._put(None)

    def _put(self, item: Item | None) -> None:
        while not self._closed:
            with contextlib.suppress(queue.Full):
                self._items.put(item, timeout=0.5)
                return

    def interrupt(self, interrupt: Callable[[], None]) -> None:
        """Calls `interrupt` if an item is being handled, or waits for it. To be called from `seen`."""
        if self._handled < self._received:
            self._interrupted = self._received
            interrupt()

    def handled(self, calm: Callable[[], None]) -> None:
        """To be told when an item from `next` is dealt with.

        `calm` is called unless an interrupt is still meant for others: those that came before it, never one behind it.
        """
        with self._lock:
            self._handled += 1
            if self._handled >= self._interrupted:
                calm()

    def next(self) -> Item | None:
        """Waits for the next item; None at the end."""
        return self._items.get()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self._connection.shut()
        self._thread.join()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; with port 0 the system chooses one. Raises UsageError if it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{host}: is no address to listen on ({error})") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(4)
    except OSError as error:
        listener.close()
        reason = f"port {port} of {host} cannot be listened on ({error.strerror})"
        raise UsageError(f"{reason}; choose another --port") from None
    return listener


def serve_clients(
    listener: socket.socket,
    serve: Callable[[Connection], None],
    *,
    busy: bytes,
    told: Callable[[str], None] = lambda text: None,
    once: bool = False,
    alone: Callable[[], bool] = lambda: True,
) -> None:
    """Serves one client after the other, for ever (or `once`). `busy` is what others are sent meanwhile.

    `alone` is called when a client is gone and no other has come; it returns whether to wait for one.
    """
    client: socket.socket | None = None
    while True:
        client = client or listener.accept()[0]
        name = _name(client)
        told(f"{name} is connected")
        with client, _Refusing(listener, busy, told) as refusing:
            serve(SocketConnection(client))
        told(f"{name} is gone")
        client = refusing.following
        if once:
            if client is not None:
                client.close()
            return
        if client is None and not alone():
            return


def _name(client: socket.socket) -> str:
    """Who a client is, for people."""
    try:
        return "{} port {}".format(*client.getpeername()[:2])
    except OSError:  # gone already
        return "a client"


class _Watching(ABC):
    """While it lasts, a thread calls `_knocked` when a client connects, as long as that returns True."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._control = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="vmrec-listener", daemon=True)

    @abstractmethod
    def _knocked(self) -> bool:
        """In the thread: somebody waits to be accepted. Returns whether to go on watching."""

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._control[0], selectors.EVENT_READ)
            while not any(key.fileobj is self._control[0] for key, _ in selector.select()):
                if not self._knocked():
                    return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._control[1].send(b"!")
        self._thread.join()
        for end in self._control:
            end.close()


class Knocking(_Watching):
    """While it lasts, `called` is called from a thread when a client connects, which is not served yet."""

    def __init__(self, listener: socket.socket, called: Callable[[], None]) -> None:
        super().__init__(listener)
        self._called = called

    def _knocked(self) -> bool:
        self._called()
        return False


class _Refusing(_Watching):
    """While it lasts, whoever else connects is turned away.

    Who comes when the first is just leaving is kept: `following`, when the block has ended.
    """

    def __init__(self, listener: socket.socket, busy: bytes, told: Callable[[str], None]) -> None:
        super().__init__(listener)
        self._busy = busy
        self._told = told
        self._ended = threading.Event()
        self.following: socket.socket | None = None

    def _knocked(self) -> bool:
        with contextlib.suppress(OSError):
            client, _ = self._listener.accept()
            if self._ended.wait(LEAVING_SECONDS):
                self.following = client
                return False
            self._refuse(client)
        return True

    def _refuse(self, client: socket.socket) -> None:
        with client:
            client.settimeout(1)
            self._told(f"{_name(client)} was refused: a debugger is attached already")
            client.sendall(self._busy)

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        super().__exit__(*exception)
