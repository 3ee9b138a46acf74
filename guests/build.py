#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Rebuild the guests' ELF files and the teaching kernel's disk from their sources, bit for bit.

The compiler is `riscv64-unknown-elf-gcc` if it is on PATH (Debian: gcc-riscv64-unknown-elf), else
`python -m ziglang cc`. The committed files and SHA256SUMS come from the compiler named in SHA256SUMS;
another compiler or version makes other bytes that behave the same.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = HERE / "bin"
SUMS = HERE / "SHA256SUMS"
GCC = "riscv64-unknown-elf-gcc"


@dataclass(frozen=True)
class Profile:
    """How an instruction set is asked for: gcc's -march and -mabi, zig's -target and -mcpu."""

    march: str
    mabi: str
    target: str
    mcpu: str


PROFILES = {
    "rv32im": Profile("rv32im_zicsr_zifencei", "ilp32", "riscv32-freestanding-none", "generic_rv32+m"),
    "rv32imac": Profile("rv32imac_zicsr_zifencei", "ilp32", "riscv32-freestanding-none", "generic_rv32+m+a+c"),
    "rv64imac": Profile("rv64imac_zicsr_zifencei", "lp64", "riscv64-freestanding-none", "generic_rv64+m+a+c"),
    "rv64gc": Profile("rv64gc_zicsr_zifencei", "lp64d", "riscv64-freestanding-none", "generic_rv64+m+a+f+d+c"),
    "rv32gc": Profile("rv32gc_zicsr_zifencei", "ilp32d", "riscv32-freestanding-none", "generic_rv32+m+a+f+d+c"),
}
#: With supervisor and user mode the compiler has nothing to do.
PROFILES |= {f"{isa}su": PROFILES[isa] for isa in ("rv64gc", "rv32gc")}
RUNTIME = ("runtime/start.S", "runtime/finish.c", "runtime/uart.c")
TASKS = ("runtime/tasks.S",)


@dataclass(frozen=True)
class Guest:
    """One ELF file: its profile, its own sources, and what of the runtime it is linked with.

    `types`: debug information tells types and variables too, for those that are there to be debugged; else lines only.
    `script`: the linker script if it is neither of the runtime's. `frames`: code keeps frame pointers.
    """

    name: str
    isa: str
    sources: tuple[str, ...]
    runtime: tuple[str, ...] = RUNTIME
    defines: tuple[str, ...] = ()
    writable_code: bool = False
    types: bool = False
    script: str = ""
    frames: bool = False


GUESTS = (
    Guest("hello", "rv32im", ("hello.c",)),
    Guest("echo", "rv32im", ("echo.c",)),
    Guest("sort", "rv32im", ("sort.c",)),
    Guest("timer", "rv32im", ("timer.c", "timer-registers.S"), RUNTIME + TASKS),
    Guest("dice", "rv32im", ("dice.c",)),
    Guest("traps", "rv32im", ("traps.c", "traps-probes.S")),
    Guest("traps-manual", "rv32im", ("traps-manual.c", "traps-probes.S")),
    Guest("smc", "rv32im", ("smc.c", "smc-code.S"), writable_code=True),
    Guest("smc-nofence", "rv32im", ("smc.c", "smc-code.S"), defines=("NO_FENCE",), writable_code=True),
    Guest("mixed", "rv32im", ("mixed.c", "mixed-page.S"), writable_code=True),
    Guest("counters", "rv32im", ("counters.c",)),
    Guest("counters-manual", "rv32im", ("counters-manual.c", "counters-trap.S")),
    Guest("race", "rv32im", ("race.c",), RUNTIME + TASKS, types=True),
    Guest("crash", "rv32im", ("crash.c",), types=True),
    Guest("lrsc", "rv32imac", ("lrsc.c",)),
    Guest("lrsc64", "rv64imac", ("lrsc.c",)),
    Guest("fp", "rv64gc", ("fp.c",)),
    Guest("paging", "rv64gcsu", ("paging.c", "paging-probes.S")),
    Guest("paging32", "rv32gcsu", ("paging.c", "paging-probes.S")),
    Guest("live-tables", "rv64gcsu", ("live-tables.c", "live-tables-code.S")),
    Guest("live-tables32", "rv32gcsu", ("live-tables.c", "live-tables-code.S")),
    Guest("disk", "rv64gc", ("disk.c",)),
    Guest("terminal", "rv64gc", ("terminal.c",)),
    Guest("board", "rv64gc", ("board.c",)),
    Guest("forever", "rv32im", ("forever.S",), ()),
    Guest("wfi-forever", "rv32im", ("wfi-forever.S",), ()),
    Guest("nowhere", "rv32im", ("nowhere.S",), ()),
    Guest("flood", "rv32im", ("flood.c",)),
    Guest("loop-reg", "rv32im", ("loop-reg.c",)),
    Guest("loop-mem", "rv32im", ("loop-mem.c",)),
    Guest("loop-mem-long", "rv32im", ("loop-mem.c",), defines=("ITERATIONS=110000000u",)),
    Guest("loop64-mem", "rv64gc", ("loop-mem.c",)),
    Guest("loop-branchy", "rv32im", ("loop-branchy.c",)),
    Guest("loop-mmio", "rv32im", ("loop-mmio.c",)),
    Guest("loop-trap", "rv32im", ("loop-trap.c", "loop-trap-code.S")),
    Guest("loop-fp", "rv64gc", ("loop-fp.c",)),
    Guest("loop-fault", "rv64imac", ("loop-fault.c", "loop-supervisor-code.S")),
    Guest("loop-tick", "rv64imac", ("loop-tick.c", "loop-supervisor-code.S")),
    Guest(
        "loop-mixed",
        "rv32im",
        ("mixed.c", "mixed-page.S"),
        defines=("ITERATIONS=10000000u",),
        writable_code=True,
    ),
    Guest("loop-smc", "rv32im", ("loop-smc.c", "loop-smc-code.S"), writable_code=True),
    Guest("timer-long", "rv32im", ("timer-long.c",), RUNTIME + TASKS),
)


def kernel_sources(*names: str) -> tuple[str, ...]:
    return tuple(f"kernel/{name}" for name in names)


def program(name: str) -> Guest:
    """A program that runs in user mode on the teaching kernel."""
    runtime = kernel_sources("user/entry.S", "user/lib.c")
    script = "kernel/user/user.ld"
    return Guest(f"kernel/{name}", "rv64imac", (f"kernel/user/{name}.c",), runtime, types=True, script=script)


KERNEL = Guest(
    "kernel/kernel",
    "rv64imac",
    kernel_sources(
        "start.S", "trap.S", "switch.S", "main.c", "devicetree.c", "sbi.c", "string.c", "print.c", "page.c", "vm.c",
        "process.c", "exec.c", "trap.c", "timer.c", "plic.c", "console.c", "disk.c", "buffer.c", "files.c", "syscall.c",
    ),
    (),
    types=True,
    script="kernel/kernel.ld",
    frames=True,
)  # fmt: skip
PROGRAMS = tuple(
    program(name) for name in ("init", "sh", "cat", "ls", "echo", "rm", "forks", "faults", "work", "bank")
)
#: Started by SBI firmware in supervisor mode, with 64 and with 32 bits.
CALLERS = tuple(
    Guest(f"sbi/{name}", isa, ("sbi/start.S", "sbi/sbi.c"), (), script="sbi/sbi.ld")
    for name, isa in (("sbi64", "rv64imac"), ("sbi32", "rv32imac"))
)
#: The disk with those programs, without their debug information, and texts.
IMAGE = "kernel/kernel.img"
TEXTS = {"greeting": "kernel/greeting.txt"}
IMAGE_BLOCKS = 96

ALL = (*GUESTS, *CALLERS, KERNEL, *PROGRAMS)


def zig_only() -> bool:
    """Whether zig has to do: gcc is not on PATH."""
    return shutil.which(GCC) is None


def compiler(guest: Guest) -> list[str]:
    """The command, with flags, that compiles and links for `guest`; without one, exits with the remedy."""
    profile = PROFILES[guest.isa]
    flags = [
        f"-mabi={profile.mabi}", "-mcmodel=medany", "-O1", "-std=gnu17", "-ffreestanding", "-fno-builtin",
        "-nostdlib", "-static", "-fno-pic", "-fno-stack-protector", "-fno-asynchronous-unwind-tables",
        "-ffunction-sections", "-fno-ident", "-gdwarf-4", "-g2" if guest.types else "-g1",
        f"-ffile-prefix-map={HERE}=guests", f"-fdebug-prefix-map={HERE}=guests", "-ffile-prefix-map=/usr=usr",
        "-Wall", "-Wextra", f'-DGUEST="{guest.name}"',
        *(f"-D{define}" for define in guest.defines),
        *(["-fno-omit-frame-pointer"] if guest.frames else []),
    ]  # fmt: skip
    if not zig_only():
        return [
            GCC, f"-march={profile.march}", *flags, "-Werror", "-fno-inline-functions-called-once",
            "-fno-var-tracking", "-gno-record-gcc-switches",
        ]  # fmt: skip
    if importlib.util.find_spec("ziglang") is None:
        sys.exit(f"build.py: no compiler: install {GCC} (Debian: gcc-{GCC[:-4]}) or ziglang (PyPI)")
    return [
        sys.executable, "-m", "ziglang", "cc", "-target", profile.target, f"-mcpu={profile.mcpu}", *flags,
        "-fno-sanitize=undefined", "-Wno-unused-command-line-argument",
    ]  # fmt: skip


def linker_flags(guest: Guest) -> list[str]:
    script = Path(guest.script).name or ("link-rwx.ld" if guest.writable_code else "link.ld")
    flags = [f"-Wl,-T,{script}", "-Wl,--build-id=none", "-Wl,--gc-sections", "-Wl,-z,max-page-size=64"]
    return flags if zig_only() else [*flags, "-Wl,--no-warn-rwx-segments"]


def compiler_version() -> str:
    """One line that names the compiler whose output is reproducible."""
    name, command = GCC, [GCC, "-dumpfullversion"]
    if zig_only():
        name, command = "ziglang", [sys.executable, "-m", "ziglang", "version"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return f"{name} {done.stdout.strip()}"


def build(guest: Guest, output: Path) -> None:
    """Compile and link one guest into the ELF file `output`."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        objects = []
        for source in guest.runtime + guest.sources:
            objects.append(source.replace("/", "-") + ".o")
            run([*compiler(guest), "-c", source, "-o", str(scratch / objects[-1])], HERE)
        for script in (HERE / guest.script).parent.glob("*.ld") if guest.script else (HERE / "runtime").glob("*.ld"):
            shutil.copy(script, scratch)  # they include each other, from the current folder
        run([*compiler(guest), *linker_flags(guest), *objects, "-o", "guest.elf"], scratch)
        if not zig_only():  # mapping symbols tell a reader nothing where there is one instruction set
            strip = [GCC.replace("gcc", "objcopy"), "-w", "--strip-symbol=$x*", "--strip-symbol=$d*"]
            run([*strip, "guest.elf"], scratch)
        shutil.copyfile(scratch / "guest.elf", output)


def build_image(binaries: Path, output: Path) -> None:
    """The disk of the teaching kernel, from its programs in the folder `binaries`."""
    make = runpy.run_path(str(HERE / "kernel" / "mkfs.py"))["make"]
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for guest in PROGRAMS:
            file = binaries / f"{guest.name}.elf"
            if not zig_only():
                run([GCC.replace("gcc", "strip"), "-o", "program", str(file)], Path(folder))
                file = Path(folder) / "program"
            files[Path(guest.name).name] = file.read_bytes()
    files |= {name: (HERE / text).read_bytes() for name, text in TEXTS.items()}
    output.write_bytes(make(files, IMAGE_BLOCKS))


def run(command: Sequence[str], cwd: Path) -> None:
    """Run one compiler command; a failure ends the script with the compiler's own message above."""
    if subprocess.run(command, cwd=cwd, check=False).returncode:
        sys.exit(f"build.py: failed: {' '.join(command)}")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_sums() -> tuple[str, dict[str, str]]:
    """The compiler named in SHA256SUMS, and file -> hash, files as in `kernel/sh.elf`: below bin/."""
    version, sums = "", {}
    for line in SUMS.read_text(encoding="ascii").splitlines():
        if line.startswith("# compiler: "):
            version = line.removeprefix("# compiler: ")
        elif line and not line.startswith("#"):
            digest, name = line.split()
            sums[name.removeprefix("bin/")] = digest
    return version, sums


def write_sums() -> None:
    lines = ["# sha256sum -c SHA256SUMS; made by build.py", f"# compiler: {compiler_version()}"]
    files = [*(f"{guest.name}.elf" for guest in ALL), IMAGE]
    lines += [f"{sha256(BIN / name)}  bin/{name}" for name in sorted(files)]
    SUMS.write_text("\n".join(lines) + "\n", encoding="ascii")


def check(guests: Iterable[Guest]) -> list[str]:
    """Rebuild into a scratch folder and compare with SHA256SUMS; returns the files that differ.

    With all programs of the teaching kernel also its disk.
    """
    version, sums = read_sums()
    if compiler_version() != version:
        print(f"build.py: SHA256SUMS is of {version}, this is {compiler_version()}: expect other bytes")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for part in ("kernel", "sbi"):
            (scratch / part).mkdir()
        names = []
        for guest in guests:
            names.append(f"{guest.name}.elf")
            build(guest, scratch / names[-1])
        if {f"{guest.name}.elf" for guest in PROGRAMS} <= set(names):
            names.append(IMAGE)
            build_image(scratch, scratch / IMAGE)
        return [name for name in names if sha256(scratch / name) != sums.get(name)]


def main() -> int:
    names = [guest.name for guest in ALL]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="GUEST", help=f"default: all of them: {', '.join(names)}")
    parser.add_argument("--check", action="store_true", help="only rebuild elsewhere and compare with SHA256SUMS")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(names))
    if unknown:
        parser.error(f"no such guest: {', '.join(unknown)}")
    chosen = [guest for guest in ALL if not options.names or guest.name in options.names]
    if options.check:
        differing = check(chosen)
        print("\n".join(f"{name}: DIFFERS" for name in differing) or "all as committed")
        return 1 if differing else 0
    for part in ("kernel", "sbi"):
        (BIN / part).mkdir(parents=True, exist_ok=True)
    for guest in chosen:
        build(guest, BIN / f"{guest.name}.elf")
        print(f"{guest.name}: {(BIN / guest.name).with_suffix('.elf').stat().st_size} bytes, {guest.isa}")
    if any(guest in PROGRAMS for guest in chosen):
        build_image(BIN, BIN / IMAGE)
        print(f"{IMAGE}: {(BIN / IMAGE).stat().st_size} bytes")
    write_sums()
    return 0


if __name__ == "__main__":
    sys.exit(main())
