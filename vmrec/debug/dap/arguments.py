# SPDX-License-Identifier: GPL-2.0-or-later
"""Arguments of requests: hostile JSON, so each is taken by its type, or refused with its name."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from vmrec.errors import UsageError

__all__ = ["Arguments"]

T = TypeVar("T")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}")
#: Items of an array, at the most.
ITEMS_MAX = 10_000


class Arguments:
    """The arguments of a request, or an object inside them. Every method raises UsageError for a wrong type."""

    def __init__(self, values: dict[str, Any], where: str = "arguments") -> None:
        self._values = values
        self._where = where

    def __contains__(self, name: object) -> bool:
        return self._values.get(name) is not None  # type: ignore[call-overload]

    def _get(self, name: str, kind: type[T], default: T | None) -> T:
        value = self._values.get(name)
        if value is None and default is not None:
            return default
        if type(value) is not kind:
            raise UsageError(f"{self._where}.{name}: is {type(value).__name__}, should be {kind.__name__}")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """A string."""
        return self._get(name, str, default)

    def number(self, name: str, default: int | None = None, *, low: int = -(1 << 53), high: int = 1 << 53) -> int:
        """A whole number from `low` to `high`."""
        value = self._get(name, int, default)
        if not low <= value <= high:
            raise UsageError(f"{self._where}.{name}: {value} is outside of {low} … {high}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """true or false."""
        value = self._values.get(name)
        if value is None:
            return default
        if type(value) is not bool:
            raise UsageError(f"{self._where}.{name}: is {type(value).__name__}, should be true or false")
        return value

    def object(self, name: str) -> Arguments:
        """An object; empty if it is left out."""
        return Arguments(self._get(name, dict, {}), f"{self._where}.{name}")

    def objects(self, name: str) -> list[Arguments]:
        """An array of objects; empty if it is left out."""
        items = self._items(name)
        if any(type(item) is not dict for item in items):
            raise UsageError(f"{self._where}.{name}: should be an array of objects")
        return [Arguments(item, f"{self._where}.{name}[{place}]") for place, item in enumerate(items)]

    def texts(self, name: str) -> list[str]:
        """An array of strings; empty if it is left out. A single string counts as an array of one."""
        value = self._values.get(name)
        items = [value] if type(value) is str else self._items(name)
        if any(type(item) is not str for item in items):
            raise UsageError(f"{self._where}.{name}: should be an array of strings")
        return items

    def _items(self, name: str) -> list[Any]:
        items: list[Any] = self._get(name, list, [])
        if len(items) > ITEMS_MAX:
            raise UsageError(f"{self._where}.{name}: has {len(items)} items; {ITEMS_MAX} are possible")
        return items

    def address(self, name: str) -> int:
        """An address, written as a string: memory and instruction references are."""
        value = self.text(name)
        if not _NUMBER.fullmatch(value) or int(value, 0 if value[:2] in ("0x", "0X") else 10) >= 1 << 64:
            raise UsageError(f"{self._where}.{name}: {value[:40]!r} is no address such as 0x80000000")
        return int(value, 0 if value[:2] in ("0x", "0X") else 10)
