# SPDX-License-Identifier: GPL-2.0-or-later
"""The committed guests: the bytes SHA256SUMS promises, rebuilt alike, documented, loadable as they are."""

from __future__ import annotations

import importlib.util
import itertools
import re
import runpy
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

GUESTS = Path(__file__).resolve().parent.parent / "guests"
RAM_START = 0x8000_0000
LARGEST = 40_000  # bytes; code that is mapped elsewhere fills pages of its own
LARGEST_KERNEL = 200_000
LARGEST_IMAGE = 512 << 10


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
FILES = sorted([*(f"{guest.name}.elf" for guest in build.ALL), build.IMAGE])  # below bin/
SOURCES = sorted(path for path in GUESTS.glob("**/*.*") if path.suffix in (".c", ".h", ".S", ".ld"))


def test_sums_name_exactly_the_committed_files() -> None:
    _, sums = build.read_sums()
    committed = [path for path in (GUESTS / "bin").rglob("*") if path.is_file()]
    assert sorted(sums) == FILES
    assert sorted(path.relative_to(GUESTS / "bin").as_posix() for path in committed) == FILES


@pytest.mark.parametrize("name", FILES)
def test_committed_file_has_the_promised_hash(name: str) -> None:
    _, sums = build.read_sums()
    assert build.sha256(GUESTS / "bin" / name) == sums[name]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_source_opens_with_licence_and_purpose(path: Path) -> None:
    licence, purpose = path.read_text(encoding="ascii").splitlines()[:2]
    assert licence == "/* SPDX-License-Identifier: GPL-2.0-or-later */"
    assert re.fullmatch(rf"/\* ({re.escape(path.stem)}|{re.escape(path.name)}): .{{10,}} \*/", purpose)


def test_every_source_is_built() -> None:
    built = {source for guest in build.ALL for source in guest.runtime + guest.sources}
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


@pytest.mark.parametrize("guest", [build.KERNEL, *build.PROGRAMS], ids=lambda guest: guest.name)
def test_the_teaching_kernel_and_its_programs_are_what_a_debugger_wants(
    guest: build.Guest,  # type: ignore[name-defined]
) -> None:
    path = GUESTS / "bin" / f"{guest.name}.elf"
    assert path.stat().st_size < LARGEST_KERNEL
    with path.open("rb") as file:
        elf = ELFFile(file)
        assert (elf["e_machine"], elf.elfclass) == ("EM_RISCV", 64)
        loads = [segment for segment in elf.iter_segments("PT_LOAD") if segment["p_memsz"]]
        assert elf["e_entry"] == loads[0]["p_vaddr"] == (0x8020_0000 if guest is build.KERNEL else 0x1_0000)
        assert [segment["p_flags"] for segment in loads] in ([5, 6], [5])
        pages = [range(load["p_vaddr"] >> 12, (load["p_vaddr"] + load["p_memsz"] + 4095) >> 12) for load in loads]
        assert all(before.stop <= after.start for before, after in itertools.pairwise(pages))
        producers = [unit.get_top_DIE().attributes for unit in elf.get_dwarf_info().iter_CUs()]
        assert len(producers) == len(guest.runtime + guest.sources)
        assert any(die.tag == "DW_TAG_variable" for unit in elf.get_dwarf_info().iter_CUs() for die in unit.iter_DIEs())


def test_the_kernels_disk_holds_its_programs(tmp_path: Path) -> None:
    image = (GUESTS / "bin" / build.IMAGE).read_bytes()
    assert len(image) == build.IMAGE_BLOCKS * 4096 <= LARGEST_IMAGE
    mkfs = runpy.run_path(str(GUESTS / "kernel" / "mkfs.py"))
    files = dict(mkfs["read"](image))
    assert list(files) == [*(Path(guest.name).name for guest in build.PROGRAMS), *build.TEXTS]
    assert mkfs["make"](files, build.IMAGE_BLOCKS) == image
    for guest in build.PROGRAMS:
        (tmp_path / "program").write_bytes(files[Path(guest.name).name])
        with (tmp_path / "program").open("rb") as bare, (GUESTS / "bin" / f"{guest.name}.elf").open("rb") as whole:
            loads = [[part.data() for part in ELFFile(file).iter_segments("PT_LOAD")] for file in (bare, whole)]
        assert loads[0] == loads[1]


def test_the_kernels_disk_is_refused_what_does_not_fit() -> None:
    make = runpy.run_path(str(GUESTS / "kernel" / "mkfs.py"))["make"]
    for files, blocks, complaint in (
        ({"x" * 28: b""}, 96, "a name has 1 to 27 characters"),
        ({"": b""}, 96, "a name has 1 to 27 characters"),
        ({"big": bytes(24 * 4096 + 1)}, 96, "a file has 98304 at most"),
        ({"a": bytes(5 * 4096)}, 8, "the files need 9 blocks"),
        ({str(number): b"" for number in range(65)}, 96, "there are 64 inodes"),
        ({}, 3, "a disk has 4 to 32768 blocks"),
    ):
        with pytest.raises(ValueError, match=complaint):
            make(files, blocks)


@pytest.mark.parametrize("name", FILES)
def test_elf_names_no_path_of_the_machine_it_was_built_on(name: str) -> None:
    content = (GUESTS / "bin" / name).read_bytes()
    assert re.findall(rb"[ -~]*/(?:home|root|tmp|usr|work|opt|Users)/[ -~]*", content) == []


def test_rebuilding_gives_the_committed_bytes() -> None:
    version, _ = build.read_sums()
    if shutil.which(build.GCC) is None:
        pytest.skip(f"{build.GCC} is not installed: the committed guests cannot be rebuilt")
    if build.compiler_version() != version:
        pytest.skip(f"the committed guests are of {version}, here is {build.compiler_version()}")
    assert build.check(build.ALL) == []
