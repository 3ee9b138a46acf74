# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec dap: a debug adapter, for editors that speak the Debug Adapter Protocol."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Annotated

import typer

from vmrec.cli.gdb import LOOPBACK, ExposeOption, HostOption, address_of, check_host, debugged
from vmrec.cli.options import ParentOption, TraceArgument, parents_also_in
from vmrec.cli.output import note
from vmrec.debug.dap.serve import BUSY, serve_dap
from vmrec.debug.server import Connection, StreamConnection, listen, serve_clients
from vmrec.debug.target import Target


def command(
    trace: TraceArgument = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", metavar="N", min=0, max=65535,
            help="Listen on this TCP port (0: any free one) instead of using stdin and stdout.", show_default=False,
        ),
    ] = None,
    host: HostOption = LOOPBACK,
    expose: ExposeOption = False,
    once: Annotated[bool, typer.Option("--once", help="With --port: end when the first client is gone.")] = False,
    parent: ParentOption = None,
) -> int:  # fmt: skip
    """Debug a recording in an editor, forwards and backwards.

    Editors start this themselves and speak the Debug Adapter Protocol on its stdin and stdout: VS Code, nvim-dap,
    dape, Zed, Helix and others. Step back goes to the statement before, over calls; reverse-continue to the breakpoint
    or data breakpoint before. The debug console takes expressions (counter, *sp, $a0) and commands (`help`).

    Arguments of launch: trace (the recording; that of the command line or the latest one if left out), stopOnEntry
    (true), position (where to begin: 5000, "end", "50%", "main", "race.c:41"), sourcePaths (folders).

    Exit status: 0, or 2 for trouble.

    \b
    Examples:
      vmrec dap
      vmrec dap race.vmrec --port 4711
    """
    check_host(host, expose=expose)
    parents_also_in(parent)

    def opener(name: str | None) -> AbstractContextManager[Target]:
        return debugged(trace if name is None else name, "begin")

    def client(connection: Connection) -> None:
        serve_dap(connection, opener)

    if port is None:
        client(StreamConnection(0, 1))
        return 0
    with listen(host, port) as listener:
        note(f"Listening on {address_of(listener)} for a debug adapter's client.\nCtrl-C ends it.")
        serve_clients(listener, client, busy=BUSY, told=note, once=once)
    return 0
