# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines and addresses: as pyelftools reads them, both ways, under DWARF 4 and 5, and with damaged debug sections."""

from __future__ import annotations

import io
import itertools
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st
from machines import FIXED, GUESTS

from vmrec.errors import UsageError
from vmrec.guest.builtin import builtin_names
from vmrec.guest.dwarf import DebugSections
from vmrec.guest.linetable import line_rows
from vmrec.guest.symbols import Symbols

GCC = "riscv64-unknown-elf-gcc"
SOURCES = GUESTS.parent
#: A file in a folder of its own, and a function that is inlined from a header twice.
TWICE = {
    "src/twice.h": "static inline int twice(int x)\n{\n    return x * 2;\n}\n",
    "src/main.c": (
        '#include "twice.h"\n\nvolatile int seen;\n\n'
        "__attribute__((noinline)) void once(int x)\n{\n\n    seen = twice(x) + 1;\n}\n\n"
        "void _start(void)\n{\n    for (int i = 0; i < 3; i++)\n        once(i);\n    seen = twice(seen);\n}\n"
    ),
}


def elf_of(name: str) -> bytes:
    return (GUESTS / f"{name}.elf").read_bytes()


def compiled(place: Path, *flags: str, xlen: int = 32) -> bytes:
    """`TWICE`, compiled and linked in `place`."""
    return compiled_from(TWICE, place, *flags, xlen=xlen)


def compiled_from(sources: dict[str, str], place: Path, *flags: str, xlen: int = 32) -> bytes:
    """`sources`, of which src/main.c is compiled, linked into guest.elf in `place`."""
    for name, text in sources.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text)
    abi = ["-march=rv32imc", "-mabi=ilp32"] if xlen == 32 else ["-march=rv64imac", "-mabi=lp64"]
    subprocess.run(
        [
            GCC, *abi, "-mcmodel=medany", "-O1", "-g", "-ffreestanding", "-nostdlib", "-static",
            "-Wl,-Ttext=0x80001000,--no-warn-rwx-segments", *flags, "src/main.c", "-o", "guest.elf",
        ],
        cwd=place, check=True,
    )  # fmt: skip
    return (place / "guest.elf").read_bytes()


needs_compiler = pytest.mark.skipif(shutil.which(GCC) is None, reason=f"{GCC} is not installed")


def reference_rows(elf: bytes) -> Iterator[tuple[int, str | None, int, bool]]:
    """(address, file name without directories, line, is_stmt) as pyelftools reads the line programs."""
    dwarf = ELFFile(io.BytesIO(elf)).get_dwarf_info()
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        assert program is not None
        old = program.header.version < 5
        for entry in program.get_entries():
            state: Any = entry.state
            if state is None:
                continue
            if state.end_sequence:
                yield state.address, None, 0, False
            else:
                name = program.header.file_entry[state.file - old].name.decode()
                yield state.address, name.rpartition("/")[2], state.line, bool(state.is_stmt)


def same_rows(elf: bytes) -> None:
    own = [
        (row.address, None if row.file is None else row.file.path.rpartition("/")[2], row.line, row.statement)
        for row in line_rows(DebugSections(elf))
    ]
    reference = list(reference_rows(elf))
    assert own == reference
    assert len(own) > 1


# ---------------------------------------------------------------------------------------------------- address to line


@pytest.mark.parametrize("name", builtin_names())
def test_rows_are_those_that_pyelftools_reads(name: str) -> None:
    same_rows(elf_of(name))


def test_a_row_names_the_file_in_short_and_in_full() -> None:
    symbols = Symbols(elf_of("sort"))
    main = symbols.lines.row(symbols.resolve("main"))
    uart = symbols.lines.row(symbols.resolve("put_text"))
    assert main is not None
    assert uart is not None
    assert (main.file, main.path) == ("sort.c", "guests/sort.c")
    assert (uart.file, uart.path) == ("runtime/uart.c", "guests/runtime/uart.c")
    assert str(main) == symbols.line(main.start) == symbols.line(main.end - 1)
    assert main.statement
    assert symbols.lines.files == tuple(sorted(symbols.lines.files))
    assert {"guests/sort.c", "guests/runtime/uart.c", "guests/runtime/start.S"} <= set(symbols.lines.files)


def test_rows_cover_their_addresses_and_nothing_else() -> None:
    symbols = Symbols(elf_of("sort"))
    function = symbols.function(symbols.resolve("quick_sort"))
    assert function is not None
    address, statements = function.start, 0
    while address < function.end:
        row = symbols.lines.row(address)
        assert row is not None
        assert row.start == address
        assert {symbols.lines.row(place) for place in range(row.start, row.end)} == {row}
        assert not row.statement or symbols.lines.is_statement(row.start)
        assert not any(symbols.lines.is_statement(place) for place in range(row.start + 1, row.end))
        statements += row.statement
        address = row.end
    assert address == function.end
    assert statements > 10
    assert symbols.lines.row(0x8000_0000 - 1) is None
    assert symbols.lines.row(2**64 - 1) is None


# ---------------------------------------------------------------------------------------------------- line to address


def line_with(file: str, text: str) -> int:
    lines = (SOURCES / file).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def test_a_line_without_code_means_the_next_one_that_has_some() -> None:
    symbols = Symbols(elf_of("sort"))
    brace, entry = line_with("sort.c", "static void swap(") + 1, symbols.resolve("swap")
    assert symbols.lines.statements("sort.c", brace - 1) == ()
    assert symbols.breakpoints("sort.c", brace - 2) == symbols.breakpoints("sort.c", brace) == (brace, (entry,))
    assert symbols.breakpoints("sort.c", -5) == symbols.breakpoints("sort.c", 1)
    assert symbols.breakpoints("sort.c", 1_000_000) is None
    assert symbols.breakpoints("absent.c", 1) is None


def test_a_line_that_begins_several_times_in_a_function_has_one_breakpoint() -> None:
    symbols = Symbols(elf_of("sort"))
    loop = line_with("sort.c", "for (; hole > 0 && array")
    statements = symbols.lines.statements("sort.c", loop)
    assert len(statements) > 1
    assert symbols.breakpoints("sort.c", loop) == (loop, statements[:1])


def test_an_inlined_line_has_a_breakpoint_in_each_function() -> None:
    symbols = Symbols(elf_of("race"))
    line = line_with("runtime/board.h", "*(volatile uint32_t *)address = value")
    found = symbols.breakpoints("board.h", line)
    assert found is not None
    names = [function.name for address in found[1] if (function := symbols.function(address))]
    assert names == ["finish", "unexpected_trap", "clint_set_mtimecmp", "report", "next_task"]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("uart.c", ("guests/runtime/uart.c",)),
        ("runtime/uart.c", ("guests/runtime/uart.c",)),
        ("guests/runtime/uart.c", ("guests/runtime/uart.c",)),
        ("/somewhere/guests/./runtime/x/../uart.c", ("guests/runtime/uart.c",)),
        ("C:\\guests\\runtime\\uart.c", ("guests/runtime/uart.c",)),
        ("other/uart.c", ()),
        ("art.c", ()),
        ("", ()),
        ("..", ()),
    ],
)
def test_files_are_found_by_their_last_parts(file: str, expected: tuple[str, ...]) -> None:
    assert Symbols(elf_of("sort")).lines.matching(file) == expected


# ------------------------------------------------------------------------------------------------- other DWARF, or none


@pytest.mark.compiler
@needs_compiler
@pytest.mark.parametrize("xlen", [32, 64])
@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_every_version_of_dwarf_gives_the_same_lines(tmp_path: Path, version: int, xlen: int) -> None:
    elf = compiled(tmp_path, f"-gdwarf-{version}", xlen=xlen)
    same_rows(elf)
    symbols = Symbols(elf)
    main, header = (str(tmp_path / "src" / name) for name in ("main.c", "twice.h"))
    assert set(symbols.lines.files) == {main, header}
    row = symbols.lines.row(symbols.resolve("_start"))
    assert row is not None
    assert (row.file, row.path) == ("src/main.c", main)
    assert row.line in (11, 12)  # of the name, or of the brace
    assert symbols.breakpoints(main, 7) == (8, symbols.lines.statements("main.c", 8)[:1])
    names = [symbols.lookup(address) for address in symbols.breakpoints("twice.h", 2)[1]]  # type: ignore[index]
    assert [name.partition("+")[0] for name in names if name] == ["once", "_start"]


@pytest.mark.compiler
@needs_compiler
@pytest.mark.parametrize("flags", [("-gz",), ("-g0",), ("-s",)], ids=["compressed", "without", "stripped"])
def test_a_guest_without_lines_that_can_be_read_has_none(tmp_path: Path, flags: tuple[str, ...]) -> None:
    lines = Symbols(compiled(tmp_path, *flags)).lines
    assert lines.files == ()
    assert lines.row(0x8000_0000) is None
    assert lines.nearest("main.c", 1) is None
    assert not lines.is_statement(0x8000_0000)


DEBUG = (".debug_line", ".debug_info", ".debug_abbrev", ".debug_str", ".debug_frame")
HELLO = elf_of("hello")
PLACES = {name: DebugSections(HELLO)._places[name][0] for name in DEBUG}


def look_everywhere(elf: bytes) -> None:
    """Asks every question. Reading must end, and raise nothing."""
    symbols = Symbols(elf)
    lines = symbols.lines
    for address in range(0x8000_0000, 0x8000_02B0, 6):
        lines.row(address)
        lines.is_statement(address)
        symbols.lookup(address)
        symbols.function(address)
        symbols.frames.rules(address)
    for file in lines.files[:20]:
        symbols.breakpoints(file, 1)


@FIXED
@given(
    st.sampled_from(DEBUG),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_debug_sections_never_raise(section: str, changes: list[tuple[float, int]]) -> None:
    data, place = bytearray(HELLO), PLACES[section]
    for where, value in changes:
        data[place[int(where * len(place))]] = value
    look_everywhere(bytes(data))


def test_every_single_bit_of_the_line_table_may_be_wrong() -> None:
    place = PLACES[".debug_line"]
    for offset in place[:120]:  # the first program and the header of the second
        for bit in range(8):
            data = bytearray(HELLO)
            data[offset] ^= 1 << bit
            Symbols(bytes(data)).line(0x8000_0000)


def with_line_section(content: bytes) -> bytes:
    """hello with another .debug_line, put behind the file."""
    data = bytearray(HELLO)
    table, count = struct.unpack_from("<I", data, 32)[0], struct.unpack_from("<H", data, 48)[0]
    for number in range(count):
        header = table + 40 * number
        if struct.unpack_from("<I", data, header + 16)[0] == PLACES[".debug_line"].start:
            struct.pack_into("<II", data, header + 16, len(data), len(content))
    return bytes(data) + content


@pytest.mark.parametrize(
    "content",
    [
        # version 5, no formats, and a number of directories that would take for ever
        b"\x20\0\0\0\x05\0\x04\0\x10\0\0\0\x01\x01\x01\0\x0e\x01\0" + b"\xff" * 8 + b"\x7f" + bytes(9),
        b"\xff\xff\xff\xff" + b"\xff" * 8,
        b"\x00\0\0\0" * 1000,
    ],
    ids=["directories", "length", "empty"],
)
def test_crafted_line_tables_are_passed_over(content: bytes) -> None:
    assert Symbols(with_line_section(content)).lines.files == ()


def test_a_crafted_line_table_has_a_bounded_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmrec.guest.linetable.ROWS_MAX", 100)
    program = b"\0\x05\x02" + struct.pack("<I", 0x8000_0000) + b"\x01" * 5000
    header = b"\x01\x01\x01\x00\x01\x0d" + bytes.fromhex("000101010100000001000001") + b"\0a.c\0\0\0\0\0"
    body = b"\x04\0" + struct.pack("<I", len(header)) + header + program
    rows = list(line_rows(DebugSections(with_line_section(struct.pack("<I", len(body)) + body))))
    assert len(rows) == 100


# ------------------------------------------------------------------------------------------------------------- symbols


def test_an_address_may_be_written_in_several_ways() -> None:
    symbols = Symbols(elf_of("race"))
    main = symbols.address("main")
    assert main is not None
    assert symbols.address("main+0x10") == symbols.address("main + 16") == main + 16
    assert symbols.address(hex(main)) == symbols.address(str(main)) == main
    assert symbols.address("0x80000000+4") is None
    for wrong in ("", "+", "main+", "main+x", "main-4", "nowhere+4", "-1", "0x", "main+0xffffffff", "4294967296"):
        assert symbols.address(wrong) is None
        with pytest.raises(UsageError):
            symbols.resolve(wrong)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mian", "Did you mean main?"),
        ("Put_Txt", "Did you mean put_text"),
        ("deposit1+4", "no symbol 'deposit1'. Did you mean deposit?"),
        ("zzzzzzzzzz", "Give an address such as"),
    ],
)
def test_an_unknown_name_gets_near_ones(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        Symbols(elf_of("race")).resolve(name)
    assert hint in str(caught.value)


def test_a_stripped_guest_says_so() -> None:
    with pytest.raises(UsageError, match="stripped of all symbols"):
        Symbols(b"").resolve("main")


@pytest.mark.parametrize("name", builtin_names())
def test_functions_are_where_the_symbol_table_says(name: str) -> None:
    """Every address of a function is in it, its end is not, and data is in none."""
    elf = elf_of(name)
    symbols = Symbols(elf)
    for symbol in ELFFile(io.BytesIO(elf)).get_section_by_name(".symtab").iter_symbols():  # type: ignore[union-attr]
        start, size, kind = symbol["st_value"], symbol["st_size"], symbol["st_info"]["type"]
        if kind == "STT_FUNC" and size:
            function = symbols.function(start + size - 1)
            assert function is not None
            assert (function.start, function.end) == (start, start + size)
            assert symbols.function(start) == function
            assert symbols.address(function.name) == start
            assert symbols.size(function.name) == size
        elif kind == "STT_OBJECT" and size:
            assert symbols.function(start) is None
            assert symbols.size(symbol.name) == size


def test_a_label_of_assembly_is_a_function_up_to_the_next_name() -> None:
    symbols = Symbols(elf_of("race"))
    names = [symbols.function(address) for address in range(0x8000_0000, 0x8000_0768, 2)]
    found = list(dict.fromkeys(function for function in names if function is not None))
    assert {"_start", "task_trap", "main"} <= {function.name for function in found}
    for before, after in itertools.pairwise(found):
        assert before.end <= after.start
