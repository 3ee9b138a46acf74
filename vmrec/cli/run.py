# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec run: runs a guest as record does, but writes nothing down."""

from __future__ import annotations

import time

from vmrec.cli.live import (
    AppendOption,
    BiosOption,
    ChaosOption,
    ClockOption,
    ConsoleOption,
    DtbOption,
    ExitCodeOption,
    InitrdOption,
    InputAtOption,
    InputOption,
    IsaOption,
    KernelOption,
    Live,
    LiveOptions,
    MaxInsnsOption,
    RamOption,
    SeedOption,
    SymbolsOption,
    exit_status,
    summary,
)
from vmrec.cli.options import GuestArgument, JsonOption
from vmrec.machine.boot import BootOptions


def command(
    guest: GuestArgument = None,
    bios: BiosOption = None,
    kernel: KernelOption = None,
    initrd: InitrdOption = None,
    append: AppendOption = None,
    dtb: DtbOption = None,
    symbols: SymbolsOption = None,
    isa: IsaOption = None,
    ram: RamOption = "128M",
    input: InputOption = None,
    input_at: InputAtOption = None,
    clock: ClockOption = "virtual",
    seed: SeedOption = None,
    chaos: ChaosOption = None,
    max_insns: MaxInsnsOption = None,
    console: ConsoleOption = None,
    json: JsonOption = False,
    exit_code: ExitCodeOption = None,
) -> int:
    """Run a guest without recording it.

    As `vmrec record`, which see, without a file: the guest's console is stdout, a summary follows on stderr. On a
    terminal Ctrl-A x ends the run and Ctrl-A h helps.

    Exit status: 0 for any run that ended cleanly (the summary says why), 2 for trouble; with --exit-code guest the
    guest's own.

    \b
    Examples:
      vmrec run hello
      vmrec run echo
      vmrec run tests.elf --max-insns 1000000000 --exit-code guest
      vmrec run dice --seed 7 --json --console thrown.txt
    """
    options = LiveOptions(
        guest, isa, ram, input, input_at or (), clock, seed, chaos, max_insns, console=console, json=json,
        boot=BootOptions(bios, kernel, initrd, append, dtb, tuple(symbols or ())),
    )  # fmt: skip
    found = options.find("run")
    with Live(options, found) as live:
        begin = time.perf_counter()
        ended = live.run(None, capture=False)
        made = {**summary(live, ended, time.perf_counter() - begin), "seed": live.seed, "chaos": chaos}
        live.tell("run", made)
    return exit_status(made, exit_code)
