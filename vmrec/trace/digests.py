# SPDX-License-Identifier: GPL-2.0-or-later
"""Hashes that name things: contents, states, RAM and everything that a guest put out.

All are BLAKE3, 32 bytes: guests and traces are hostile, and nobody may craft two contents of one name.

`PageTree` is the hash of RAM: a tree of fan-out 64 over the hashes of its 4096-byte pages.

                        root                                   = blake3(64 child hashes)
          ┌──────────────┼──────────────┐
       node 0         node 1    …    node 63                   = blake3(64 child hashes)
    ┌────┼────┐                                                  (pages beyond the end count as zero)
  page 0  …  page 63                                           = blake3(4096 bytes)

A subtree of zeros has a hash that depends on its height alone. Such subtrees are not stored, so untouched RAM costs
nothing, and a new root costs one hash per level and 64 dirty pages.

`OutputChain` is the hash of the outputs so far: of the bytes alone, not of how they were handed over, so it is the
same wherever a run was cut. Its state is small and can be saved at any position:

    chain 0 = 32 zero bytes;  chain k+1 = blake3(chain k ‖ outputs[4096 k : 4096 (k + 1)])
    value   = blake3(chain k ‖ the rest), k whole blocks of 4096 bytes having gone by

`digest_of` is the hash of a tree of plain values: blake3 of its msgpack form with the keys of every map in ascending
order of their UTF-8 bytes. Floats are refused: no digest may depend on one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from blake3 import blake3

from vmrec.trace.codec import pack
from vmrec.trace.layout import HASH_SIZE, NO_HASH, PAGE_SIZE

__all__ = ["OutputChain", "PageTree", "blake3_of", "digest_of", "digest_of_sorted"]

Content = bytes | bytearray | memoryview

FAN_OUT = 64
_SHIFT = 6
_MASK = FAN_OUT - 1


def blake3_of(content: Content) -> bytes:
    """BLAKE3 of some bytes: the name (32 bytes) of a guest, a page, a trace."""
    return blake3(content).digest()


def digest_of(obj: Any) -> bytes:
    """BLAKE3 (32 bytes) of a plain value: None, bool, int, str, bytes, and lists and str-keyed dicts of these.

    Independent of the order in which a dict was filled; a tuple counts as a list. Raises TypeError for other types,
    OverflowError for an int outside -2**63 … 2**64-1.
    """
    return blake3_of(pack(_canonical(obj)))


def digest_of_sorted(obj: Any) -> bytes:
    """As `digest_of`, for a caller who vouches for what that checks: the types, and the order in every dict."""
    return blake3_of(pack(obj))


def _canonical(obj: Any) -> Any:
    if isinstance(obj, dict):
        if not all(isinstance(key, str) for key in obj):
            raise TypeError("a dict that is digested has str keys only")
        # Code points and UTF-8 bytes sort alike.
        return {key: _canonical(obj[key]) for key in sorted(obj)}
    if isinstance(obj, list | tuple):
        if all(type(item) is int for item in obj):
            return obj  # registers: many, and nothing to sort
        return [_canonical(item) for item in obj]
    if obj is None or isinstance(obj, bool | int | str | bytes):
        return obj
    raise TypeError(f"a {type(obj).__name__} cannot be digested")


class PageTree:
    """The hash of a RAM of `pages` pages (1 or more), kept up to date page by page; all zero to begin with."""

    __slots__ = ("_blocks", "_dirty", "_zeros", "pages")

    def __init__(self, pages: int) -> None:
        if pages < 1:
            raise ValueError(f"a RAM of {pages} pages")
        self.pages = pages
        levels = 1
        while FAN_OUT**levels < pages:
            levels += 1
        #: Hash of a subtree of zeros, by height; [0] is the zero page's.
        self._zeros = [blake3_of(bytes(PAGE_SIZE))]
        for _ in range(levels):
            self._zeros.append(blake3_of(self._zeros[-1] * FAN_OUT))
        #: By level: node → the 64 hashes of its children. A node that is absent is all zero.
        self._blocks: list[dict[int, bytearray]] = [{} for _ in range(levels)]
        #: Nodes of level 0 that changed since the last root.
        self._dirty: set[int] = set()

    def update(self, index: int, content: Content) -> bytes:
        """Page `index` now holds `content` (4096 bytes); returns the page's hash (32 bytes).

        Raises IndexError for an index outside the RAM, ValueError for another length.
        """
        if len(content) != PAGE_SIZE:
            raise ValueError(f"a page has {PAGE_SIZE} bytes, not {len(content)}")
        value = blake3(content).digest()
        self.put(index, value)
        return value

    def put(self, index: int, value: bytes) -> None:
        """Page `index` now holds the content whose hash (32 bytes) is `value`.

        Raises IndexError for an index outside the RAM.
        """
        if not 0 <= index < self.pages:
            raise IndexError(f"page {index} of a RAM of {self.pages} pages")
        node = index >> _SHIFT
        block = self._blocks[0].get(node)
        if block is None:
            block = self._blocks[0][node] = bytearray(self._zeros[0] * FAN_OUT)
        at = (index & _MASK) * HASH_SIZE
        block[at : at + HASH_SIZE] = value
        self._dirty.add(node)

    def update_many(self, contents: Iterable[tuple[int, Content]]) -> list[tuple[int, bytes]]:
        """`update` for each (index, content); returns (index, hash) in the same order."""
        return [(index, self.update(index, content)) for index, content in contents]

    def update_from(self, ram: Content, indexes: Iterable[int]) -> dict[int, bytes]:
        """The pages `indexes` now hold what lies in their places of `ram`; returns the hash of each."""
        whole = memoryview(ram)
        hashes = {
            index: blake3(whole[index * PAGE_SIZE : (index + 1) * PAGE_SIZE]).digest() for index in indexes
        }
        for index, value in hashes.items():
            self.put(index, value)
        return hashes

    def root(self) -> bytes:
        """The hash (32 bytes) of the whole RAM; costs only what changed since it was last asked for."""
        dirty = self._dirty
        top = len(self._blocks) - 1
        for level in range(top):
            parents = self._blocks[level + 1]
            above = set()
            for node in dirty:
                parent = node >> _SHIFT
                block = parents.get(parent)
                if block is None:
                    block = parents[parent] = bytearray(self._zeros[level + 1] * FAN_OUT)
                at = (node & _MASK) * HASH_SIZE
                block[at : at + HASH_SIZE] = blake3(self._blocks[level][node]).digest()
                above.add(parent)
            dirty = above
        self._dirty = set()
        root = self._blocks[top].get(0)
        return self._zeros[-1] if root is None else blake3_of(root)

    @property
    def zero_page(self) -> bytes:
        """The hash (32 bytes) of a page of zeros."""
        return self._zeros[0]

    def page_hash(self, index: int) -> bytes:
        """The hash (32 bytes) of page `index`. Raises IndexError for an index outside the RAM."""
        if not 0 <= index < self.pages:
            raise IndexError(f"page {index} of a RAM of {self.pages} pages")
        block = self._blocks[0].get(index >> _SHIFT)
        if block is None:
            return self._zeros[0]
        at = (index & _MASK) * HASH_SIZE
        return bytes(block[at : at + HASH_SIZE])

    def copy(self) -> PageTree:
        """A tree of the same pages that goes its own way from here."""
        twin = object.__new__(PageTree)
        twin.pages = self.pages
        twin._zeros = self._zeros
        twin._blocks = [{node: bytearray(block) for node, block in level.items()} for level in self._blocks]
        twin._dirty = set(self._dirty)
        return twin


class OutputChain:
    """The hash of all outputs so far, fed as they come; `save` and `restore` at any position."""

    __slots__ = ("_chain", "_rest")

    def __init__(self) -> None:
        self._chain = NO_HASH
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """`data` (any length) was put out. How outputs are cut into calls does not matter."""
        data = self._rest + data
        whole = len(data) - len(data) % PAGE_SIZE
        for at in range(0, whole, PAGE_SIZE):
            self._chain = blake3_of(self._chain + data[at : at + PAGE_SIZE])
        self._rest = data[whole:]

    def value(self) -> bytes:
        """The hash (32 bytes) of everything fed so far."""
        return blake3_of(self._chain + self._rest)

    def save(self) -> dict[str, bytes]:
        """The state: "chain" (32 bytes) and "rest" (0 to 4095 bytes)."""
        return {"chain": self._chain, "rest": self._rest}

    @classmethod
    def restore(cls, state: dict[str, bytes]) -> OutputChain:
        """A chain that goes on from `save`. Raises ValueError for another state than `save` gives."""
        chain, rest = state.get("chain"), state.get("rest")
        if type(chain) is not bytes or len(chain) != HASH_SIZE or type(rest) is not bytes or len(rest) >= PAGE_SIZE:
            raise ValueError("not the saved state of an output chain")
        restored = cls()
        restored._chain, restored._rest = chain, rest
        return restored
