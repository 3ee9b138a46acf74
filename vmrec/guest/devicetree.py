# SPDX-License-Identifier: GPL-2.0-or-later
"""Flattened device trees: nodes and properties to and from the bytes that a kernel is handed.

    header │ memory reservations │ structure: BEGIN_NODE name, PROP …, nodes …, END_NODE │ strings (property names)

A tree that a user gives is hostile: every offset, length and depth is checked, and nothing is kept twice. What is
written is what `dtc` writes, version 17, without padding.

Source: Devicetree Specification 0.4, chapter 5.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["BadTree", "Node", "Tree", "cells", "parse_tree", "text"]

MAGIC = 0xD00DFEED
VERSION, COMPATIBLE = 17, 16
BEGIN_NODE, END_NODE, PROP, NOP, END = 1, 2, 3, 4, 9
_HEADER = struct.Struct(">10I")
#: Limits of what is read: Linux's own trees stay far below.
SIZE_MAX = 2 << 20
DEPTH_MAX = 32
NODES_MAX = 1 << 16
NAME_MAX = 255
_NODE_NAME = re.compile(rb"[0-9a-zA-Z,._+\-@/]*\Z")
_PROPERTY_NAME = re.compile(rb"[0-9a-zA-Z,._+?#\-/]+\Z")


class BadTree(ValueError):
    """The bytes are no device tree; the message is the rest of a sentence that begins with the file's name."""


def cells(*values: int) -> bytes:
    """Numbers of 32 bits."""
    return struct.pack(f">{len(values)}I", *values)


def text(*strings: str) -> bytes:
    """One string, or a list of them."""
    return b"".join(string.encode() + b"\0" for string in strings)


@dataclass(slots=True)
class Node:
    """A node: its name with unit address ("" for the root), properties and children, each in order."""

    name: str
    properties: dict[str, bytes] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)

    def child(self, name: str) -> Node | None:
        """The child of that name."""
        return next((node for node in self.children if node.name == name), None)

    def add(self, name: str, **properties: bytes) -> Node:
        """A new child. In the names of properties _ stands for -; others are to be set one by one."""
        node = Node(name, {key.replace("_", "-"): value for key, value in properties.items()})
        self.children.append(node)
        return node


@dataclass(slots=True)
class Tree:
    """A device tree: its root, the reserved ranges of memory (address, size), and the hart that boots."""

    root: Node
    reserved: list[tuple[int, int]] = field(default_factory=list)
    boot_hart: int = 0

    def pack(self) -> bytes:
        """The flattened tree."""
        strings, places = bytearray(), {}
        parts: list[bytes] = []
        for token in _flatten(self.root):
            if isinstance(token, bytes):
                parts.append(token)
                continue
            name, value = token
            if name not in places:
                places[name] = len(strings)
                strings += name.encode("latin-1") + b"\0"
            parts.append(cells(PROP, len(value), places[name]) + _padded(value))
        structure = b"".join(parts) + cells(END)
        reserved = b"".join(struct.pack(">2Q", *entry) for entry in (*self.reserved, (0, 0)))
        at = _HEADER.size + len(reserved)
        size = at + len(structure) + len(strings)
        head = _HEADER.pack(
            MAGIC, size, at, at + len(structure), _HEADER.size, VERSION, COMPATIBLE, self.boot_hart, len(strings),
            len(structure),
        )  # fmt: skip
        return head + reserved + structure + bytes(strings)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _flatten(node: Node) -> Iterator[bytes | tuple[str, bytes]]:
    yield cells(BEGIN_NODE) + _padded(node.name.encode("latin-1") + b"\0")
    yield from node.properties.items()
    for child in node.children:
        yield from _flatten(child)
    yield cells(END_NODE)


def parse_tree(data: bytes) -> Tree:
    """The tree in `data`, which may be longer than it. Raises BadTree."""
    return _Reader(data).tree()


class _Reader:
    """The parts of a flattened tree, each found where the header says and cut to the size that it says."""

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEADER.size or int.from_bytes(data[:4], "big") != MAGIC:
            raise BadTree("is not a device tree: it does not begin with d00dfeed; compile it with `dtc -O dtb`")
        (_, size, structure, strings, reserved, self._version, compatible, self._boot, strings_size, structure_size) = (
            _HEADER.unpack_from(data)
        )
        if size > len(data):
            raise BadTree(f"is cut off: the device tree says that it has {size} bytes, and there are {len(data)}")
        if size > SIZE_MAX:
            raise BadTree(f"is a device tree of {size} bytes, over the limit of {SIZE_MAX >> 20} MiB")
        if compatible > VERSION or self._version < COMPATIBLE:
            raise BadTree(f"is a device tree of version {self._version}; compile it as version {VERSION}")
        self._data = data[:size]
        if self._version < 17:  # the structure goes up to whatever is behind it
            ends = (place for place in (strings, size) if place > structure)
            structure_size = min(ends, default=structure) - structure
        self._structure = self._part(structure, structure_size, "structure")
        self._strings = self._part(strings, strings_size, "strings")
        self._reserved = self._part(reserved, size - min(reserved, size), "memory reservations")
        self._place = 0
        self._nodes = 0

    def _part(self, offset: int, size: int, name: str) -> bytes:
        if offset < _HEADER.size or offset + size > len(self._data) or (name == "structure" and offset % 4):
            raise BadTree(f"is a damaged device tree: its {name} would be outside of it")
        return self._data[offset : offset + size]

    def tree(self) -> Tree:
        """Everything."""
        if self._token() != BEGIN_NODE:
            raise BadTree("is a damaged device tree: its structure does not begin with a node")
        root = self._node(0)
        if self._token() != END:
            raise BadTree("is a damaged device tree: something follows its root node")
        return Tree(root, list(self._reservations()), self._boot)

    def _reservations(self) -> Iterator[tuple[int, int]]:
        for address, size in struct.iter_unpack(">2Q", self._reserved[: len(self._reserved) // 16 * 16]):
            if (address, size) == (0, 0):
                return
            yield address, size
        raise BadTree("is a damaged device tree: its memory reservations have no end")

    def _token(self) -> int:
        token = NOP
        while token == NOP:
            token = int.from_bytes(self._take(4), "big")
        return token

    def _take(self, size: int) -> bytes:
        begin, self._place = self._place, self._place + size + -size % 4
        if self._place > len(self._structure):
            raise BadTree("is a damaged device tree: its structure is cut off")
        return self._structure[begin : begin + size]

    def _node(self, depth: int) -> Node:
        self._nodes += 1
        if depth > DEPTH_MAX or self._nodes > NODES_MAX:
            raise BadTree(f"is a device tree with nodes nested deeper than {DEPTH_MAX}, or more than {NODES_MAX}")
        end = self._structure.find(b"\0", self._place, self._place + NAME_MAX + 1)
        name = self._structure[self._place : end]
        if end < 0 or not _NODE_NAME.match(name) or (depth and not name):
            raise BadTree("is a damaged device tree: a node has a name that cannot be one")
        self._take(len(name) + 1)
        node = Node(name.decode("ascii"))
        while (token := self._token()) != END_NODE:
            if token == BEGIN_NODE:
                node.children.append(self._node(depth + 1))
            elif token == PROP:
                self._property(node)
            else:
                raise BadTree(f"is a damaged device tree: there is no token {token}")
        return node

    def _property(self, node: Node) -> None:
        size, offset = struct.unpack(">2I", self._take(8))
        end = self._strings.find(b"\0", offset, offset + NAME_MAX + 1)
        name = self._strings[offset:end]
        if offset > len(self._strings) or end < 0 or not _PROPERTY_NAME.match(name):
            raise BadTree("is a damaged device tree: a property has a name that cannot be one")
        if size > len(self._structure):
            raise BadTree("is a damaged device tree: a property is longer than the tree")
        node.properties[name.decode("ascii")] = self._take(size)
