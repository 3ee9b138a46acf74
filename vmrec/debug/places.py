# SPDX-License-Identifier: GPL-2.0-or-later
"""Places as people type them, and the positions that they mean.

    123456   0x1e240   1_000_000    that position                    +100   -100     so many steps from here
    begin   end   50%               parts of the recording           event:3         the third event (from 1)
    main   main+0x10   *0x80000004  the next time that this instruction is about to execute, seen from here
    main:2   main:-1                its second time, its last
    race.c:41                       the next time that this line begins
    console:"total"                 the next time that the guest has printed this
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from vmrec.errors import UsageError
from vmrec.events import Console
from vmrec.replay.points import Break, Hit

if TYPE_CHECKING:
    from vmrec.debug.target import Target

__all__ = ["Places"]

_NUMBER = re.compile(r"([+-]?)(0[xX][0-9a-fA-F_]{1,20}|[0-9][0-9_]{0,24})")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,20})?) ?%")
_TIMES = re.compile(r"(.+):(-?[0-9]{1,12})")
_LINE = re.compile(r"(.+):([0-9]{1,9})")


class Places:
    """Places in the recording of `target`."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def position(self, text: str) -> int:
        """The position that `text` means, from where the target stands. Raises UsageError if it means none."""
        text = text.strip()
        last = self._target.last
        if text in ("begin", "start"):
            return 0
        if text == "end":
            return last
        if number := _NUMBER.fullmatch(text):
            value = int(number[2].replace("_", ""), 0 if number[2][:2] in ("0x", "0X") else 10)
            sign = {"+": 1, "-": -1}.get(number[1])
            return self._inside(value if sign is None else self._target.position + sign * value)
        if percent := _PERCENT.fullmatch(text):
            if float(percent[1]) > 100:
                raise UsageError(f"{text} of a recording: give 0% to 100%")
            return round(last * float(percent[1]) / 100)
        if text.startswith("event:"):
            return self._event(text.removeprefix("event:"))
        if text.startswith("console:"):
            return self._printed(text.removeprefix("console:").strip("\"'"))
        return self._executed(text)

    def addresses(self, text: str) -> tuple[int, ...]:
        """Where the code is that `text` means: a symbol, an address (*0x80000000), a line (race.c:41).

        Raises UsageError, with near names, if it means none.
        """
        symbols = self._target.symbols
        text = text.strip().removeprefix("*")
        address = symbols.address(text)
        if address is not None:
            return (address,)
        if line := _LINE.fullmatch(text):
            found = symbols.breakpoints(line[1], int(line[2]))
            if found is None:
                raise UsageError(f"no code is known for line {line[2]} of {line[1]!r}")
            return found[1]
        return (symbols.resolve(text),)

    def _inside(self, position: int) -> int:
        if not 0 <= position <= self._target.last:
            last = self._target.last
            raise UsageError(f"position {position} is outside of the recording, which goes from 0 to {last}")
        return position

    def _event(self, text: str) -> int:
        if not re.fullmatch("[0-9]{1,12}", text) or int(text) == 0:
            raise UsageError(f"event:{text}: give a number from 1 on")
        record = next(islice(self._target.timeline.events(), int(text) - 1, None), None)
        if record is None:
            raise UsageError(f"the recording has no event {text}; `events` lists those near here")
        return record.position

    def _printed(self, text: str) -> int:
        wanted, printed = text.encode(), b""
        for record in self._target.timeline.outputs():
            if isinstance(record, Console):
                printed = (printed + record.data)[-len(wanted) - len(record.data) :]
                if record.position >= self._target.position and wanted in printed:
                    return record.position + 1
        raise UsageError(f"the guest does not print {text!r} from here on")

    def _executed(self, text: str) -> int:
        target = self._target
        times = _TIMES.fullmatch(text)
        if times and _is_file(times[1]):
            times = None
        where = times[1] if times else text
        points = [Break(address) for address in self.addresses(where)]
        if times is None:
            hit = next(iter(target.timeline.hits(points, target.position + 1)), None)
            if hit is None:
                raise UsageError(f"{text} is not executed after position {target.position}; {text}:-1 is its last time")
            return hit.step
        number = int(times[2])
        if number == 0:
            raise UsageError(f"{text}: times are counted from 1, or backwards from -1")
        hits: Iterator[Hit] = iter(target.timeline.hits(points, newest_first=number < 0))
        found = next(islice(hits, abs(number) - 1, None), None)
        if found is None:
            raise UsageError(f"{where} is executed less than {abs(number)} times in this recording")
        return found.step


def _is_file(name: str) -> bool:
    """Whether what stands before the colon is a source file rather than a symbol."""
    return "." in name.rpartition("/")[2]
