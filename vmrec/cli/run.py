# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec run: runs a guest as record does, but writes nothing down."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from vmrec.cli.drives import DeviceOption, DriveOption, VirtioOption
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
from vmrec.cli.output import note
from vmrec.errors import UsageError
from vmrec.machine.boot import BootOptions, device_tree


def command(
    guest: GuestArgument = None,
    bios: BiosOption = None,
    kernel: KernelOption = None,
    initrd: InitrdOption = None,
    append: AppendOption = None,
    dtb: DtbOption = None,
    dump_dtb: Annotated[
        Path | None,
        typer.Option(
            metavar="F",
            help="Write the device tree that the guest would be handed there, and run nothing.",
            show_default=False,
        ),
    ] = None,
    symbols: SymbolsOption = None,
    isa: IsaOption = None,
    ram: RamOption = "128M",
    input: InputOption = None,
    input_at: InputAtOption = None,
    clock: ClockOption = "virtual",
    seed: SeedOption = None,
    chaos: ChaosOption = None,
    max_insns: MaxInsnsOption = None,
    drive: DriveOption = None,
    device: DeviceOption = None,
    virtio: VirtioOption = "modern",
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
      vmrec run --kernel Image --initrd initramfs.cpio --append "console=ttyS0"
      vmrec run --bios none --kernel xv6
      vmrec run --dump-dtb board.dtb --ram 1G
    """
    options = LiveOptions(
        guest, isa, ram, input, input_at or (), clock, seed, chaos, max_insns, console=console, json=json,
        boot=BootOptions(bios, kernel, initrd, append, dtb, tuple(symbols or ())),
        drives=drive or (), devices=device or (), virtio=virtio,
    )  # fmt: skip
    if dump_dtb is not None:
        return _dump_tree(options, dump_dtb)
    found = options.find("run")
    with Live(options, found) as live:
        begin = time.perf_counter()
        ended = live.run(None, capture=False)
        made = {**summary(live, ended, time.perf_counter() - begin), "seed": live.seed, "chaos": chaos}
        live.tell("run", made)
    return exit_status(made, exit_code)


def _dump_tree(options: LiveOptions, path: Path) -> int:
    """What --dump-dtb does."""
    if options.guest is not None:
        raise UsageError("--dump-dtb is about guests that are handed a device tree; leave GUEST out.")
    tree = device_tree(options.find("run") if options.boot else None, options.machine("rv64gcsu"))
    try:
        path.write_bytes(tree)
    except OSError as error:
        raise UsageError(f"--dump-dtb {path}: cannot be written: {error.strerror}; choose another place.") from None
    note(f"device tree of {len(tree)} bytes in {path}")
    return 0
