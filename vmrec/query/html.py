# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects in a notebook: a heading and a table of facts, without a style of their own, so that every theme fits."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

__all__ = ["table"]


def table(heading: str, facts: Iterable[tuple[str, str]]) -> str:
    """A table with a row for each fact that is not empty. All of it is text: guests and files choose their names."""
    rows = "".join(
        f'<tr><th style="text-align:left;vertical-align:top">{escape(name)}</th>'
        f'<td style="text-align:left"><pre style="margin:0">{escape(text)}</pre></td></tr>'
        for name, text in facts
        if text
    )
    return f"<table><caption>{escape(heading)}</caption>{rows}</table>"
