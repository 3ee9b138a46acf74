# SPDX-License-Identifier: GPL-2.0-or-later
"""The live world's sources by themselves: console input, seeds, clocks. No machine is needed."""

from __future__ import annotations

import contextlib
import os
import pty
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vmrec.errors import UsageError
from vmrec.record.sources import (
    STEPS_PER_TICK,
    ChaosClock,
    FilePaced,
    HostClock,
    InputPlan,
    LiveInput,
    ScriptedInput,
    SeededEntropy,
    draw_seed,
)
from vmrec.record.terminal import EscapeParser, Key

SECONDS = 20  # how long a test waits for what happens at once unless something is broken


# --------------------------------------------------------------------------------------------------------- scripted


@pytest.mark.parametrize(
    ("option", "position", "data"),
    [
        (r"120000:ls\n", 120000, b"ls\n"),
        (r"0:\r\t\\\x00\xfF", 0, b"\r\t\\\0\xff"),
        ("1_000:a:b", 1000, b"a:b"),
        ("5:é", 5, "é".encode()),
        (r"18446744073709551615:x", 2**64 - 1, b"x"),
    ],
)
def test_scripted_input_is_parsed(option: str, position: int, data: bytes) -> None:
    scripted = ScriptedInput.parse([option])
    assert scripted.next_position() == position
    assert scripted.take(position, 100) == data
    assert scripted.exhausted


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("ls", "expected POSITION:TEXT"),
        ("5:", "expected POSITION:TEXT"),
        (":x", "expected POSITION:TEXT"),
        ("-5:x", "expected POSITION:TEXT"),
        ("0x10:x", "expected POSITION:TEXT"),
        ("1__0:x", "expected POSITION:TEXT"),
        ("18446744073709551616:x", r"larger than 2\*\*64-1"),
        (r"5:\q", r"\\q is not an escape"),
        (r"5:\x1", r"\\x is not an escape"),
        (r"5:\xgg", r"\\x is not an escape"),
        ("5:\\", r"is not an escape"),
    ],
)
def test_scripted_input_refuses_what_it_cannot_mean(option: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        ScriptedInput.parse([option])


def test_scripted_input_comes_at_its_position_and_when_there_is_room() -> None:
    scripted = ScriptedInput.parse(["20:second", "10:first", "10:again"])
    assert scripted.next_position() == 10
    assert scripted.take(9, 16) == b""
    assert scripted.take(10, 3) == b"fir"
    assert scripted.next_position() == 10, "the rest is due since then"
    assert scripted.take(11, 16) == b"stagain"
    assert scripted.take(30, 0) == b""
    assert scripted.take(30, 16) == b"second"
    assert scripted.next_position() is None


# ------------------------------------------------------------------------------------------------------------- paced


def test_a_file_is_given_in_order_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "input"
    content = bytes(range(256)) * 700  # more than one read
    path.write_bytes(content)
    source = FilePaced(path)
    assert not source.live
    taken = b""
    while not source.exhausted:
        assert source.take(0) == b""
        data = source.take(1000)
        assert 0 < len(data) <= 1000
        taken += data
    assert taken == content
    assert source.take(5) == b""
    source.close()
    source.close()
    assert source.fileno() is None


def test_a_file_that_cannot_be_read_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--input .*absent: cannot be read: No such file"):
        FilePaced(tmp_path / "absent")
    with pytest.raises(UsageError, match="Is a directory"):
        FilePaced(tmp_path)


def test_a_plan_paces_files_and_puts_scripted_bytes_first(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"ab")
    plan = InputPlan(ScriptedInput.parse(["10:S"]), FilePaced(path))
    assert plan.paced
    assert not plan.live
    assert plan.take(5, 16) == b""
    assert plan.take(5, 16, wanted=True) == b"a"
    assert plan.take(10, 16, wanted=True) == b"S"
    assert plan.take(10, 0, wanted=True) == b""
    assert not plan.exhausted
    assert plan.take(10, 16, wanted=True) == b"b"
    assert plan.exhausted
    assert not plan.paced
    assert InputPlan().exhausted
    plan.close()


# -------------------------------------------------------------------------------------------------------------- live


@contextlib.contextmanager
def live(
    fd: int, parser: EscapeParser | None = None, limit: int = 1 << 16
) -> Iterator[tuple[LiveInput, threading.Event]]:
    noticed = threading.Event()
    source = LiveInput(fd, noticed.set, parser=parser, limit=limit)
    try:
        yield source, noticed
    finally:
        source.close()
        source.close()


def take_all(source: LiveInput, size: int) -> bytes:
    data = b""
    while len(data) < size and source.wait(SECONDS):
        data += source.take(7)
    return data


def test_live_input_calls_for_attention_and_ends_with_its_sender() -> None:
    here, there = socket.socketpair()
    with here, there, live(here.fileno()) as (source, noticed):
        assert source.take(16) == b""
        assert source.live
        assert not source.wait(0.0)
        there.send(b"hello")
        assert noticed.wait(SECONDS)
        assert take_all(source, 5) == b"hello"
        noticed.clear()
        there.send(b"bye")
        there.shutdown(socket.SHUT_WR)
        assert source.wait(SECONDS)
        assert take_all(source, 3) == b"bye"
        while not source.exhausted:
            assert source.wait(SECONDS)
        assert not source.live
        assert noticed.is_set()


def test_a_plan_takes_live_bytes_at_once() -> None:
    reader, writer = os.pipe()
    with live(reader) as (source, _):
        plan = InputPlan(ScriptedInput.parse(["10:S"]), source)
        assert plan.live
        assert not plan.paced
        os.write(writer, b"abc")
        assert source.wait(SECONDS)
        assert plan.take(10, 3) == b"Sab"
        assert plan.take(10, 3, wanted=True) == b"c"
        os.close(writer)
        while not plan.exhausted:
            assert source.wait(SECONDS)
        assert not plan.live
    os.close(reader)


def test_a_sender_is_held_back_and_loses_nothing() -> None:
    reader, writer = os.pipe()
    content = os.urandom(1 << 20)

    def send() -> None:
        with open(writer, "wb") as file:
            file.write(content)

    sender = threading.Thread(target=send)
    with live(reader, limit=1000) as (source, _):
        sender.start()
        received = b""
        while not source.exhausted:
            assert source.wait(SECONDS)
            data = source.take(5000)
            assert len(data) <= 1000 + 4096, "what waits is bounded"
            received += data
    sender.join()
    assert received == content
    os.close(reader)


def test_a_terminals_keys_are_seen_even_when_the_guest_takes_nothing() -> None:
    master, slave = pty.openpty()
    os.set_blocking(slave, True)
    with live(slave, EscapeParser(), limit=4) as (source, _):
        os.write(master, b"abcdef\x01x\n")
        keys: list[Key] = []
        while not keys and source.wait(SECONDS):
            keys = source.take_keys()
        assert keys == [Key.QUIT]
        assert source.take(16) == b"abcd"
        assert source.dropped == 3  # "ef" and the line's end
        assert source.take_keys() == []
    os.close(master)
    os.close(slave)


def test_a_wait_is_ended_by_wake_and_by_a_terminal_that_hangs_up() -> None:
    master, slave = pty.openpty()
    with live(slave, EscapeParser()) as (source, _):
        source.wake()
        assert source.wait(SECONDS)
        os.close(master)
        while not source.exhausted:
            assert source.wait(SECONDS)
    os.close(slave)


# -------------------------------------------------------------------------------------------------------------- seeds


def test_entropy_is_what_it_has_always_been() -> None:
    """These bytes are for ever: a seed in somebody's notes must keep its meaning."""
    assert SeededEntropy(0).pull(16).hex() == "3e2077e924df726b75516c7ce9f7bc9e"
    assert SeededEntropy(2**64 - 1).pull(8).hex() == "ce71b31bdace32a3"


def test_entropy_depends_on_the_seed_and_not_on_how_it_is_pulled() -> None:
    whole = SeededEntropy(7).pull(1000)
    pieces = SeededEntropy(7)
    assert b"".join(pieces.pull(size) for size in (1, 4, 95, 0, 900)) == whole
    assert SeededEntropy(8).pull(1000) != whole


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_is_64_bits(seed: int) -> None:
    with pytest.raises(UsageError, match="outside"):
        SeededEntropy(seed)
    with pytest.raises(UsageError, match="outside"):
        ChaosClock(seed)


def test_drawn_seeds_are_in_range_and_differ() -> None:
    seeds = {draw_seed() for _ in range(100)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**64 for seed in seeds)


# -------------------------------------------------------------------------------------------------------------- clocks


def test_the_host_clock_counts_from_its_start() -> None:
    now = 5_000
    clock = HostClock(start_ticks=1000, clock=lambda: now)
    assert clock.ticks() == 1000
    now += 99
    assert clock.ticks() == 1000
    now += 1
    assert clock.ticks() == 1001
    assert clock.seconds_until(1001 + 10_000_000) == 1.0
    assert clock.seconds_until(0) == 0.0
    first, second = HostClock().ticks(), HostClock().ticks()
    assert 0 <= first < 10**7
    assert 0 <= second < 10**7


class ChaosRun:
    """A guest and a recorder boiled down to what a chaos clock sees: positions, time, deadlines."""

    def __init__(self, seed: int) -> None:
        self.clock = ChaosClock(seed)
        self.position = 0
        self.mtime = 0
        self.mtimecmp: int | None = None
        self.steps: list[tuple[int, int]] = []

    def run(self, until: int) -> None:
        """Runs to `until`, or to just after the deadline was reached."""
        while self.position < until:
            where, ticks = self.clock.next_step(self.position, self.mtime, self.mtimecmp)
            assert where > self.position
            if where > until:
                self.position = until
                return
            assert ticks >= self.mtime, "time went backwards"
            awaited = self.mtimecmp is not None and self.mtimecmp > self.mtime
            self.position, self.mtime = where, ticks
            self.steps.append((where, ticks))
            if awaited and self.mtimecmp is not None and ticks >= self.mtimecmp:
                assert ticks == self.mtimecmp, "the deadline is reached exactly"
                return

    def distance_to(self, deadline_steps: int) -> int:
        """Arms a deadline so many steps away, and returns after how many it was reached."""
        start = self.position
        self.mtimecmp = self.mtime + deadline_steps // STEPS_PER_TICK
        while self.mtime < self.mtimecmp:
            self.run(start + 10 * deadline_steps + 200_000)
            assert self.position <= start + 10 * deadline_steps + 100_000, "the deadline never comes"
        return self.position - start


def test_chaos_is_what_it_has_always_been() -> None:
    """These numbers are for ever: a seed that shows a race must go on showing it."""
    run = ChaosRun(1)
    run.run(100_000)
    run.distance_to(50_000)
    run.run(run.position + 60_000)
    regular, deadline, after = run.steps[:4], run.steps[4:6], run.steps[6:]
    assert regular == [(22770, 227), (43939, 439), (52260, 522), (68306, 683)]
    assert deadline == [(108997, 1089), (114471, 1183)]
    assert after == [(166841, 1707)]


def test_deadlines_are_reached_early_and_late() -> None:
    run = ChaosRun(3)
    deadline = 200_000
    distances = []
    for _ in range(200):
        run.run(run.position + 50_000)
        distances.append(run.distance_to(deadline) / deadline)
    # The guest's mtime may be up to one interval behind, so that the deadline it sets is nearer than it thinks.
    interval = ChaosClock.INTERVAL[1] / deadline
    assert (1 - interval) / 4 <= min(distances) < 0.4
    assert 1.6 < max(distances) <= 2
    assert 0.8 < sum(distances) / 200 < 1.2


def test_without_deadlines_time_follows_the_position() -> None:
    run = ChaosRun(4)
    run.run(10_000_000)
    gaps = [after[0] - before[0] for before, after in zip(run.steps, run.steps[1:], strict=False)]
    assert all(ticks == position // STEPS_PER_TICK for position, ticks in run.steps)
    assert min(gaps) >= 1_000
    assert max(gaps) <= 60_000
    assert len(set(gaps)) > 200


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    actions=st.lists(
        st.tuples(st.sampled_from(["run", "arm", "far", "disarm", "wait", "ask"]), st.integers(1, 300_000)), max_size=40
    ),
)
@example(seed=0, actions=[("arm", 300)] * 40)
def test_time_never_goes_backwards_and_never_stands_still(seed: int, actions: list[tuple[str, int]]) -> None:
    run = ChaosRun(seed)
    for action, amount in actions:
        if action == "run":
            run.run(run.position + amount)
        elif action == "arm":
            run.mtimecmp = run.mtime + amount // STEPS_PER_TICK
            run.run(run.position + 100)
        elif action == "far":
            run.mtimecmp = 2**64 - 1
        elif action == "disarm":
            run.mtimecmp = None
        elif action == "ask":
            first = run.clock.next_step(run.position, run.mtime, run.mtimecmp)
            assert run.clock.next_step(run.position, run.mtime, run.mtimecmp) == first
        elif (ticks := run.clock.end_wait(run.position, run.mtime, run.mtimecmp)) is not None:
            assert run.mtimecmp is not None
            assert run.mtimecmp <= ticks <= run.mtimecmp + ChaosClock.LATE_WAIT
            run.mtime = ticks
    before = run.mtime
    run.mtimecmp = None
    run.run(run.position + 2 * ChaosClock.INTERVAL[1])
    assert run.mtime > before


def test_a_guest_that_moves_its_deadline_all_the_time_cannot_stop_time() -> None:
    run = ChaosRun(5)
    for _ in range(20_000):
        run.mtimecmp = run.mtime + 1_000_000
        run.run(run.position + 100)
    assert run.mtime > 15_000


def test_two_recordings_with_one_seed_are_equal_and_with_two_are_not() -> None:
    def steps(seed: int) -> list[tuple[int, int]]:
        run = ChaosRun(seed)
        for _ in range(20):
            run.distance_to(100_000)
            run.mtime = run.clock.end_wait(run.position, run.mtime, run.mtime + 500) or 0
        return run.steps

    assert steps(11) == steps(11)
    assert steps(11) != steps(12)


def test_a_wait_without_a_deadline_is_not_ended() -> None:
    clock = ChaosClock(1)
    assert clock.end_wait(100, 5, None) is None
    assert clock.end_wait(100, 5, 5) is None
    assert clock.end_wait(100, 5, 2**64 - 1) is None
