# SPDX-License-Identifier: GPL-2.0-or-later
"""The events or the outputs of a run as a sequence, read from the file when they are first wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Generic, TypeVar, overload

from vmrec.errors import PositionError, UsageError
from vmrec.events import Record
from vmrec.query.html import table

__all__ = ["Records"]

R = TypeVar("R", bound=Record)


class Records(Sequence[R], Generic[R]):
    """Records in the order in which they happened; `name` is what they are called ("event").

    Going through them for the first time reads the file as it goes; an index or a length reads all of it.
    """

    def __init__(self, name: str, read: Callable[[], Iterator[R]]) -> None:
        self._name = name
        self._read = read

    @cached_property
    def _all(self) -> list[R]:
        return list(self._read())

    def __iter__(self) -> Iterator[R]:
        return iter(self._all) if "_all" in self.__dict__ else self._read()

    def __len__(self) -> int:
        return len(self._all)

    @overload
    def __getitem__(self, index: int) -> R: ...

    @overload
    def __getitem__(self, index: slice) -> list[R]: ...

    def __getitem__(self, index: int | slice) -> R | list[R]:
        if isinstance(index, slice):
            return self._all[index]
        if not -len(self._all) <= index < len(self._all):
            raise PositionError(f"{self._name} {index} of a run that has {len(self._all)}, counted from 0")
        return self._all[index]

    def of(self, *kinds: str) -> list[R]:
        """The records of some kinds, e.g. `run.events.of("clock", "input")`; `vmrec.events` lists the kinds."""
        return [record for record in self if record.kind in kinds]

    def __str__(self) -> str:
        counts = Counter(record.kind for record in self._all)
        kinds = f" ({', '.join(f'{count} {kind}' for kind, count in counts.items())})" if counts else ""
        return f"{len(self)} {self._name}{'' if len(self) == 1 else 's'}{kinds}"

    def __repr__(self) -> str:
        try:
            return f"<{self}>"
        except UsageError:  # closed, and never read before
            return f"<{self._name}s of a closed run>"

    def _repr_html_(self) -> str:
        shown = [(str(record.position), repr(record)) for record in self._all[:50]]
        if len(self) > len(shown):
            shown.append(("…", f"{len(self) - len(shown)} more"))
        return table(str(self), shown)
