# SPDX-License-Identifier: GPL-2.0-or-later
"""The feed: how far a replay may run before it has to be given something."""

from __future__ import annotations

import random
from bisect import bisect_left
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vmrec.replay.feed import LOOK_AHEAD, Feed


class Frames:
    """Records as `vmrec.replay.feed.Records` has them, and how many were looked at."""

    def __init__(self, frames: list[list[list[Any]]]) -> None:
        self._frames = frames
        self.asked = 0

    def __len__(self) -> int:
        return len(self._frames)

    def first(self, frame: int) -> int:
        return int(self._frames[frame][0][1])

    def frame(self, frame: int) -> list[list[Any]]:
        self.asked += 1
        return self._frames[frame]

    def frame_at(self, position: int) -> int:
        return bisect_left([frame[-1][1] for frame in self._frames], position)


def some(rng: random.Random) -> list[list[Any]]:
    """Outputs, more than are looked at at once in places, and few events."""
    records: list[list[Any]] = []
    position = 0
    for _ in range(rng.randrange(1, 6)):
        for _ in range(rng.choice((0, 3, 100, LOOK_AHEAD))):
            position += rng.randrange(3)
            records.append(["console", position, b"x"])
        if rng.randrange(2):
            position += rng.randrange(50)
            records.append(["input", position, b"y"])
    return records


@given(st.integers(0, 2**64 - 1))
def test_a_replay_never_passes_an_event(number: int) -> None:
    """Whatever it comes back for on the way, and it gets to each of them."""
    rng = random.Random(number)
    records = some(rng)
    cuts = sorted({0, len(records), *(rng.randrange(len(records) + 1) for _ in range(4))})
    frames = [records[first:last] for first, last in pairwise(cuts) if first < last]
    end = records[-1][1] + 10 if records else 10
    feed = Feed(Frames(frames), 0)  # type: ignore[arg-type]
    waiting = [wire[1] for wire in records if wire[0] == "input"]
    position = 0
    while position < end:
        while (wire := feed.peek(position)) is not None:
            if wire[0] == "input":
                assert waiting.pop(0) == wire[1] == position
            feed.next()
        limit = min(position + 1 + rng.randrange(5000), end)
        barrier = feed.barrier(position, limit)
        assert position < barrier <= min([limit, *waiting[:1]])
        position += 1 + rng.randrange(barrier - position)
    assert waiting == []


def test_what_lies_before_a_checkpoint_is_not_looked_at() -> None:
    """The frame before it ends at its position, too."""
    frames = Frames([[["console", 7, b"x"]], [["console", 100, b"a"]], [["input", 100, b"y"], ["console", 120, b"b"]]])
    found = Feed(frames, 100, 2)  # type: ignore[arg-type]
    assert frames.asked == 1
    assert found.peek(100) == ["input", 100, b"y"]
    found.next()
    assert found.peek(200) == ["console", 120, b"b"]
    assert frames.asked == 1


def test_what_was_looked_at_is_not_looked_at_again() -> None:
    """A replay may come back at every step, for missing pages."""
    frames = Frames([[["console", position, b"x"]] for position in range(100, 200)])
    feed = Feed(frames, 0)  # type: ignore[arg-type]
    asked = [feed.barrier(position, 10_000) and frames.asked for position in range(50)]
    assert set(asked) == {asked[0]}
