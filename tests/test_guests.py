# SPDX-License-Identifier: GPL-2.0-or-later
"""The committed guests: the bytes SHA256SUMS promises, rebuilt alike, documented, loadable as they are."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

GUESTS = Path(__file__).resolve().parent.parent / "guests"
RAM_START = 0x8000_0000
LARGEST = 30_000  # bytes


def load_build_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("guests_build", GUESTS / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


build = load_build_script()
NAMES = [guest.name for guest in build.GUESTS]
SOURCES = sorted(path for path in GUESTS.glob("**/*.*") if path.suffix in (".c", ".h", ".S", ".ld"))


def test_sums_name_exactly_the_committed_files() -> None:
    _, sums = build.read_sums()
    assert sorted(sums) == sorted(f"{name}.elf" for name in NAMES)
    assert sorted(path.name for path in (GUESTS / "bin").iterdir()) == sorted(sums)


@pytest.mark.parametrize("name", NAMES)
def test_committed_file_has_the_promised_hash(name: str) -> None:
    _, sums = build.read_sums()
    assert build.sha256(GUESTS / "bin" / f"{name}.elf") == sums[f"{name}.elf"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_source_opens_with_licence_and_purpose(path: Path) -> None:
    licence, purpose = path.read_text(encoding="ascii").splitlines()[:2]
    assert licence == "/* SPDX-License-Identifier: GPL-2.0-or-later */"
    assert re.fullmatch(rf"/\* ({re.escape(path.stem)}|{re.escape(path.name)}): .{{10,}} \*/", purpose)


def test_every_source_is_built() -> None:
    built = {source for guest in build.GUESTS for source in guest.runtime + guest.sources}
    assert built == {str(path.relative_to(GUESTS)) for path in SOURCES if path.suffix in (".c", ".S")}


@pytest.mark.parametrize("guest", build.GUESTS, ids=lambda guest: guest.name)
def test_readme_has_a_row_with_the_isa(guest: build.Guest) -> None:  # type: ignore[name-defined]
    readme = (GUESTS / "README.md").read_text(encoding="utf-8")
    assert f"\n| {guest.name} | {guest.isa} | " in readme


@pytest.mark.parametrize("guest", build.GUESTS, ids=lambda guest: guest.name)
def test_elf_is_what_a_loader_wants(guest: build.Guest) -> None:  # type: ignore[name-defined]
    path = GUESTS / "bin" / f"{guest.name}.elf"
    assert path.stat().st_size < LARGEST
    with path.open("rb") as file:
        elf = ELFFile(file)
        assert elf["e_machine"] == "EM_RISCV"
        assert elf.elfclass == int(guest.isa[2:4])
        assert elf["e_entry"] == RAM_START
        loads = sorted(
            (segment["p_vaddr"], segment["p_memsz"], segment["p_flags"])
            for segment in elf.iter_segments("PT_LOAD")
            if segment["p_memsz"]
        )
        assert all(segment["p_paddr"] == segment["p_vaddr"] for segment in elf.iter_segments("PT_LOAD"))
        assert loads[0][0] == RAM_START
        for (start, size, _), (following, _, _) in itertools.pairwise(loads):
            assert start + size <= following
        writable_code = any(flags & 3 == 3 for _, _, flags in loads)
        assert writable_code == guest.writable_code
        assert elf.get_section_by_name(".debug_line") is not None
        symbols = elf.get_section_by_name(".symtab")
        assert isinstance(symbols, SymbolTableSection)
        found = symbols.get_symbol_by_name("_start")
        assert found is not None
        assert [symbol["st_value"] for symbol in found] == [RAM_START]


@pytest.mark.parametrize("name", NAMES)
def test_elf_names_no_path_of_the_machine_it_was_built_on(name: str) -> None:
    content = (GUESTS / "bin" / f"{name}.elf").read_bytes()
    assert re.findall(rb"[ -~]*/(?:home|root|tmp|usr|work|opt|Users)/[ -~]*", content) == []


def test_rebuilding_gives_the_committed_bytes(tmp_path: Path) -> None:
    version, sums = build.read_sums()
    if shutil.which(build.GCC) is None:
        pytest.skip(f"{build.GCC} is not installed: the committed guests cannot be rebuilt")
    if build.compiler_version() != version:
        pytest.skip(f"the committed guests are of {version}, here is {build.compiler_version()}")
    differing = []
    for guest in build.GUESTS:
        made = tmp_path / f"{guest.name}.elf"
        build.build(guest, made)
        if build.sha256(made) != sums[made.name]:
            differing.append(guest.name)
    assert differing == []
