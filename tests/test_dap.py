# SPDX-License-Identifier: GPL-2.0-or-later
"""The debug adapter: whole sessions, each message checked against the protocol's schema; and what no client may do."""

from __future__ import annotations

import base64
import contextlib
import difflib
import json
import os
import random
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import SECONDS, Inside, finished, started
from dap_client import DapClient, Message, read_messages
from recordings import record

from vmrec.cli.gdb import debugged
from vmrec.debug.dap.messages import Request, encode
from vmrec.debug.dap.session import REQUESTS
from vmrec.debug.target import Target
from vmrec.replay.points import Break, Traps, Watch

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).resolve().parent / "golden"
RACE_C = str(ROOT / "guests" / "race.c")


def opener(name: str | None) -> contextlib.AbstractContextManager[Target]:
    return debugged(name, "begin")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dap")
    record(folder / "race.vmrec", "race", chaos=9, max_insns=400_000)
    record(folder / "traps.vmrec", "traps")
    return folder


@pytest.fixture
def client(place: Path) -> Iterator[DapClient]:
    made = DapClient(opener)
    made.start(str(place / "race.vmrec"), sourcePaths=[str(ROOT)])
    yield made
    made.adapter.close()


def target(client: DapClient) -> Target:
    found = client.adapter.target
    assert found is not None
    return found


# -------------------------------------------------------------------------------------------------------- a transcript

SESSION: list[tuple[str, dict[str, Any]]] = [
    ("initialize", {"adapterID": "vmrec", "clientID": "test", "linesStartAt1": True, "columnsStartAt1": True}),
    ("launch", {"trace": "race-bad-inputs.vmrec", "sourcePaths": ["SOURCES"]}),
    ("setBreakpoints", {"source": {"path": "SOURCES/guests/race.c"}, "breakpoints": [{"line": 41}]}),
    ("setFunctionBreakpoints", {"breakpoints": []}),
    ("setExceptionBreakpoints", {"filters": []}),
    ("configurationDone", {}),
    ("threads", {}),
    ("continue", {"threadId": 1}),
    ("stackTrace", {"threadId": 1, "startFrame": 0, "levels": 20}),
    ("stepBack", {"threadId": 1}),
    ("stepBack", {"threadId": 1}),
    ("next", {"threadId": 1}),
    ("dataBreakpointInfo", {"name": "counter"}),
    ("setDataBreakpoints", {"breakpoints": [{"dataId": "0x80001928/4", "accessType": "write"}]}),
    ("reverseContinue", {"threadId": 1}),
    ("stackTrace", {"threadId": 1}),
    ("evaluate", {"expression": "counter", "context": "hover"}),
    ("stepOut", {"threadId": 1}),
    ("evaluate", {"expression": "when", "context": "repl"}),
    ("disassemble", {"memoryReference": "0x80000480", "instructionOffset": -2, "instructionCount": 5}),
    ("readMemory", {"memoryReference": "0x80001928", "count": 8}),
    ("disconnect", {}),
]


def test_a_session_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the wrong total back to the last store; VMREC_UPDATE_GOLDEN=1 writes the transcript anew."""
    monkeypatch.chdir(ROOT / "traces")
    client = DapClient(opener)
    for command, arguments in SESSION:
        client.send(command, **json.loads(json.dumps(arguments).replace("SOURCES", str(ROOT))))
    assert client.adapter.done
    lines = [json.dumps(message).replace(str(ROOT), "SOURCES") + "\n" for message in client.log]
    golden = GOLDEN / "dap-session.jsonl"
    if os.environ.get("VMREC_UPDATE_GOLDEN"):
        golden.write_text("".join(lines), encoding="utf-8")
    expected = golden.read_text("utf-8").splitlines(keepends=True)
    assert lines == expected, "\n" + "".join(difflib.unified_diff(expected, lines, str(golden.name), "now"))


# --------------------------------------------------------------------------------------------------------------- moves


def test_statements_both_ways_are_the_same(client: DapClient) -> None:
    """Forwards over calls and back again, statement by statement."""
    client.move("goto", threadId=1, targetId=targets(client, 74)[0]["id"])
    seen = [(client.position(), client.where())]
    for _ in range(5):
        assert client.move("next", threadId=1)["reason"] == "step"
        seen.append((client.position(), client.where()))
    lines = [line for _, (_, line) in seen]
    assert lines == [74, 76, 77, 78, 79, 80]
    for expected in reversed(seen[:-1]):
        client.move("stepBack", threadId=1)
        assert client.where() == expected[1]
    assert client.position() == seen[0][0]


def targets(client: DapClient, line: int) -> list[Message]:
    found: list[Message] = client.ask("gotoTargets", source={"path": RACE_C}, line=line)["targets"]
    return found


def test_steps_into_out_and_by_instruction(client: DapClient) -> None:
    client.ask("setFunctionBreakpoints", breakpoints=[{"name": "saver"}])
    assert client.move("continue", threadId=1)["reason"] == "function breakpoint"
    while client.where()[0] == "saver":
        client.move("stepIn", threadId=1)
    assert client.where()[0] == "earn"
    assert client.move("stepOut", threadId=1)["reason"] == "step"
    assert client.where() == ("saver", 52)  # the call was the last instruction of line 51
    before = client.position()
    client.move("stepIn", threadId=1, granularity="instruction")
    client.move("stepBack", threadId=1, granularity="instruction")
    assert client.position() == before
    client.move("stepBack", threadId=1)
    assert client.where() == ("saver", 51)  # the begin of the statement that called
    for _ in range(9):
        client.move("stepBack", threadId=1)
    assert client.where()[0] != "saver"  # its caller


def test_a_task_switch_and_an_interrupt_do_not_end_a_step(client: DapClient) -> None:
    """`next` over a call in which a timer interrupt gives the other task its turn ends in this task."""
    interrupts = [hit.step for hit in target(client).timeline.hits([Traps(exceptions=False)])]
    assert interrupts
    earn = target(client).symbols.resolve("earn")
    call = max(hit.step for hit in target(client).timeline.hits([Break(earn)], 0, interrupts[0]))
    client.move("evaluate", expression=f"seek {call}", context="repl")
    client.move("stepBack", threadId=1)
    stack = client.ask("evaluate", expression="$sp", context="watch")["result"]
    assert client.where() == ("saver", 51)
    client.move("next", threadId=1)
    assert client.where() == ("saver", 52)
    assert client.position() > interrupts[0] + 1000
    assert client.ask("evaluate", expression="$sp", context="watch")["result"] == stack
    client.move("stepBack", threadId=1)
    assert client.where() == ("saver", 51)
    assert client.position() < interrupts[0]


def test_the_ends_of_the_recording_are_stops(client: DapClient) -> None:
    assert client.move("stepBack", threadId=1)["reason"] == "begin"
    assert client.move("continue", threadId=1)["reason"] == "end"
    assert client.position() == target(client).last
    assert client.move("reverseContinue", threadId=1)["reason"] == "begin"
    assert client.move("restart")["reason"] == "entry"


def test_begin_where_the_user_says(place: Path) -> None:
    client = DapClient(opener)
    client.start(str(place / "race.vmrec"), position="50%", sourcePaths=[str(ROOT)])
    assert client.position() == round(target(client).last / 2)
    client.adapter.close()
    client = DapClient(opener)
    client.ask("initialize", adapterID="vmrec")
    client.ask("launch", trace=str(place / "race.vmrec"), stopOnEntry=False)
    client.ask("setFunctionBreakpoints", breakpoints=[{"name": "deposit"}])
    assert client.move("configurationDone")["reason"] == "function breakpoint"
    client.adapter.close()


# --------------------------------------------------------------------------------------------------------- breakpoints


def deposits(client: DapClient) -> list[int]:
    break_ = Break(target(client).symbols.resolve("deposit"))
    return [hit.step for hit in target(client).timeline.hits([break_])]


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ({"hitCondition": "5"}, slice(4, 5)),
        ({"hitCondition": " >= 3 "}, slice(2, None)),
        ({"hitCondition": ">3"}, slice(3, None)),
        ({"hitCondition": "<3"}, slice(0, 2)),
        ({"hitCondition": "<=3"}, slice(0, 3)),
        ({"hitCondition": "% 7"}, slice(6, None, 7)),
        ({"condition": "$when > 100000"}, None),
        ({"condition": "counter >= 10 && counter < 12"}, None),
        ({"condition": "$when > 100000", "hitCondition": "%2"}, None),
    ],
)
def test_conditions_mean_the_same_in_both_directions(
    client: DapClient, condition: dict[str, str], wanted: slice | None
) -> None:
    all_ = deposits(client)
    (made,) = client.ask("setFunctionBreakpoints", breakpoints=[{"name": "deposit", **condition}])["breakpoints"]
    assert made["verified"]

    def stops(command: str) -> list[int]:
        found = []
        while client.move(command, threadId=1)["reason"] == "function breakpoint":
            found.append(client.position())
        return found

    forwards = stops("continue")
    assert stops("reverseContinue") == forwards[::-1]
    if wanted is not None:
        assert forwards == all_[wanted]
    else:
        assert forwards
        assert len(forwards) < len(all_)


def test_log_points_log_and_go_on(client: DapClient) -> None:
    points = [{"line": 23, "logMessage": "counter is {counter} at {nowhere + 1}"}]
    (refused,) = client.ask("setBreakpoints", source={"path": RACE_C}, breakpoints=points)["breakpoints"]
    assert not refused["verified"]
    assert "no symbol 'nowhere'" in refused["message"]
    points = [{"line": 23, "logMessage": "counter is {counter}, {*0}"}]
    (made,) = client.ask("setBreakpoints", source={"path": RACE_C}, breakpoints=points)["breakpoints"]
    assert made["verified"]
    assert client.move("continue", threadId=1)["reason"] == "end"
    logged = [event["body"]["output"] for event in client.events if event["event"] == "output"]
    assert len(logged) == len(deposits(client))
    assert logged[1].endswith(": counter is 1 (0x1), <4 bytes at 0x0 are neither in RAM nor in the boot ROM>\n")


def test_breakpoints_move_to_the_next_line_with_code_or_are_not_verified(client: DapClient) -> None:
    lines = [1, 23, 9999]
    found = client.ask("setBreakpoints", source={"path": RACE_C}, breakpoints=[{"line": line} for line in lines])
    placed = [(one["verified"], one.get("line")) for one in found["breakpoints"]]
    assert placed == [(True, 22), (True, 23), (False, None)]
    other = client.ask("setBreakpoints", source={"path": "/x/other.c"}, breakpoints=[{"line": 1}])["breakpoints"]
    assert [one["verified"] for one in other] == [False]
    stop = client.move("continue", threadId=1)
    assert stop["reason"] == "breakpoint"
    ids = {one["id"] for one in found["breakpoints"] if one["verified"]}
    assert set(stop["hitBreakpointIds"]) <= ids
    assert client.ask("setBreakpoints", source={"path": RACE_C}, breakpoints=[])["breakpoints"] == []
    assert client.move("continue", threadId=1)["reason"] == "end"
    places = client.ask("breakpointLocations", source={"path": RACE_C}, line=20, endLine=26)["breakpoints"]
    assert {one["line"] for one in places} >= {23, 24}


def test_data_breakpoints_both_ways(client: DapClient) -> None:
    info = client.ask("dataBreakpointInfo", name="counter")
    address = target(client).symbols.resolve("counter")
    assert info["dataId"] == f"{address:#x}/4"
    for access, kind in (("write", "write"), ("read", "read"), ("readWrite", "access")):
        hits = list(target(client).timeline.hits([Watch(address, 4, kind)], 5000, 40_000))  # type: ignore[arg-type]
        (made,) = client.ask("setDataBreakpoints", breakpoints=[{"dataId": info["dataId"], "accessType": access}])[
            "breakpoints"
        ]
        assert made["verified"]
        client.move("evaluate", expression="seek 5000", context="repl")
        assert client.move("continue", threadId=1)["reason"] == "data breakpoint"
        assert client.position() == hits[0].forward
        client.move("continue", threadId=1)
        assert client.move("reverseContinue", threadId=1)["hitBreakpointIds"] == [made["id"]]
        assert client.position() == hits[1].backward
    assert client.ask("dataBreakpointInfo", name="$a0")["dataId"] is None
    assert "Did you mean counter" in client.ask("dataBreakpointInfo", name="countr")["description"]
    assert client.ask("dataBreakpointInfo", name="$sp", asAddress=True, bytes=16)["dataId"].endswith("/16")
    for bad in ("", "x", "0x1/0", f"0x1/{1 << 33}", "0x10000000000000000/4"):
        (made,) = client.ask("setDataBreakpoints", breakpoints=[{"dataId": bad}])["breakpoints"]
        assert not made["verified"]


def test_traps_and_interrupts(place: Path) -> None:
    client = DapClient(opener)
    client.start(str(place / "traps.vmrec"))
    timeline = target(client).timeline
    wanted = {
        "exceptions": [hit.forward for hit in timeline.hits([Traps(interrupts=False)])],
        "interrupts": [hit.forward for hit in timeline.hits([Traps(exceptions=False)])],
    }
    for name, positions in wanted.items():
        assert positions
        client.ask("setExceptionBreakpoints", filters=[name])
        client.move("restart")
        for position in positions[:5]:
            assert client.move("continue", threadId=1)["reason"] == "exception"
            assert client.position() == position
            assert client.ask("exceptionInfo", threadId=1)["exceptionId"]
    client.adapter.close()


def test_instruction_breakpoints(client: DapClient) -> None:
    address = target(client).symbols.resolve("deposit")
    points = [{"instructionReference": f"{address - 4:#x}", "offset": 4}, {"instructionReference": "here"}]
    good, bad = client.ask("setInstructionBreakpoints", breakpoints=points)["breakpoints"]
    assert (good["verified"], bad["verified"]) == (True, False)
    assert client.move("continue", threadId=1)["reason"] == "instruction breakpoint"
    assert client.position() == deposits(client)[0]
    step = {"threadId": 1, "granularity": "instruction"}
    assert client.move("next", **step)["reason"] == "step"
    assert client.move("stepBack", **step)["reason"] == "instruction breakpoint"
    assert client.move("stepBack", **step)["reason"] == "step"
    assert client.move("next", **step)["hitBreakpointIds"] == [good["id"]]
    client.move("evaluate", expression="seek end", context="repl")
    assert client.move("next", **step)["reason"] == "end"
    assert client.move("stepBack", **step)["reason"] == "step"
    assert client.move("next", **step)["reason"] == "step"
    client.move("evaluate", expression="seek 1", context="repl")
    assert client.move("stepBack", **step)["reason"] == "step"
    assert client.move("stepBack", **step)["reason"] == "begin"


# ------------------------------------------------------------------------------------------------------------- looking


def test_frames_scopes_and_variables(client: DapClient) -> None:
    client.ask("setFunctionBreakpoints", breakpoints=[{"name": "deposit"}])
    client.move("continue", threadId=1)
    stack = client.ask("stackTrace", threadId=1)
    names = [frame["name"] for frame in stack["stackFrames"]]
    assert names[:2] == ["deposit", "saver"]
    assert stack["stackFrames"][0]["source"] == {"name": "race.c", "path": RACE_C}
    assert client.ask("stackTrace", threadId=1, startFrame=1, levels=1)["stackFrames"] == stack["stackFrames"][1:2]
    scopes = client.ask("scopes", frameId=stack["stackFrames"][0]["id"])["scopes"]
    assert [scope["name"] for scope in scopes] == ["Registers", "Time", "CSRs"]
    values = {scope["name"]: variables(client, scope["variablesReference"]) for scope in scopes}
    state = target(client).state
    assert values["Registers"]["sp"].startswith(f"{state.regs[2]:#010x}")
    assert values["Registers"]["pc"] == f"{state.pc:#010x} deposit"
    assert values["Time"]["position"].replace(" ", "") == str(state.position)
    assert values["Time"]["privilege"] == "machine"
    assert set(state.csrs) == set(values["CSRs"])
    outer = client.ask("scopes", frameId=stack["stackFrames"][1]["id"])["scopes"]
    assert variables(client, outer[0]["variablesReference"])["a0"] == "not known in this frame"
    reference = scopes[0]["variablesReference"]
    assert len(client.ask("variables", variablesReference=reference, start=2, count=3)["variables"]) == 3
    client.move("next", threadId=1)
    assert "has moved" in client.refused("variables", variablesReference=reference)
    assert "has moved" in client.refused("scopes", frameId=stack["stackFrames"][0]["id"])


def variables(client: DapClient, reference: int) -> dict[str, str]:
    found = client.ask("variables", variablesReference=reference)["variables"]
    return {one["name"]: one["value"] for one in found}


def test_expressions_and_commands(client: DapClient) -> None:
    client.move("evaluate", expression="seek deposit:3", context="repl")
    address = target(client).symbols.resolve("counter")
    counter = int.from_bytes(target(client).read_memory(address, 4), "little")
    values = {
        "counter": counter, "&counter": address, "*&counter": counter, "counter + 1 == 3": int(counter == 2),
        "$pc": target(client).state.pc, "pc": target(client).state.pc,
        "deposit": target(client).symbols.resolve("deposit"),
        "(1 + 2) * 3 << 1": 18, "-1 & 0xff": 255, "!0 || 0": 1, "~0 >> 60": 15, "7 % 4 - 1": 2, "1 < 2 && 2 <= 2": 1,
        "$mepc == mepc": 1, "*($sp - 4 + 4) == *sp": 1,
    }  # fmt: skip
    for text, value in values.items():
        result = client.ask("evaluate", expression=text, context="hover")["result"]
        assert int(result.split()[0]) == value, text
    before = client.position()
    assert "position" in client.ask("evaluate", expression="when", context="repl")["result"]
    assert client.events == []
    client.ask("evaluate", expression="last-write counter", context="repl")
    assert [event["event"] for event in client.events] == ["stopped"]
    assert client.position() < before
    for bad, said in {
        "countr": "Did you mean counter", "counter +": "ends too early", "(1": ") is missing", "1 2": "not expected",
        "§": "means nothing", "1 / 0": "division by zero", "*0": "neither in RAM", "&5": "in memory",
        "(" * 500: "more than", "1" * 5000: "too long",
        "&*$a0 + seek": "no symbol", "$nothing": "no symbol",
    }.items():  # fmt: skip
        assert said in client.refused("evaluate", expression=bad, context="watch")
    assert "usage: seek" in client.refused("evaluate", expression="seek", context="repl")
    found = client.ask("completions", text="seek depo", column=10)["targets"]
    assert [one["label"] for one in found] == ["deposit"]
    found = client.ask("completions", text="1 + $a", column=7)["targets"]
    assert {"label": "$a0", "start": 4, "length": 2} in found


def test_memory_and_instructions(client: DapClient) -> None:
    deposit = target(client).symbols.resolve("deposit")
    body = client.ask("readMemory", memoryReference=f"{deposit:#x}", offset=4, count=8)
    assert base64.b64decode(body["data"]) == target(client).read_memory(deposit + 4, 8)
    end = target(client).memory_map[1].end
    body = client.ask("readMemory", memoryReference=f"{end - 4:#x}", count=16)
    assert (len(base64.b64decode(body["data"])), body["unreadableBytes"]) == (4, 12)
    assert client.ask("readMemory", memoryReference="0x10000000", count=4)["unreadableBytes"] == 4
    for first, count in ((0, 10), (-5, 10), (-5, 3), (3, 4), (-200, 300), (0, 0)):
        found = client.ask(
            "disassemble", memoryReference=f"{deposit:#x}", instructionOffset=first, instructionCount=count
        )["instructions"]
        assert len(found) == count
        addresses = [int(one["address"], 16) for one in found]
        assert addresses == sorted(addresses)
        if first <= 0 < first + count:
            assert addresses[-first] == deposit
            assert found[-first]["symbol"] == "deposit"
            assert found[-first]["line"] == 23
    assert "at most" in client.refused("disassemble", memoryReference="0x80000000", instructionCount=10**6)
    assert client.ask("loadedSources")["sources"]
    assert client.ask("modules", startModule=0, moduleCount=1)["modules"][0]["symbolStatus"] == "lines"


def test_lines_from_0(place: Path) -> None:
    client = DapClient(opener)
    client.ask("initialize", adapterID="vmrec", linesStartAt1=False, columnsStartAt1=False)
    client.ask("launch", trace=str(place / "race.vmrec"), sourcePaths=[str(ROOT)])
    (made,) = client.ask("setBreakpoints", source={"path": RACE_C}, breakpoints=[{"line": 22}])["breakpoints"]
    assert made["line"] == 22
    client.ask("configurationDone")
    client.move("continue", threadId=1)
    assert client.where() == ("deposit", 22)
    client.adapter.close()


# ------------------------------------------------------------------------------------------------------------- hostile


def test_requests_in_the_wrong_order_are_refused(place: Path) -> None:
    client = DapClient(opener)
    assert "send initialize first" in client.refused("launch")
    assert "no recording yet" in client.refused("threads")
    client.ask("initialize", adapterID="vmrec")
    assert "no such recording" in client.refused("launch", trace=str(place / "nothing"))
    assert "outside of the recording" in client.refused("launch", trace=str(place / "race.vmrec"), position="99999999")
    client.ask("launch", trace=str(place / "race.vmrec"))
    assert "already" in client.refused("launch", trace=str(place / "race.vmrec"))
    client.adapter.handle(Request(99, "setVariable", {}))
    assert "not known" in client.log[-1]["message"]
    client.ask("terminate")
    assert [event["event"] for event in client.events] == ["terminated"]
    client.ask("disconnect")
    assert client.adapter.done


_VALUES: list[Any] = [
    None, True, 0, 1, -1, 2**31, 2**63, 2**200, 0.5, "", "x", "0x80000000", "counter", "instruction", [], [1], [{}],
    ["exceptions"], {}, {"path": RACE_C}, {"name": 5}, [{"line": 23}], [{"name": "deposit", "hitCondition": "x"}],
    [{"dataId": "0x80000000/4"}], [{"line": 1, "condition": "1 +"}], "seek 100", "*", "((",
    [{"instructionReference": "0x80000000", "offset": 2**70}],
]  # fmt: skip
_NAMES = (
    "threadId", "frameId", "variablesReference", "source", "line", "breakpoints", "filters", "expression", "context",
    "granularity", "memoryReference", "offset", "count", "instructionOffset", "instructionCount", "start", "levels",
    "startFrame", "text", "column", "name", "targetId", "bytes", "asAddress", "endLine", "trace", "position",
    "sourcePaths", "stopOnEntry",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_wrong_types_are_refused_and_nothing_else_happens(client: DapClient, seed: int) -> None:
    generator = random.Random(seed)
    slow = ("continue", "reverseContinue", "configurationDone", "stepOut")
    commands = [*(name for name in REQUESTS if name not in slow), "initialize", "launch", "attach", "nothing", ""]
    for number in range(1500):
        names = generator.sample(_NAMES, generator.randrange(6))
        arguments = {name: generator.choice(_VALUES) for name in names}
        before = len(client.log)
        client.adapter._send = client.log.append  # unchecked: what is refused may echo nonsense
        client.adapter.handle(Request(number, generator.choice(commands), arguments))
        responses = [message for message in client.log[before:] if message["type"] == "response"]
        assert len(responses) == 1
        assert 0 <= target(client).position <= target(client).last
        json.dumps(client.log[before:])


# --------------------------------------------------------------------------------------------------------- connections


class Wire:
    """A client at the other end of a connection."""

    def __init__(self, send: Callable[[bytes], object], receive: Callable[[], bytes]) -> None:
        self._send = send
        self._next = read_messages(receive)
        self._seq = 0

    def ask(self, command: str, until: str | None = None, **arguments: Any) -> list[Message]:
        """The messages up to the response, or up to the event `until`."""
        self._seq += 1
        self._send(encode({"seq": self._seq, "type": "request", "command": command, "arguments": arguments}))
        return self.wait(until)

    def wait(self, until: str | None = None) -> list[Message]:
        found = [self._next()]
        while not (found[-1].get("event") == until if until else found[-1]["type"] == "response"):
            found.append(self._next())
        return found


def session(wire: Wire, trace: str) -> None:
    """A short one, with a pause in it."""
    assert wire.ask("initialize", adapterID="vmrec")[-1]["body"]["supportsStepBack"]
    wire.ask("launch", "initialized", trace=trace)
    wire.ask("setFunctionBreakpoints", breakpoints=[{"name": "deposit"}])
    assert wire.ask("configurationDone", "stopped")[-1]["body"]["reason"] == "entry"
    assert wire.ask("continue", "stopped", threadId=1)[-1]["body"]["reason"] == "function breakpoint"
    wire.ask("setFunctionBreakpoints", breakpoints=[{"name": "earn", "condition": "0"}])
    wire.ask("continue", threadId=1)
    found = wire.ask("pause", "stopped", threadId=1)
    assert found[-1]["body"]["reason"] in ("pause", "end")
    wire.ask("pause", threadId=1)
    assert wire.ask("next", "stopped", threadId=1)[-1]["body"]["reason"] in ("step", "end")
    assert wire.ask("disconnect")[-1]["success"]


def test_over_pipes(place: Path) -> None:
    with started("dap", cwd=place, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, out = process.stdin, process.stdout.fileno()

        def send(data: bytes) -> None:
            stdin.write(data)
            stdin.flush()

        session(Wire(send, lambda: os.read(out, 1 << 16)), "race")
        done = finished(process)
    assert (done.status, done.err) == (0, "")


def test_over_tcp_one_after_the_other_with_garbage_between(place: Path) -> None:
    with started("dap", "race", "--port", 0, cwd=place) as process:
        assert process.stderr is not None
        port = int(process.stderr.readline().split(b":")[1].split()[0])
        for round_ in range(2):
            with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as sock:
                session(Wire(sock.sendall, lambda: sock.recv(1 << 16)), "race")
                assert sock.recv(10) == b""
            request, torn = b"GET / HTTP/1.1\r\n\r\n", b"Content-Length: 10\r\n\r\n{"
            for garbage in (request, torn, encode({}) * 3, os.urandom(5000)):
                with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as sock:
                    sock.sendall(garbage)
                    if round_:
                        sock.shutdown(socket.SHUT_WR)
                        while sock.recv(1 << 16):
                            pass


def test_a_second_client_is_told(place: Path) -> None:
    with started("dap", "race", "--port", 0, cwd=place) as process:
        assert process.stderr is not None
        port = int(process.stderr.readline().split(b":")[1].split()[0])
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as first:
            wire = Wire(first.sendall, lambda: first.recv(1 << 16))
            wire.ask("initialize", adapterID="vmrec")
            with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as second:
                next_message = read_messages(lambda: second.recv(1 << 16))
                assert "another debugger is attached" in next_message()["body"]["output"]
                assert next_message()["event"] == "terminated"
                assert second.recv(10) == b""
            assert wire.ask("launch", "initialized")


def test_bad_requests_of_the_user(place: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    inside = Inside(capsysbinary)
    assert "say --expose" in inside("dap", "--host", "0.0.0.0", "--port", "0", status=2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "cannot be listened on" in inside("dap", "--port", taken.getsockname()[1], status=2)
