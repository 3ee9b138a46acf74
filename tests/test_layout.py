# SPDX-License-Identifier: GPL-2.0-or-later
"""Freezes the trace format: what a record or object is made of may not change without a new format version."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

from vmrec import events
from vmrec.trace import digests, layout


def description() -> str:
    """Everything that two versions must agree on to read each other's traces, as text."""
    records = [
        (cls.kind, [(field.name, get_type_hints(cls)[field.name].__name__) for field in fields(cls)])
        for cls in (*events.EVENT_KINDS.values(), *events.OUTPUT_KINDS.values())
    ]
    numbers = {
        name: getattr(layout, name)
        for name in dir(layout)
        if name.isupper() and isinstance(getattr(layout, name), int) and name not in ("FORMAT_VERSION", "FRAME_TARGET")
    }
    parts = [
        layout.FORMAT,
        layout.LINK_FIELDS,
        layout.CAPTURES,
        sorted(numbers.items()),
        records,
        sorted(layout.OBJECTS.items()),
        sorted((name, sorted(keys.items())) for name, keys in layout.MAPS.items()),
    ]
    return "\n".join(map(repr, parts))


def test_layout_is_frozen() -> None:
    found = hashlib.sha256(description().encode()).hexdigest()[:32]
    assert found == layout.LAYOUT_HASH, (
        f"The layout of traces changed. If format version {layout.FORMAT_VERSION} was ever released, add 1 to "
        f"FORMAT_VERSION in vmrec/trace/layout.py, keep reading the old version, and put a recording of it into "
        f"traces/. Then set LAYOUT_HASH, next to it, to {found!r}."
    )


def test_hashes_are_frozen() -> None:
    """A digest that comes out differently makes every older trace diverge."""
    tree = digests.PageTree(4097)
    zero = tree.root().hex()
    tree.update(5, b"vmrec..." * 512)
    tree.update(4096, b"x" * 4096)
    chain = digests.OutputChain()
    chain.feed(b"hello" * 1000)
    found = [zero, tree.root().hex(), chain.value().hex(), digests.digest_of({"b": [1, None], "a": b"x"}).hex()]
    assert [text[:16] for text in found] == [
        "2532174fe933d57e",
        "7136e95965018e8d",
        "872a0ebb426a04cc",
        "015c93281bc8016f",
    ]


def test_documentation_names_every_object_and_key() -> None:
    text = (Path(__file__).parent.parent / "traces" / "README.md").read_text(encoding="utf-8")
    names = [*layout.OBJECTS, *(key for keys in layout.MAPS.values() for key in keys), *layout.LINK_FIELDS]
    assert [name for name in names if name not in text] == []
    assert f"format version {layout.FORMAT_VERSION}" in text
