# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the extension `vmrec.native._vmrec`: the hatchling build hook, and a command for developers.

    python vmrec/native/build.py        compiles what changed and puts the extension into vmrec/native/

What goes in: every C file of `vmrec/native/` and `vmrec/devices/`, the interface between the two marks in
`vmrec/native/vmrec.h` (the cdef that Python sees), the instruction table `vmrec/isa/instructions.py` (written out
as `isa_table.h`, so that Python and C share one table) and the headers inside the unicorn package. Nothing is
linked: the extension gets unicorn's functions at import.

The package never imports this file; it runs before the package exists. It therefore needs nothing but Python's own
library and cffi (hatchling too when it works as a hook).
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import importlib.util
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # called by hand from an environment without hatchling
    BuildHookInterface = None  # type: ignore[assignment,misc]

ROOT = Path(__file__).resolve().parents[2]
NATIVE = Path("vmrec", "native")
DEVICES = Path("vmrec", "devices")
HEADER = NATIVE / "vmrec.h"
TABLE = Path("vmrec", "isa", "instructions.py")
SOURCES = NATIVE / "sources.py"
MODULE = "vmrec.native._vmrec"

PREREQUISITES = "sudo apt install git gcc python3-dev python3-venv"
OPTIMISATION = ["-O3", "-fno-strict-aliasing", "-std=gnu11", "-fPIC", "-fvisibility=hidden"]
#: A product and a sum are rounded each by itself, as the guest has it; and a root sets no errno.
FLOATING_POINT = ["-ffp-contract=off", "-fno-math-errno"]
WARNINGS = ["-Wall", "-Wextra"]

#: Extensions in the order of their bits in `isa_table.h`.
EXTENSIONS = ("I", "M", "A", "F", "D", "C", "Zicsr", "Zifencei", "Priv", "S", "U")
#: Bit of each register width in `isa_row.xlens`.
XLEN_BITS = {32: 1, 64: 2}


def fail(what: str) -> NoReturn:
    """Ends the build with a sentence and the line that installs what a build needs, without a traceback."""
    sys.exit(f"vmrec: {what}\nvmrec: on Debian and Ubuntu, install what a build needs with:\n    {PREREQUISITES}")


# --------------------------------------------------------------------------------------------- what is needed


def find_compiler() -> list[str]:
    """The C compiler's command: $CC, else the compiler that Python was built with, else gcc or cc."""
    configured = os.environ.get("CC") or sysconfig.get_config_var("CC") or "gcc"
    for command in (shlex.split(configured), ["gcc"], ["cc"]):
        if command and shutil.which(command[0]):
            return command
    fail(f"no C compiler found (looked for {shlex.split(configured)[0]}, gcc and cc).")


def find_python_headers() -> Path:
    """The directory of Python.h for the running interpreter."""
    directory = Path(sysconfig.get_path("include"))
    if not (directory / "Python.h").is_file():
        fail(f"Python's C headers are missing: there is no {directory / 'Python.h'}.")
    return directory


def find_unicorn_headers() -> Path:
    """The include directory inside the installed unicorn package, found without importing it."""
    spec = importlib.util.find_spec("unicorn")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / "include" / "unicorn" / "unicorn.h").is_file():
            return Path(place) / "include"
    fail("the headers of the unicorn package are missing; `pip install unicorn==2.1.4` brings them.")


# ------------------------------------------------------------------------------------------------ generated C


def isa_table(instructions: Iterable[Any]) -> str:
    """The text of `isa_table.h`: the instruction table as C data, rows in the order of the Python table."""
    rows = list(instructions)
    names = list(dict.fromkeys(row.name for row in rows))
    symbols = {name: "OP_" + re.sub(r"\W", "_", name).upper() for name in names}
    if len(set(symbols.values())) != len(names):
        raise ValueError("two instruction names give the same C name")
    lines = [
        "/* SPDX-License-Identifier: GPL-2.0-or-later */",
        "/* Written by vmrec/native/build.py from vmrec/isa/instructions.py. */",
        "#ifndef VMREC_ISA_TABLE_H",
        "#define VMREC_ISA_TABLE_H",
        "#include <stdint.h>",
        "",
        "enum op {",
        "    OP_INVALID = 0,",
        *(f"    {symbols[name]}," for name in names),
        "    OP_COUNT",
        "};",
        "",
        *(f"#define EXT_{name.upper()} {1 << bit}" for bit, name in enumerate(EXTENSIONS)),
        "",
        "struct isa_row {",
        "    uint32_t mask, match, nonzero[2];",
        "    uint16_t op;",
        "    uint16_t extensions;",
        "    uint8_t xlens; /* 1 = RV32, 2 = RV64 */",
        "    uint8_t length;",
        "};",
        "",
        f"#define ISA_ROWS {len(rows)}",
        "static const struct isa_row isa_rows[] __attribute__((unused)) = {",
        *(f"    {isa_row(row, symbols[row.name])}," for row in rows),
        "};",
        "",
        "static const char *const op_names[OP_COUNT] __attribute__((unused)) = {",
        '    "invalid",',
        *(f'    "{name}",' for name in names),
        "};",
        "#endif",
        "",
    ]
    return "\n".join(lines)


def isa_row(row: Any, symbol: str) -> str:
    """One row of `isa_rows` as a C initialiser."""
    nonzero = [*row.nonzero, 0, 0][:2]
    if len(row.nonzero) > 2:
        raise ValueError(f"{row.name} has more than two fields that must not be zero")
    extensions = sum(1 << EXTENSIONS.index(name) for name in sorted(set(row.extensions)))
    xlens = sum(XLEN_BITS[xlen] for xlen in sorted(set(row.xlens)))
    bits = f"{row.mask:#x}, {row.match:#x}, {{{nonzero[0]:#x}, {nonzero[1]:#x}}}"
    return f"{{{bits}, {symbol}, {extensions:#x}, {xlens}, {row.length}}}"


def cdef_of(header: str) -> str:
    """The part of vmrec.h that Python sees."""
    found = re.search(r"^/\* cdef begin \*/$(.*?)^/\* cdef end \*/$", header, re.MULTILINE | re.DOTALL)
    if not found:
        sys.exit(f"vmrec: {HEADER} has no lines `/* cdef begin */` … `/* cdef end */`")
    return found.group(1)


def write_if_changed(path: Path, text: str) -> None:
    """Writes a generated file, but keeps its time stamp if nothing changed, so that nothing is compiled anew."""
    if not path.is_file() or path.read_text("utf-8") != text:
        path.write_text(text, "utf-8")


def generate(root: Path, work: Path) -> tuple[Path, Path]:
    """Writes isa_table.h, the glue between Python and C, and what names the sources into `work`; returns the latter."""
    from cffi import FFI

    table = runpy.run_path(str(root / TABLE), run_name="vmrec_isa_instructions")
    write_if_changed(work / "isa_table.h", isa_table(table["INSTRUCTIONS"]))
    ffi = FFI()
    ffi.cdef(cdef_of((root / HEADER).read_text("utf-8")))
    ffi.set_source(MODULE, '#include "vmrec.h"\n')
    glue = work / "_vmrec.c"
    with contextlib.redirect_stdout(io.StringIO()):  # it announces every file
        ffi.emit_c_code(str(glue))
    names = work / "sources.c"
    found = runpy.run_path(str(root / SOURCES), run_name="vmrec_native_sources")["sources_hash"](root / "vmrec")
    write_if_changed(names, f'#include "vmrec.h"\n\nconst char *vm_sources(void)\n{{\n    return "{found}";\n}}\n')
    return glue, names


# -------------------------------------------------------------------------------------------------- compiling


def run(command: Sequence[str | os.PathLike[str]]) -> None:
    """Runs a compiler command; its messages go to the terminal, and a failure ends the build."""
    result = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.stdout:
        print(result.stdout, end="", file=sys.stderr, flush=True)
    if result.returncode != 0:
        sys.exit(f"vmrec: the C compiler failed: {shlex.join(os.fspath(word) for word in command)}")


def newest(paths: Iterable[Path]) -> float:
    """The latest modification time among `paths` (0 if there are none)."""
    return max((path.stat().st_mtime for path in paths), default=0.0)


def build(root: Path, work: Path, output: Path) -> None:
    """Compiles the extension of the checkout `root` to the file `output`; `work` keeps objects between calls."""
    compiler = find_compiler()
    includes = [root / NATIVE, root / DEVICES, work, find_unicorn_headers(), find_python_headers()]
    flags = [*compiler, *OPTIMISATION, *FLOATING_POINT, *(f"-I{place}" for place in includes)]
    strict = ["-Werror"] if os.environ.get("VMREC_WERROR") == "1" else []
    work.mkdir(parents=True, exist_ok=True)
    generated = generate(root, work)

    headers = [*(root / NATIVE).glob("*.h"), *(root / DEVICES).glob("*.h"), work / "isa_table.h"]
    stamp = hashlib.blake2b(repr((flags, strict)).encode(), digest_size=6).hexdigest()
    commands: dict[Path, list[str | os.PathLike[str]]] = {}
    objects: list[Path] = []
    for source in [*generated, *sorted((root / NATIVE).glob("*.c")), *sorted((root / DEVICES).glob("*.c"))]:
        target = work / f"{source.parent.name.lstrip('.')}-{source.stem}-{stamp}.o"
        warnings = [] if source in generated else [*WARNINGS, *strict]
        objects.append(target)
        if not target.is_file() or target.stat().st_mtime <= newest([source, *headers]):
            commands[target] = [*flags, *warnings, "-c", source, "-o", target]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(run, commands.values()):
            pass

    if commands or not output.is_file() or output.stat().st_mtime < newest(objects):
        linker = ["-bundle", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared"]
        fresh = output.with_name(output.name + ".new")
        run([*compiler, *linker, *objects, "-o", fresh, "-lm"])
        fresh.replace(output)  # processes that use the old one keep it


def extension_name() -> str:
    """File name of the extension: for every CPython from 3.11 on, except on builds without the GIL."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX") if no_stable_interface() else ".abi3.so"
    return f"_vmrec{suffix}"


def no_stable_interface() -> bool:
    """True where Python's stable binary interface cannot be used."""
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED") or sysconfig.get_config_var("Py_DEBUG"))


# ----------------------------------------------------------------------------------------------- ways to call

if BuildHookInterface is not None:

    class ExtensionHook(BuildHookInterface[Any]):
        """Compiles the extension when a wheel is built, or in place for an editable installation."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Called by hatchling before it collects the files of the wheel."""
            root = Path(self.root)
            build_data["pure_python"] = False
            if version == "editable":
                build_in_place(root)
                return
            if no_stable_interface():
                build_data["infer_tag"] = True
            else:
                build_data["tag"] = f"cp311-abi3-{re.sub(r'[-.]', '_', sysconfig.get_platform())}"
            self.work = tempfile.TemporaryDirectory(prefix="vmrec-build-")
            output = Path(self.work.name) / extension_name()
            build(root, Path(self.work.name), output)
            included = build_data["force_include"]
            included[str(output)] = f"{NATIVE.as_posix()}/{output.name}"
            for guest in sorted((root / "guests" / "bin").glob("*.elf")):
                included[str(guest)] = f"vmrec/guest/bin/{guest.name}"
            for file in sorted((root / "guests" / "bin" / "kernel").iterdir()):
                included[str(file)] = f"vmrec/guest/bin/kernel/{file.name}"

        def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
            """Called by hatchling when the wheel is written."""
            if version != "editable":
                self.work.cleanup()


def build_in_place(root: Path = ROOT) -> Path:
    """Compiles into the checkout, keeping objects in `.build/`; returns the path of the extension."""
    output = root / NATIVE / extension_name()
    build(root, root / ".build", output)
    return output


if __name__ == "__main__":
    print(build_in_place())
