# SPDX-License-Identifier: GPL-2.0-or-later
"""PageTree, OutputChain and digest_of: equal things have equal hashes, however they came about; others do not."""

from __future__ import annotations

import random

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from vmrec.trace.codec import pack
from vmrec.trace.digests import OutputChain, PageTree, blake3_of, digest_of

ZERO = bytes(4096)


def plain_root(pages: list[bytes], total: int) -> bytes:
    """The definition of the tree, without any shortcut."""
    size = 64
    while size < total:
        size *= 64
    level = [blake3(page).digest() for page in pages] + [blake3(ZERO).digest()] * (size - len(pages))
    while len(level) > 1:
        level = [blake3(b"".join(level[at : at + 64])).digest() for at in range(0, len(level), 64)]
    return level[0]


@pytest.mark.parametrize("total", [1, 2, 63, 64, 65, 4096, 4097])
def test_root_is_the_plain_tree(total: int) -> None:
    pages = [ZERO] * total
    tree = PageTree(total)
    assert tree.root() == plain_root(pages, total)
    choice = random.Random(total)
    for _ in range(3):
        for index in {0, total - 1, *(choice.randrange(total) for _ in range(5))}:
            pages[index] = bytes([choice.randrange(3)]) * 4096
            assert tree.update(index, memoryview(pages[index])) == blake3(pages[index]).digest()
        assert tree.root() == plain_root(pages, total)
        assert tree.root() == plain_root(pages, total)
    assert [tree.page_hash(index) for index in range(total)] == [blake3(page).digest() for page in pages]


def test_untouched_ram_costs_nothing_and_zeros_are_zeros() -> None:
    large = PageTree(1 << 20)
    zero = large.root()
    large.update(777_777, b"x" * 4096)
    assert large.root() != zero
    large.update(777_777, ZERO)
    assert large.root() == zero
    assert sum(map(len, large._blocks)) <= 4


def test_order_of_updates_does_not_matter_but_place_does() -> None:
    a, b, c = PageTree(200), PageTree(200), PageTree(200)
    contents = [(index, bytes([index]) * 4096) for index in range(1, 200, 3)]
    assert a.update_many(contents) == [(index, blake3_of(page)) for index, page in contents]
    for index, page in reversed(contents):
        b.update(index, page)
        b.root()
    c.update_many((index - 1, page) for index, page in contents)
    assert a.root() == b.root() != c.root()


def test_copy_goes_its_own_way() -> None:
    tree = PageTree(100)
    tree.update(3, b"a" * 4096)
    twin = tree.copy()
    assert twin.root() == tree.root()
    twin.update(3, b"b" * 4096)
    assert twin.root() != tree.root()


def test_bad_pages_are_refused() -> None:
    tree = PageTree(10)
    for index in (-1, 10):
        with pytest.raises(IndexError):
            tree.update(index, ZERO)
        with pytest.raises(IndexError):
            tree.page_hash(index)
    with pytest.raises(ValueError):
        tree.update(0, b"short")
    with pytest.raises(ValueError):
        PageTree(0)


@given(st.lists(st.binary(max_size=3000), max_size=8), st.lists(st.integers(0, 20_000), max_size=5))
def test_output_chain_depends_on_the_bytes_alone(parts: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(parts) * 3
    one = OutputChain()
    one.feed(whole)
    other = OutputChain()
    at = 0
    for cut in sorted(cuts):
        other.feed(whole[at:cut])
        at = max(at, cut)
        other.value()
        other = OutputChain.restore(other.save())
    other.feed(whole[at:])
    assert one.value() == other.value()
    assert one.save() == other.save()
    one.feed(b"x")
    assert one.value() != other.value()


def test_output_chain_is_what_its_picture_says() -> None:
    chain = OutputChain()
    assert chain.value() == blake3(bytes(32)).digest()
    chain.feed(b"a" * 4096 + b"b" * 5)
    block = blake3(bytes(32) + b"a" * 4096).digest()
    assert chain.value() == blake3(block + b"b" * 5).digest()


@pytest.mark.parametrize("state", [{}, {"chain": b"", "rest": b""}, {"chain": bytes(32), "rest": bytes(4096)}])
def test_output_chain_refuses_another_state(state: dict[str, bytes]) -> None:
    with pytest.raises(ValueError):
        OutputChain.restore(state)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(PLAIN, PLAIN)
def test_digest_of_tells_values_apart(a: object, b: object) -> None:
    # msgpack is a canonical form, except for the order of keys: equal digests are equal values.
    same = pack_sorted(a) == pack_sorted(b)
    assert (digest_of(a) == digest_of(b)) == same


def pack_sorted(obj: object) -> bytes:
    if isinstance(obj, dict):
        items = sorted(obj.items(), key=lambda item: item[0].encode("utf-8", "surrogatepass"))
        return b"{" + b"".join(pack(key) + pack_sorted(value) for key, value in items) + b"}"
    if isinstance(obj, list):
        return b"[" + b"".join(map(pack_sorted, obj)) + b"]"
    return pack(obj)


def test_digest_of_knows_no_order_of_keys_and_no_floats() -> None:
    assert digest_of({"a": 1, "b": {"c": 2, "d": 3}}) == digest_of({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest_of((1, 2)) == digest_of([1, 2])
    assert digest_of(True) != digest_of(1)
    for bad in (1.0, {1: 2}, {"a": [object()]}, {3}):
        with pytest.raises(TypeError):
            digest_of(bad)
