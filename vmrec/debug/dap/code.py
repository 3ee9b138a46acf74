# SPDX-License-Identifier: GPL-2.0-or-later
"""Code as a client sees it: where its source files are on this host, and its instructions.

A guest names its sources as its builder saw them. They are looked for there, and below the folders that the client
gives: of "/build/fw/src/main.c" the longest end that exists counts (src/main.c before main.c).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from vmrec.debug.target import Target
from vmrec.errors import UsageError
from vmrec.guest.lines import LineRow
from vmrec.isa.disasm import disassemble

__all__ = ["Code"]

#: Instructions that a client gets at once, at the most.
INSTRUCTIONS_MAX = 4096


class Code:
    """Sources and instructions of `target`; `folders`: where sources are looked for."""

    def __init__(self, target: Target, folders: Sequence[str]) -> None:
        self._target = target
        self._folders = folders
        self._found: dict[str, str | None] = {}

    # --- sources ---

    def source(self, row: LineRow) -> dict[str, Any]:
        """The Source of a row: with its path if the file is here."""
        return self._source(row.path)

    def sources(self) -> list[dict[str, Any]]:
        """All source files that have code."""
        return [self._source(path) for path in self._target.symbols.lines.files]

    def _source(self, path: str) -> dict[str, Any]:
        name = path.rpartition("/")[2]
        if path not in self._found:
            self._found[path] = self._look_for(path)
        found = self._found[path]
        if found is None:
            return {"name": name, "origin": f"{path} is not on this host", "presentationHint": "deemphasize"}
        return {"name": name, "path": found}

    def _look_for(self, path: str) -> str | None:
        if os.path.isabs(path) and os.path.isfile(path):
            return path
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        for first in range(len(parts)):
            for folder in self._folders:
                candidate = os.path.join(folder, *parts[first:])
                if os.path.isfile(candidate):
                    return os.path.abspath(candidate)
        return None

    # --- instructions ---

    def instructions(self, address: int, first: int, count: int) -> list[dict[str, Any]]:
        """`count` instructions, the first of them `first` (or -`first` before) behind the one at `address`.

        Where there is no code there is an invalid one for each. Raises UsageError for too many.
        """
        if not 0 <= count <= INSTRUCTIONS_MAX or abs(first) > INSTRUCTIONS_MAX:
            raise UsageError(f"{count} instructions from {first} on: at most {INSTRUCTIONS_MAX} at once")
        places = self._before(address, -first) if first < 0 else []
        while len(places) < max(first, 0) + count - min(first, 0):
            places.append(address)
            address += max(len(self._code(address)), 2)
        return [self._instruction(place) for place in places[max(first, 0) :][:count]]

    def _before(self, address: int, count: int) -> list[int]:
        """The addresses of `count` instructions before `address`: from the begin of the function, if it is known."""
        start = max(address - 4 * count - 64, 0)
        function = self._target.symbols.function(address)
        if function is not None and function.start < address:
            start = max(start, function.start) if function.start < address - 2 * count else function.start
            start = min(start, function.start) if address - function.start < 1 << 16 else start
        found, place = [], start - start % 2
        while place < address:
            found.append(place)
            place += max(len(self._code(place)), 2)
        found = found[-count:]
        missing = count - len(found)
        lowest = found[0] if found else address
        return [max(lowest - 2 * back, 0) for back in range(missing, 0, -1)] + found

    def _instruction(self, address: int) -> dict[str, Any]:
        code, symbols = self._code(address), self._target.symbols
        if not code:
            return {"address": f"{address:#x}", "instruction": "(no memory)", "presentationHint": "invalid"}
        found: dict[str, Any] = {
            "address": f"{address:#x}",
            "instructionBytes": code.hex(" "),
            "instruction": disassemble(code, address, self._target.xlen),
        }
        if symbol := symbols.lookup(address):
            found["symbol"] = symbol
        row = symbols.lines.row(address)
        if row is not None and row.start == address:
            found |= {"location": self.source(row), "line": row.line}
        return found

    def _code(self, address: int) -> bytes:
        """The bytes of the instruction at an address; none if there is no memory."""
        try:
            code = self._target.read_memory(address, 4)
        except UsageError:
            return b""
        if len(code) < 2 or (code[0] & 3 == 3 and len(code) < 4):
            return b""
        return code if code[0] & 3 == 3 else code[:2]
