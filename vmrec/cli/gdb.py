# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec gdb: lets GDB, or whoever speaks its protocol, debug a recording in both directions."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from vmrec.cli.live import Live
from vmrec.cli.options import ParentOption, TraceArgument, parents_also_in
from vmrec.cli.output import note, quantity, write
from vmrec.cli.paths import trace_path
from vmrec.debug.gdb.script import gdb_script
from vmrec.debug.gdb.serve import BUSY, serve_gdb
from vmrec.debug.live import LiveTarget
from vmrec.debug.server import Connection, Knocking, StreamConnection, listen, serve_clients
from vmrec.debug.target import Target
from vmrec.errors import UsageError
from vmrec.guest.symbols import Symbols
from vmrec.record.recorder import TraceSink
from vmrec.record.session import Ended, LiveRun
from vmrec.replay.timeline import Timeline
from vmrec.trace.reader import TraceReader

__all__ = [
    "LOOPBACK", "PORT", "ExposeOption", "HostOption", "PortOption", "address_of", "check_host", "command", "debugged",
    "serve", "serve_recording",
]  # fmt: skip

#: QEMU's.
PORT = 1234
LOOPBACK = "127.0.0.1"
#: Where to look for a GDB that knows RISC-V.
GDBS = ("gdb-multiarch", "riscv64-unknown-elf-gdb", "riscv64-elf-gdb", "riscv32-unknown-elf-gdb", "gdb")

PortOption = Annotated[
    int | None,
    typer.Option(
        "--port", metavar="N", min=0, max=65535, help=f"Where to listen, {PORT} if left out; 0: any free port.",
        show_default=False,
    ),
]  # fmt: skip
HostOption = Annotated[
    str, typer.Option("--host", metavar="ADDRESS", help="Listen on this address; see --expose.")
]
ExposeOption = Annotated[
    bool,
    typer.Option("--expose", help="Allow a --host that others can reach: whoever can connect reads all of it."),
]


def command(
    trace: TraceArgument = None,
    port: PortOption = None,
    host: HostOption = LOOPBACK,
    expose: ExposeOption = False,
    at: Annotated[
        str,
        typer.Option("--at", metavar="PLACE", help="Where to begin: 5000, end, 50%, main, race.c:41, event:3 …"),
    ] = "begin",
    launch: Annotated[bool, typer.Option("--launch", help="Start gdb, connected, with the guest's symbols.")] = False,
    gdb: Annotated[
        str | None,
        typer.Option("--gdb", metavar="PROGRAM", help="The gdb to start with --launch.", show_default=False),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when the first client is gone.")] = False,
    stdio: Annotated[
        bool, typer.Option("--stdio", help="Serve stdin and stdout, as `target remote | vmrec gdb T --stdio`.")
    ] = False,
    script: Annotated[bool, typer.Option("--script", help="Print the commands for gdb that --launch loads.")] = False,
    parent: ParentOption = None,
) -> int:
    """Debug a recording with gdb, forwards and backwards.

    All of gdb's reverse commands work, and so do watchpoints in both directions. The register $when is the position,
    `run PLACE` and `monitor seek PLACE` go anywhere, `monitor help` lists more. Guest and recording are never changed.

    Clients may come one after the other; Ctrl-C ends the server. It listens on this host only.

    Exit status: 0, or that of gdb with --launch; 2 for trouble.

    \b
    Examples:
      vmrec gdb race.vmrec --launch
      vmrec gdb race.vmrec --port 4000 --at end
      gdb-multiarch -ex 'target extended-remote :1234'
      gdb-multiarch -ex 'target extended-remote | vmrec gdb race --stdio'
    """
    if script:
        write(gdb_script().rstrip("\n"))
        return 0
    if launch and stdio:
        raise UsageError("--launch and --stdio exclude each other: --launch connects by itself.")
    check_host(host, expose=expose)
    parents_also_in(parent)
    program = find_gdb(gdb) if launch else None
    with debugged(trace, at) as target:
        chosen = (0 if launch else PORT) if port is None else port
        return serve(target, chosen, host, program=program, once=once, stdio=stdio)


@contextlib.contextmanager
def debugged(trace: str | os.PathLike[str] | None, at: str) -> Iterator[Target]:
    """The recording that a verb's argument means, as a target that stands at the place `at`. Raises UsageError."""
    path = trace_path(trace)
    with TraceReader(path) as reader:
        if reader.torn:
            last = quantity(reader.last_position)
            note(f"{path}: is torn (its recorder died, or is at work); it can be debugged to position {last}.")
        with Timeline(reader) as timeline:
            target = Target(timeline, Symbols(*timeline.guest.elfs))
            timeline.seek(target.place(at))
            yield target


def check_host(host: str, *, expose: bool) -> None:
    """Raises UsageError for an address that others can reach, unless that is wanted; then it warns."""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    if host == "localhost":
        return
    if not expose:
        raise UsageError(
            f"--host {host}: others could connect and read the whole recording, typed passwords too; "
            "say --expose if that is wanted."
        )
    note(f"Warning: nothing protects this recording from whoever can reach\n{host}.")


def find_gdb(wanted: str | None) -> str:
    """The gdb to start. Raises UsageError with the remedy if there is none."""
    for name in (wanted,) if wanted else GDBS:
        found = shutil.which(name)
        if found:
            return found
    if wanted:
        raise UsageError(f"--gdb {wanted}: there is no such program.")
    raise UsageError("--launch: there is no gdb that knows RISC-V: sudo apt install gdb-multiarch, or name it: --gdb.")


def serve(
    target: Target, port: int, host: str, *, program: str | None = None, once: bool = False, stdio: bool = False
) -> int:
    """Serves clients; with `program` starts it as the only one, and returns its exit status."""
    profile = target.timeline.config.profile

    def client(connection: Connection) -> None:
        serve_gdb(connection, target, profile, note)

    if stdio:
        client(StreamConnection(0, 1))
        return 0
    with listen(host, port) as listener:
        if program is not None:
            return _launched(program, target, listener, client)
        where = address_of(listener)
        note(f"Listening on {where}; in gdb: target extended-remote {where}\nCtrl-C ends it.")
        serve_clients(listener, client, busy=BUSY, told=note, once=once)
    return 0


def address_of(listener: socket.socket) -> str:
    """Where a socket listens, as gdb takes it."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def serve_recording(live: Live, run: LiveRun, sink: TraceSink, port: int) -> Ended:
    """Serves clients that decide when the guest of `run` runs, to its end. Between clients it runs by itself.

    When the run is over, a client may look and go back as long as it likes. Raises TraceError if writing fails.
    """
    path = sink.writer.path
    with listen(LOOPBACK, port) as listener, TraceReader(path) as reader, Timeline(reader) as timeline:
        run.start()
        target = LiveTarget(timeline, Symbols(*timeline.guest.elfs), run, sink)
        server = _LiveServer(live, target, listener)
        where = address_of(listener)
        note(f"Listening on {where}; in gdb: target extended-remote {where}\n"
             "The guest stands until gdb is connected. Ctrl-C ends the recording.")  # fmt: skip
        if run.interrupted is None:  # else somebody was faster than the server
            server.serve()
        if target.failure is not None:
            raise target.failure
        return run.finish(target.over or "interrupted")


class _LiveServer:
    """Clients of a recording that is being made."""

    def __init__(self, live: Live, target: LiveTarget, listener: socket.socket) -> None:
        self._target = target
        self._listener = listener
        self._client: Connection | None = None
        self._ended = False
        live.ending = self._end

    def serve(self) -> None:
        with contextlib.suppress(OSError):  # the listener is shut when the recording is to end
            serve_clients(self._listener, self._serve, busy=BUSY, told=note, alone=self._alone)
        self._target.record_on()

    def _serve(self, connection: Connection) -> None:
        self._client = connection
        if self._ended:
            connection.shut()
        serve_gdb(connection, self._target, self._target.timeline.config.profile, note)
        self._client = None

    def _alone(self) -> bool:
        """Records on until another client comes. False if there is nothing more to record."""
        with Knocking(self._listener, self._target.interrupt):
            self._target.record_on()
        return self._target.over is None

    def _end(self) -> None:
        """The recording is to end. Called from any thread."""
        self._ended = True
        self._target.interrupt()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        if (client := self._client) is not None:
            client.shut()


def _written(target: Target, folder: Path) -> list[Path]:
    """The guest's ELF files, written into `folder` for gdb to read."""
    name, files = Path(target.guest.name).name, []
    for number, elf in enumerate(target.guest.elfs):
        files.append(folder / (f"{name}-{number}" if number else name))
        files[-1].write_bytes(elf)
    return files


def _launched(
    program: str, target: Target, listener: socket.socket, client: Callable[[Connection], None]
) -> int:
    """Starts gdb on the terminal and serves it until it ends. Ctrl-C is gdb's."""

    def clients() -> None:
        with contextlib.suppress(OSError):  # the listener is closed when gdb has ended
            serve_clients(listener, client, busy=BUSY)

    with tempfile.TemporaryDirectory(prefix="vmrec-gdb-") as folder:
        commands = Path(folder, "vmrec.py")
        files = _written(target, Path(folder))
        more = [f"add-symbol-file {file}" for file in files[1:]]
        commands.write_text(gdb_script(), encoding="utf-8")
        settings = ("set confirm off", *more, f"source {commands}", f"target extended-remote {address_of(listener)}")
        arguments = [program, "-q", *map(str, files[:1]), *(word for setting in settings for word in ("-ex", setting))]
        server = threading.Thread(target=clients, name="vmrec-gdb", daemon=True)
        server.start()
        with subprocess.Popen(arguments) as process:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                status = process.wait()
            finally:
                signal.signal(signal.SIGINT, before)
        target.interrupt()
        listener.shutdown(socket.SHUT_RDWR)
        server.join()
    return status
