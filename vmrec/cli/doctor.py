# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec doctor: what is installed, what is missing, and how to get it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vmrec import __version__
from vmrec.cli.options import JsonOption
from vmrec.cli.output import coloured, columns, print_json, write
from vmrec.errors import VmrecError

PREREQUISITES = "sudo apt install git gcc python3-dev python3-venv"


class Check(NamedTuple):
    """One finding. Only a `required` one that is not `good` is trouble."""

    name: str
    good: bool
    detail: str
    required: bool = True
    remedy: str = ""


def command(json: JsonOption = False) -> int:
    """Check the installation: Python, packages, the extension, the engine's behaviour, compilers, peers.

    What is optional is listed as such. Exit status: 0 if vmrec can work, 2 if something it needs is missing or wrong.

    \b
    Examples:
      vmrec doctor
      vmrec doctor --json
    """
    found = [*_python(), *_packages(), *_extension(), *_probes(), *_compilers(), *_peers()]
    works = all(check.good or not check.required for check in found)
    if json:
        print_json("doctor", {"version": __version__, "good": works, "checks": [check._asdict() for check in found]})
    else:
        write(columns([(_verdict(check), check.name, check.detail) for check in found]))
        for check in found:
            if check.remedy and not check.good:
                write(f"\n{check.name}: {check.remedy}")
        write("\n" + ("vmrec can work." if works else "vmrec cannot work: see what is marked wrong."))
    return 0 if works else 2


def _verdict(check: Check) -> str:
    text, colour = ("good", 32) if check.good else ("wrong", 31) if check.required else ("absent", 33)
    return f"\033[{colour}m{text:<6}\033[0m" if coloured(sys.stdout) else text


# ------------------------------------------------------------------------------------------------------- Python


def _python() -> Iterator[Check]:
    yield Check("vmrec", True, f"{__version__}, {Path(__file__).resolve().parents[1]}")
    version = platform.python_version()
    system = f"{platform.system()} {platform.machine()}"
    yield Check(
        "python",
        sys.version_info >= (3, 11),
        f"{platform.python_implementation()} {version}, {sys.prefix}, {system}",
        remedy="vmrec needs Python 3.11 or later; make its environment with one: `python3.12 -m venv .venv`.",
    )


def _packages() -> Iterator[Check]:
    """What vmrec depends on, as its own metadata say; without metadata (run from a checkout) nothing is listed."""
    try:
        needed = importlib.metadata.requires("vmrec") or []
    except importlib.metadata.PackageNotFoundError:
        yield Check(
            "packages", False, "vmrec is run from a checkout without being installed", required=False,
            remedy="install it with `python -m pip install -e .`, so that its packages can be checked.",
        )  # fmt: skip
        return
    for requirement in needed:
        text, _, marker = requirement.partition(";")
        if "extra ==" in marker or ("python_version" in marker and sys.version_info >= (3, 14)):
            continue
        name = text[: min((text.find(sign) for sign in "<>=!~ ;" if sign in text), default=len(text))]
        yield _package(name.strip(), text.strip())


def _package(name: str, requirement: str) -> Check:
    remedy = f"install it with `python -m pip install '{requirement}'`."
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, False, "not installed", remedy=remedy)
    good = all(_satisfies(version, bound) for bound in requirement.removeprefix(name).split(","))
    return Check(name, good, version if good else f"{version}, but vmrec needs {requirement}", remedy=remedy)


def _satisfies(version: str, bound: str) -> bool:
    """Whether a version meets one of the bounds that pyproject.toml uses: ==, >= or < and a plain version."""
    have = _numbers(version)
    for sign in ("==", ">=", "<"):
        if bound.startswith(sign):
            want = _numbers(bound.removeprefix(sign))
            return {"==": have == want, ">=": have >= want, "<": have < want}[sign]
    return True


def _numbers(version: str) -> list[int]:
    """The leading numbers of a version, without zeros at the end: 2.1.4.post1 → [2, 1, 4]."""
    numbers = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers


# ------------------------------------------------------------------------------------------ extension and engine


def _extension() -> Iterator[Check]:
    spec = importlib.util.find_spec("vmrec.native._vmrec")
    remedy = f"build it with `python -m pip install -e .`; that needs a C compiler: {PREREQUISITES}"
    if spec is None or spec.origin is None:
        yield Check("extension", False, "not built", remedy=remedy)
        return
    try:
        importlib.import_module("vmrec.native._vmrec")
    except ImportError as error:
        yield Check("extension", False, f"cannot be loaded: {error}", remedy=remedy)
        return
    yield Check("extension", True, Path(spec.origin).name)


def _probes() -> Iterator[Check]:
    """What `vmrec.machine.probes.probes` finds out about the engine's behaviour that vmrec relies on."""
    try:
        from vmrec.machine.probes import probes

        for name, good, detail in probes():
            yield Check(
                f"engine: {name}", good, detail, remedy="install the engine that vmrec was tried with: unicorn==2.1.4."
            )
    except (ImportError, VmrecError) as error:
        yield Check("engine", False, f"cannot be probed: {error}", remedy="repair what is wrong above first.")


# ---------------------------------------------------------------------------------------------- optional things


def _compilers() -> Iterator[Check]:
    compiler = shutil.which((sysconfig.get_config_var("CC") or "gcc").split()[0]) or shutil.which("gcc")
    yield Check(
        "C compiler",
        compiler is not None,
        _version_of(compiler) if compiler else "not found; only building vmrec needs it",
        required=False,
        remedy=PREREQUISITES,
    )
    headers = Path(sysconfig.get_path("include"), "Python.h")
    yield Check(
        "Python headers",
        headers.is_file(),
        str(headers.parent) if headers.is_file() else "not found; only building vmrec needs them",
        required=False,
        remedy=PREREQUISITES,
    )
    gcc = shutil.which("riscv64-unknown-elf-gcc")
    zig = importlib.util.find_spec("ziglang") is not None
    yield Check(
        "guest compiler",
        gcc is not None or zig,
        _version_of(gcc) if gcc else "ziglang" if zig else "not found; only rebuilding guests needs one",
        required=False,
        remedy="`python -m pip install 'vmrec[guests]'`, or sudo apt install gcc-riscv64-unknown-elf",
    )


def _peers() -> Iterator[Check]:
    for program in ("qemu-system-riscv32", "qemu-system-riscv64"):
        path = shutil.which(program)
        yield Check(
            program,
            path is not None,
            _version_of(path) if path else "not found; only tests and `vmrec bench` compare with it",
            required=False,
            remedy="sudo apt install qemu-system-misc",
        )


def _version_of(program: str) -> str:
    """The first line that `program --version` prints."""
    try:
        result = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program}: {error}"
    return (result.stdout or result.stderr).partition("\n")[0].strip() or program
