# SPDX-License-Identifier: GPL-2.0-or-later
"""Device trees: written as dtc writes them, read without trust, the board's own as QEMU's board describes itself."""

from __future__ import annotations

import contextlib
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import FIXED

from vmrec.guest.devicetree import BadTree, Node, Tree, cells, parse_tree, text
from vmrec.machine.board import MachineConfig
from vmrec.machine.tree import Chosen, board_tree, set_chosen

CONFIGS = {
    "rv64": MachineConfig(isa="rv64gcsu"),
    "rv32": MachineConfig(isa="rv32gcsu", ram_size=64 << 20),
    "sbi": MachineConfig(isa="rv64gcsu", sbi=True),
}


def dtc(data: bytes, *options: str) -> bytes:
    if shutil.which("dtc") is None:
        pytest.skip("dtc is not installed: nothing to compare device trees with")
    result = subprocess.run(["dtc", *options], input=data, capture_output=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr.decode()
    assert result.stderr == b"", result.stderr.decode()
    return result.stdout


def board(name: str) -> Tree:
    return board_tree(CONFIGS[name], Chosen("console=ttyS0 root=/dev/vda", (0x84200000, 0x84300000)))


# --------------------------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize("name", CONFIGS)
def test_dtc_reads_the_board_without_a_warning_and_writes_it_the_same(name: str) -> None:
    data = board(name).pack()
    source = dtc(data, "-I", "dtb", "-O", "dts")
    # In the source phandles are plain numbers, which dtc would rather have as references.
    assert dtc(source, "-I", "dts", "-O", "dtb", "-Wno-interrupts_extended_property") == data


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_written_is_read_again(name: str) -> None:
    tree = board(name)
    assert parse_tree(tree.pack()) == tree
    assert parse_tree(tree.pack() + b"behind") == tree


def test_reservations_and_the_boot_hart_are_kept() -> None:
    tree = Tree(Node("", {"a": b"\1"}), [(0x8000_0000, 0x1000), (1 << 40, 1)], boot_hart=3)
    assert parse_tree(tree.pack()) == tree


NAMES = st.text("abcz019,._+-@", min_size=1, max_size=31)
NODES = st.recursive(
    st.builds(Node, NAMES, st.dictionaries(NAMES.filter(lambda name: "@" not in name), st.binary(max_size=40))),
    lambda children: st.builds(Node, NAMES, st.just({}), st.lists(children, max_size=3)),
    max_leaves=12,
)


@settings(FIXED, max_examples=100)
@given(nodes=st.lists(NODES, max_size=4))
def test_any_tree_comes_back(nodes: list[Node]) -> None:
    tree = Tree(Node("", {"compatible": text("x", "y")}, nodes))
    assert parse_tree(tree.pack()) == tree


# ------------------------------------------------------------------------------------------------------- bad input


GOOD = board("rv64").pack()


@settings(FIXED, max_examples=400)
@given(
    changes=st.lists(
        st.tuples(st.one_of(st.integers(0, 63), st.integers(0, len(GOOD) - 1)), st.integers(0, 255)), max_size=6
    ),
    end=st.one_of(st.just(len(GOOD)), st.integers(0, len(GOOD))),
)
def test_a_damaged_tree_is_an_error_or_a_tree(changes: list[tuple[int, int]], end: int) -> None:
    data = bytearray(GOOD)
    for place, byte in changes:
        data[place] = byte
    with contextlib.suppress(BadTree):
        tree = parse_tree(bytes(data[:end]))
        assert parse_tree(tree.pack()) == tree


def header(**fields: int) -> bytes:
    names = ("magic", "size", "structure", "strings", "reserved", "version", "compatible", "boot", "strings_size", "structure_size")  # fmt: skip  # noqa: E501
    values = dict(zip(names, struct.unpack_from(">10I", GOOD), strict=True)) | fields
    return struct.pack(">10I", *values.values()) + GOOD[40:]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not begin with d00dfeed"),
        (b"\x7fELF" * 20, "does not begin with d00dfeed"),
        (GOOD[:39], "does not begin with d00dfeed"),
        (GOOD[:-1], "is cut off"),
        (header(size=1 << 31), "is cut off"),
        (header(structure=1 << 30), "its structure would be outside"),
        (header(structure=41), "its structure would be outside"),
        (header(strings=len(GOOD)), "its strings would be outside"),
        (header(strings_size=1 << 30), "its strings would be outside"),
        (header(reserved=1 << 31), "its memory reservations would be outside"),
        (header(version=15), "of version 15"),
        (header(version=99, compatible=99), "of version 99"),
        (header(structure_size=8), "its structure is cut off"),
        (header(strings_size=0), "a property has a name that cannot be one"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, message: str) -> None:
    with pytest.raises(BadTree, match=message):
        parse_tree(data)


def test_a_tower_of_nodes_is_refused() -> None:
    root = node = Node("")
    for _ in range(100):
        node = node.add("n")
    with pytest.raises(BadTree, match="nested deeper"):
        parse_tree(Tree(root).pack())


# ------------------------------------------------------------------------------------------------------- the board


def test_what_the_loader_says_goes_into_chosen_and_nothing_else_changes() -> None:
    tree = Tree(Node("", {"model": text("mine")}, [Node("chosen", {"bootargs": text("old"), "other": b"\1"})]))
    set_chosen(tree, Chosen("new"), 64)
    set_chosen(tree, Chosen(None, (0x84000000, 0x84001000)), 64)
    assert tree.root.children[0].properties == {
        "bootargs": text("new"),
        "other": b"\1",
        "linux,initrd-start": bytes.fromhex("0000000084000000"),
        "linux,initrd-end": bytes.fromhex("0000000084001000"),
    }
    bare = Tree(Node(""))
    set_chosen(bare, Chosen("x"), 32)
    assert bare.root.child("chosen") == Node("chosen", {"bootargs": text("x")})


def test_a_supervisor_without_firmware_sees_nothing_of_machine_mode() -> None:
    soc, sbi = board("rv64").root.child("soc"), board("sbi").root.child("soc")
    assert soc is not None
    assert sbi is not None
    assert soc.child("clint@2000000") is not None
    assert sbi.child("clint@2000000") is None
    plic = sbi.child("plic@c000000")
    assert plic is not None
    assert plic.properties["interrupts-extended"] == cells(2, 0xFFFF_FFFF, 2, 9)


def test_nothing_in_the_tree_is_by_chance() -> None:
    assert board("rv64").pack() == board("rv64").pack()
    assert b"rng-seed" not in board("rv64").pack()


#: Of QEMU's board, and not of this one.
ABSENT = {"pmu", "fw-cfg@10100000", "flash@20000000", "platform-bus@4000000", "pci@30000000"}
#: Properties that say something else here, or that later bindings have.
OTHER = {"model", "rng-seed", "riscv,isa", "riscv,isa-base", "riscv,isa-extensions", "riscv,ndev", "bootargs"}


def flat(node: Node, path: str = "") -> dict[str, bytes]:
    found = {f"{path}:{name}": value for name, value in node.properties.items() if name not in OTHER}
    for child in node.children:
        if child.name not in ABSENT and not child.name.startswith("rng@"):
            found |= flat(child, f"{path}/{child.name}")
    return found


@pytest.mark.qemu
def test_the_board_is_described_as_qemu_describes_its_own(tmp_path: Path) -> None:
    if shutil.which("qemu-system-riscv64") is None:
        pytest.skip("qemu-system-riscv64 is not installed: nothing to compare the board with")
    dumped = tmp_path / "virt.dtb"
    command = ["qemu-system-riscv64", "-machine", f"virt,dumpdtb={dumped}", "-m", "128M", "-display", "none"]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    theirs, ours = flat(parse_tree(dumped.read_bytes()).root), flat(board_tree(CONFIGS["rv64"], Chosen()).root)
    # Phandles are numbered by each as it likes; an interrupt controller without children needs no address cells.
    differ = {key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key)}
    assert {key for key in differ if not key.endswith((":phandle", ":#address-cells"))} == set()
