# SPDX-License-Identifier: GPL-2.0-or-later
"""A recording that does not hold what its machine did: what replay finds, where, and how it is explained."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forging import Change, changed, forge, moved, with_value
from recordings import record

from vmrec.events import Input
from vmrec.guest.symbols import Symbols
from vmrec.machine.board import GRID, RAM_BASE
from vmrec.machine.machine import Engine, Exit, Machine
from vmrec.replay import player as player_module
from vmrec.replay.divergence import Divergence
from vmrec.replay.explain import explain, render
from vmrec.replay.player import Player
from vmrec.replay.rows import rows, steps
from vmrec.trace.digests import blake3_of
from vmrec.trace.reader import TraceReader

ECHO = ((5_000, b"hello\n"), (40_000, b"quit\n"))
#: A forged digest: of nothing in particular.
WRONG = bytes(range(32))


@dataclasses.dataclass
class Case:
    """A forged recording, opened; and the one that it was made from."""

    trace: TraceReader
    original: TraceReader
    opened: list[TraceReader]

    def forged_again(self, change: Change) -> Case:
        """Another forgery of the same recording."""
        path = Path(self.original.path).with_name(f"forged-{len(self.opened)}.vmrec")
        self.opened.append(TraceReader(forge(Path(self.original.path), path, change)))
        return Case(self.opened[-1], self.original, self.opened)

    def replay(self, *, check_rows: bool = False) -> Divergence:
        """The divergence that a replay meets. There must be one, and none in the original."""
        with Player(self.original, check_rows=check_rows) as player:
            assert player.run() is None
        with Player(self.trace, check_rows=check_rows) as player:
            found = player.run()
        assert found is not None
        return found

    def explained(self, *, check_rows: bool = False) -> Divergence:
        """The divergence, explained, after a look at what must hold for every one."""
        plain = self.replay(check_rows=check_rows)
        found = explain(self.trace, plain)
        symbols = Symbols(self.trace.header["guest"]["elf"])
        text = render(found, symbols)
        assert text == render(found, symbols)
        assert max(map(len, text.splitlines())) <= 80
        assert found.message in " ".join(text.split())
        assert found.next_step
        assert " ".join(found.next_step.split()) in " ".join(text.split())
        fields = json.loads(json.dumps(found.to_dict(), default=bytes.hex))
        assert set(fields) == {field.name for field in dataclasses.fields(Divergence)}
        assert fields["position"] == found.position
        return found


Make = Callable[..., Case]


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Make]:
    """Records a guest and forges the recording."""
    opened: list[TraceReader] = []

    def make(change: Change, guest: str, **options: Any) -> Case:
        source = record(tmp_path / "original.vmrec", guest, **options).path
        forged = forge(source, tmp_path / "forged.vmrec", change)
        opened.extend([TraceReader(forged), TraceReader(source)])
        return Case(opened[-2], opened[-1], opened)

    yield make
    for trace in opened:
        trace.close()


def nth(trace: TraceReader, kind: str, number: int) -> list[Any]:
    """Object number `number` of a kind."""
    return [obj for _, obj in trace.objects(0, {kind})][number]


# ---------------------------------------------------------------------------------------------------------- exact ones


def test_an_unforged_copy_replays(case: Make) -> None:
    """The forger itself changes nothing."""
    copy = case(lambda obj: [obj], "echo", script=ECHO, capture="full")
    with Player(copy.trace, check_rows=True) as player:
        assert player.run() is None
        assert player.rows_checked == copy.trace.last_position


def test_an_explanation_is_always_the_same(case: Make) -> None:
    made = case(wrong_registers(0, ("x", 15, 0x77)), "hello")
    plain = made.replay()

    assert explain(made.trace, plain) == explain(made.trace, plain)


def test_altered_output(case: Make) -> None:
    made = case(changed("console", 3, lambda obj: [*obj[:2], b"?"]), "hello")
    wrong, right = nth(made.trace, "console", 3), nth(made.original, "console", 3)
    found = made.explained()

    assert (found.kind, found.position) == ("output", right[1])
    assert (found.expected, found.actual) == (wrong, right)
    assert found.host_to_blame is False
    store = next(row for row in rows(made.original) if row.position == right[1])
    assert found.pc == store.pc
    assert store.accesses[0].kind == "w"
    assert "vmrec diff" in found.next_step


def test_dropped_output(case: Make) -> None:
    made = case(changed("console", 3, lambda obj: None), "hello")
    found = made.explained()

    assert (found.kind, found.position) == ("output", nth(made.original, "console", 3)[1])
    assert found.actual == nth(made.original, "console", 3)
    assert found.expected == nth(made.original, "console", 4)


def test_invented_output(case: Make) -> None:
    def change(obj: list[Any]) -> list[list[Any]]:
        return [obj, ["console", obj[1] + 1, b"!"]] if obj[0] == "console" and obj[2] == b"\n" else [obj]

    made = case(change, "hello")
    found = made.explained()

    assert found.kind == "output"
    assert found.expected[0] == "console"
    assert found.expected[2] == b"!"


def test_altered_event_data(case: Make) -> None:
    """The guest echoes another letter than the recording says."""
    made = case(changed("input", 0, lambda obj: [*obj[:2], b"j" + obj[2][1:]]), "echo", script=ECHO)
    found = made.explained()

    assert found.kind == "output"
    assert (found.expected[2], found.actual[2]) == (b"h", b"j")
    assert found.last_event == nth(made.trace, "input", 0)
    assert found.host_to_blame is False


@pytest.mark.parametrize("by", [-700, 1])
def test_altered_event_position(by: int, case: Make) -> None:
    """A clock step that fires the timer, at another position: what the guest does then comes elsewhere too."""
    unforged = case(lambda obj: [obj], "race", chaos=1)
    fired = {step.position for step in steps(unforged.original, 0, 100_000) if step.interrupt is not None}
    clocks = [obj[1] for _, obj in unforged.original.objects(0, {"clock"})]
    number = clocks.index(min(fired))
    made = unforged.forged_again(moved("clock", number, by))
    found = made.explained()

    assert found.kind in ("output", "digest")
    assert found.position > clocks[number] + by
    assert found.host_to_blame is False


def test_altered_clock(case: Make) -> None:
    made = case(changed("clock", 9, lambda obj: [*obj[:2], obj[2] + 5_000]), "race", chaos=1)
    found = made.explained()

    assert found.position > nth(made.original, "clock", 9)[1]
    assert found.host_to_blame is False


def test_dropped_input(case: Make) -> None:
    """The machine stops, waiting for what is not there."""
    made = case(changed("input", 1, lambda obj: None), "echo", script=ECHO)
    found = made.explained()

    assert found.kind == "output"
    assert found.actual[0] == "stop"
    assert found.actual[2] == "waiting-for-ever"
    assert found.last_event == nth(made.original, "input", 0)


def test_dropped_entropy(case: Make) -> None:
    made = case(changed("entropy", 2, lambda obj: None), "dice")
    found = made.explained()

    assert (found.kind, found.position) == ("event", nth(made.original, "entropy", 2)[1])
    assert found.actual == "entropy"
    assert "where the trace has none" in found.message
    assert found.host_to_blame is False
    assert found.pc == next(row.pc for row in rows(made.original, found.position, found.position + 1))


def test_entropy_of_another_length(case: Make) -> None:
    made = case(changed("entropy", 2, lambda obj: [*obj[:2], b"\x01\x02"]), "dice")
    found = made.explained()

    assert (found.kind, found.expected, found.actual) == ("event", 2, 4)


def test_dropped_clock_that_ends_a_wait(case: Make) -> None:
    """Under the stepped time rule nothing but a clock event ends a wait for the timer."""
    unforged = case(lambda obj: [obj], "traps", chaos=2)
    clocks = [obj[1] for _, obj in unforged.original.objects(0, {"clock"})]
    with Player(unforged.original) as player:
        waits = [clock for clock in clocks if player.run_to(clock) is None and player.machine.waiting]
    found = unforged.forged_again(changed("clock", clocks.index(waits[0]), lambda obj: None)).explained()

    assert (found.kind, found.position) == ("event", waits[0])
    assert "waits for an event" in found.message
    assert found.host_to_blame is False


def test_a_machine_that_goes_on(case: Make) -> None:
    """The recording says that the machine stopped, and it does not."""

    def shorten(obj: list[Any]) -> list[list[Any]]:
        if obj[0] == "stop":
            return [["stop", obj[1] - 40, *obj[2:]]]
        return [] if obj[0] == "console" and obj[1] > 200 else [obj]

    made = case(shorten, "hello")
    assert made.explained().kind == "output"


@pytest.mark.parametrize("access", [0, 20, 40])
def test_altered_row(access: int, case: Make) -> None:
    """One bit of one captured value: the replay that compares rows finds the step, the others do not look."""
    made = case(changed("rows", 0, lambda obj: with_value(obj, access, 0x1234_5678)), "hello", capture="full")
    with Player(made.trace) as player:
        assert player.run() is None
    row, number = next((row, n) for row, n in numbered(made.original) if n == access)
    found = made.explained(check_rows=True)

    assert number == access
    assert (found.kind, found.position, found.pc) == ("row", row.position, row.pc)
    assert (found.expected, found.actual) == (0x1234_5678, row.accesses[0].value)
    assert found.host_to_blame is False
    assert "access value" in found.message


def numbered(trace: TraceReader) -> Iterator[tuple[Any, int]]:
    """Each row with accesses, once per access, and the number of the access."""
    number = 0
    for row in rows(trace):
        for _ in row.accesses:
            yield row, number
            number += 1


# -------------------------------------------------------------------------------------------------------------- digests


def wrong_registers(number: int, *values: tuple[str, int | None, int]) -> Change:
    """A digest that names other register values than the machine has: (field, index, value)."""

    def edit(obj: list[Any]) -> list[Any]:
        registers = {name: list(v) if isinstance(v, list) else v for name, v in obj[2]["registers"].items()}
        for name, index, value in values:
            if index is None:
                registers[name] = value
            else:
                registers[name][index] = value
        return [*obj[:2], {**obj[2], "value": WRONG, "registers": registers}]

    return changed("digest", number, edit)


def test_altered_digest(case: Make) -> None:
    made = case(wrong_registers(0, ("x", 15, 0x77), ("mscratch", None, 5)), "sort", max_insns=50_000)
    found = made.explained()

    assert (found.kind, found.last_good) == ("digest", 0)
    assert found.position == made.original.last_position
    assert found.expected == WRONG
    assert found.host_to_blame is False
    assert found.parts == ("registers",)
    assert set(found.registers) == {"a5", "mscratch"}
    assert found.registers["a5"][0] == 0x77
    assert found.pages_at is None
    (writer,) = found.writers  # nothing ever writes mscratch here
    last = [step for step in steps(made.original) if "a5" in step.writes][-1]
    assert (writer.what, writer.position, writer.pc) == ("a5", last.position, last.row.pc)
    assert found.registers["a5"][1] == last.writes["a5"][1]
    assert "a5" in writer.text


@pytest.mark.parametrize(
    ("guest", "options"),
    [("wfi-forever", {}), ("echo", {"script": ECHO[:1]}), ("hello", {"max_insns": 100}), ("hello", {"chaos": 1})],
)
def test_altered_digest_of_the_end(guest: str, options: dict[str, Any], case: Make) -> None:
    """However the recording ended: with a stop, in a wait without one, or cut."""
    found = case(wrong_registers(0, ("x", 3, 0x77)), guest, **options).explained()

    assert (found.kind, found.host_to_blame, found.parts) == ("digest", False, ("registers",))
    assert set(found.registers) == {"gp"}


def test_events_at_the_end_are_given(case: Make) -> None:
    """Input that came when the recording ended is in its last digest."""
    made = case(lambda obj: [obj], "hello", max_insns=100)
    with Player(made.original) as player:
        player.run_to(100)
        player.machine.push(Input(100, b"x"))
        after = player.machine.digest().to_dict()

    def change(obj: list[Any]) -> list[list[Any]]:
        return [["input", 100, b"x"], ["digest", 100, after]] if obj[0] == "digest" else [obj]

    typed = made.forged_again(change)
    with Player(typed.trace) as player:
        assert player.run() is None

    wrong = {**after, "value": WRONG}
    found = made.forged_again(lambda obj: [[*new[:2], wrong] if new[0] == "digest" else new for new in change(obj)])
    explained = found.explained()
    assert (explained.kind, explained.host_to_blame, explained.parts) == ("digest", False, ())


def test_altered_digest_of_the_grid(case: Make) -> None:
    """The interval begins at the last digest that was right."""
    change = wrong_registers(1, ("x", 14, 1))
    made = case(change, "timer-long", max_insns=3 * GRID, chaos=4)
    found = made.explained()

    assert (found.kind, found.last_good, found.position) == ("digest", GRID, 2 * GRID)
    assert set(found.registers) == {"a4"}
    (writer,) = found.writers
    assert 2 * GRID - 100_000 < writer.position < 2 * GRID
    (step,) = steps(made.original, writer.position, writer.position + 1)
    assert step.writes["a4"][1] == found.registers["a4"][1]


def test_digests_that_were_not_compared(case: Make) -> None:
    """Where a replay looks at few digests, the explanation looks at the others."""
    early, last = wrong_registers(1, ("x", 14, 1)), wrong_registers(3, ("x", 15, 1))

    def both(obj: list[Any]) -> Iterable[list[Any]]:
        return [new for old in early(obj) for new in last(old)]

    made = case(both, "timer-long", max_insns=3 * GRID + 1000, chaos=4)
    with Player(made.original, every_digest=False) as player:
        assert player.run() is None
        assert 0 < player.compared
    with Player(made.trace, every_digest=False) as player:
        found = player.run()
    assert found is not None
    assert (found.kind, found.last_good, found.position) == ("digest", 0, made.trace.last_position)
    first = explain(made.trace, found)
    assert (first.kind, first.last_good, first.position) == ("digest", GRID, 2 * GRID)
    assert set(first.registers) == {"a4"}


@pytest.mark.parametrize("part", ["ram", "devices", "outputs"])
def test_a_digest_names_the_part_that_differs(part: str, case: Make) -> None:
    edit = changed("digest", 0, lambda obj: [*obj[:2], {**obj[2], "value": WRONG, part: WRONG}])
    found = case(edit, "hello").explained()

    assert found.parts == (part,)
    assert found.registers == {}


def test_hostile_registers_in_a_digest(case: Make) -> None:
    """The map is the file's: it may hold anything."""
    registers = {"x": "zero", "f": [1, 2], "pc": [[]], "mie": {"a": 1}}
    edit = changed("digest", 0, lambda obj: [*obj[:2], {**obj[2], "value": WRONG, "registers": registers}])
    found = case(edit, "hello").explained()

    assert found.kind == "digest"
    assert "x" in found.registers


def test_pages_and_devices_that_differ_at_the_next_checkpoint(case: Make) -> None:
    """A checkpoint that holds another page and another device register than the machine had there."""
    page = b"forged" + bytes(4090)
    forged: list[int] = []

    def change(obj: list[Any]) -> list[list[Any]]:
        if obj[0] == "digest" and obj[1] == 3 * GRID:
            return [[*obj[:2], {**obj[2], "value": WRONG, "ram": WRONG}]]
        if obj[0] == "checkpoint" and obj[1] == 4 * GRID:
            kind, position, state, pages = obj
            forged.extend(index for index, _ in pages[:1])
            state = {**state, "uart": {**state["uart"], "scr": 0x42}}
            pages = [[pages[0][0], blake3_of(page)], *map(list, pages[1:])]
            return [["page", blake3_of(page), page], [kind, position, state, pages]]
        return [obj]

    made = case(change, "timer-long", max_insns=4 * GRID + 1_000_000, chaos=4)
    (mark,) = (mark for mark in made.original.checkpoints if mark.position == 4 * GRID)
    found = made.explained()

    assert (found.kind, found.last_good, found.position) == ("digest", 2 * GRID, 3 * GRID)
    assert found.pages_at == mark.position
    assert found.pages == (RAM_BASE + 4096 * forged[0],)
    assert found.devices == {"uart.scr": (0x42, 0)}
    (writer,) = found.writers
    assert writer.what == f"page {found.pages[0]:#x}"
    assert 2 * GRID <= writer.position < mark.position
    (row,) = rows(made.original, writer.position, writer.position + 1)
    stores = [access for access in row.accesses if access.kind == "w"]
    assert [access.address >> 12 for access in stores] == [found.pages[0] >> 12]
    for later in rows(made.original, writer.position + 1, min(writer.position + 20_000, mark.position)):
        assert not [a for a in later.accesses if a.kind == "w" and a.address >> 12 == found.pages[0] >> 12]


def test_rows_say_more_than_a_digest(case: Make) -> None:
    """On a full trace a wrong digest is traced to the row that differs, if there is one."""
    digest = wrong_registers(0, ("x", 10, 1))
    row = changed("rows", 0, lambda obj: with_value(obj, 20, 0x1234_5678))
    made = case(lambda obj: [new for old in digest(obj) for new in row(old)], "hello", capture="full")
    assert made.replay().kind == "digest"
    found = made.explained()

    assert found.kind == "row"
    assert found.position == next(row.position for row, n in numbered(made.original) if n == 20)


# ----------------------------------------------------------------------------------------------------- the host's fault


def unreliable(position: int) -> type[Machine]:
    """A machine every second one of which flips a bit of s4 at `position`."""

    class Unreliable(Machine):
        made = 0

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            Unreliable.made += 1
            self._flips = Unreliable.made % 2 == 0

        def run(self, until: int, *, engine: Engine = "auto") -> Exit:
            if not self._flips or not self.position <= position < until:
                return super().run(until, engine=engine)
            exit_ = super().run(position, engine=engine)
            if exit_ is Exit.POSITION:
                self._flips = False
                self.native[1].hart.x[20] ^= 1
                return super().run(until, engine=engine)
            return exit_

    return Unreliable


def test_replays_that_disagree_with_each_other(case: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that computes differently each time is found out, to the instruction."""
    made = case(lambda obj: [obj], "sort")
    at = made.original.last_position - 5_000
    monkeypatch.setattr(player_module, "Machine", unreliable(at))
    with Player(made.trace) as player:
        assert player.run() is None
    with Player(made.trace) as player:
        plain = player.run()
    assert plain is not None
    assert plain.kind == "digest"
    found = explain(made.trace, plain)

    assert found.host_to_blame is True
    assert found.parted_at == at
    assert "host" in found.next_step
    assert f"{at:,}".replace(",", " ") in render(found)


def test_an_output_that_comes_only_once(case: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for what is exact at once: the second replay does not meet it."""
    made = case(lambda obj: [obj], "hello")
    plain = Divergence("output", 100, 0, None, ["console", 100, b"x"], "the guest's output differs", 0)
    found = explain(made.trace, plain)

    assert found.host_to_blame is True
    assert "a second replay is not the same" in render(found)


# ------------------------------------------------------------------------------------------------------------- the text


def test_render(case: Make) -> None:
    made = case(changed("console", 3, lambda obj: [*obj[:2], b"?"]), "hello")
    text = render(made.explained(), Symbols(made.trace.header["guest"]["elf"]))

    position, right = nth(made.original, "console", 3)[1:]
    assert text.startswith(f"The replay differs from its recording at position {position}.\n")
    assert f'expected  console at {position}: "?"\n' in text
    assert f'actual    console at {position}: "{right.decode()}"\n' in text
    assert "put_char" in text
    assert "a second replay is the same" in text


def test_render_without_anything() -> None:
    text = render(Divergence("end", 7, 0, 9, 7, "the machine stopped: poweroff"))

    assert text.splitlines()[0] == "The replay differs from its recording at position 7."
    assert max(map(len, text.splitlines())) <= 80
