# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec info: what one recording holds, and what giving it away would give away."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from vmrec.cli.drives import image_states
from vmrec.cli.options import JsonOption, ParentOption, TraceArgument, parents_also_in
from vmrec.cli.output import columns, plural, print_json, quantity, size, write
from vmrec.cli.paths import trace_path
from vmrec.events import EVENT_KINDS, OUTPUT_KINDS, Disk, Event, Output, Poke, SetRegister, Written
from vmrec.machine.board import PAGE_SIZE
from vmrec.trace.layout import FORK_VERSION
from vmrec.trace.reader import TraceReader

#: Kinds that only traces of machines with drives have.
DRIVES = ("disk", "written")

#: Up to this size of a file, in bytes, its records are counted without being asked to: that takes well under a second.
COUNTED_UNASKED = 16 << 20


def command(
    trace: TraceArgument = None,
    count: Annotated[
        bool, typer.Option("--count", help="Count events and outputs also in a large file; reads all of it.")
    ] = False,
    parent: ParentOption = None,
    json: JsonOption = False,
) -> int:
    """Show what a recording holds: guest, machine, length, how it ended, what is embedded, and its head.

    The head is the hash that names the whole recording; `vmrec verify --head` checks it. A recording holds the guest's
    program, everything typed at its console, pages of its memory, and the blocks that it read of a drive: whoever gets
    the file gets these. The images of drives are not needed any more; whether one was changed since is said.

    Exit status: 0, or 2 if the recording is damaged where it was read; `vmrec verify` reads all of it.

    \b
    Examples:
      vmrec info
      vmrec info race-1.vmrec --json
    """
    parents_also_in(parent)
    path = trace_path(trace)
    with TraceReader(path) as reader:
        report = _look_at(reader, count or reader.size <= COUNTED_UNASKED)
        if "drives" in reader.header:
            report["drives"] = image_states(reader.header, Path(reader.path).parent)
    if json:
        print_json("info", report)
    else:
        write(columns([(name, text) for name, text in _lines(report)]))
    return 0


def _look_at(reader: TraceReader, count: bool) -> dict[str, Any]:
    header = reader.header
    guest = header["guest"]
    report: dict[str, Any] = {
        "path": reader.path,
        "size": reader.size,
        "closed": reader.closed,
        "torn_at": reader.torn_at,
        "format_version": header["version"],
        "guest": {"name": guest["name"], "size": len(guest["elf"]), "hash": guest["hash"]},
        **({"boot": _boot(header["boot"])} if "boot" in header else {}),
        "machine": header["machine"],
        "capture": header["capture"],
        "seed": header["seed"],
        "chaos": header["chaos"],
        "recorder": header["recorder"],
        "created": header["created"],
        "last_position": reader.last_position,
        "end": reader.end,
        "frames": len(reader.frames),
        "digests": len(reader.digests),
        "checkpoints": len(reader.checkpoints),
        "parent": header.get("parent"),
        "lineage": [path for path, _ in reader.lineage],
        "edits": edits(reader),
        "counts": None,
        "head": reader.head,
    }
    if count:
        records: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for record in reader.records():
            records[record.kind] += 1
            sizes[record.kind] += _embedded(record)
        drives = header["version"] > FORK_VERSION
        kinds = [kind for kind in (*EVENT_KINDS, *OUTPUT_KINDS) if drives or kind not in DRIVES]
        report["counts"] = {kind: {"records": records[kind], "bytes": sizes[kind]} for kind in kinds}
    return report


def _embedded(record: Event | Output) -> int:
    """Bytes of what came in or went out with a record; of what was written to a drive, those are in no record."""
    match record:
        case Disk():
            return PAGE_SIZE
        case Written(count=count):
            return count
        case _:
            return len(getattr(record, "data", b""))


def _lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    """The report as (name, text) for people."""
    guest, machine, end = report["guest"], report["machine"], report["end"]
    state = "closed" if report["closed"] else "not closed: its recorder is at work, or died"
    if report["torn_at"] is not None:
        state += f"; torn at byte {report['torn_at']}"
    lines = [
        ("recording", f"{report['path']}, {size(report['size'])}, {state}"),
        ("guest", f"{guest['name']}, {size(guest['size'])}, blake3 {guest['hash'].hex()[:16]}…"),
        *(("image", _image(image)) for image in report.get("boot", {"images": ()})["images"]),
        ("machine", _machine(machine)),
        ("recorded", f"{report['created']} by {report['recorder']}"),
        *_parent(report),
        *_drives(report),
        ("capture", report["capture"]),
        ("seed", _seeds(report)),
        ("length", quantity(report["last_position"]) + " steps" + _retired(end)),
        ("ended", _ending(end)),
        (
            "holds",
            f"{plural(report['frames'], 'frame')}, {plural(report['digests'], 'digest')}, "
            f"{plural(report['checkpoints'], 'checkpoint')}",
        ),
    ]
    if report["counts"] is None:
        lines.append(("events", "not counted in a file of this size; --count counts them"))
    else:
        lines.append(("events", _counted(report["counts"], EVENT_KINDS)))
        lines.append(("outputs", _counted(report["counts"], OUTPUT_KINDS)))
    lines.append(("head", report["head"].hex()))
    return lines


def _boot(boot: dict[str, Any]) -> dict[str, Any]:
    """What the guest is booted from."""
    symbols = [{"name": file["name"], "size": len(file["elf"])} for file in boot["symbols"]]
    return {"entry": boot["entry"], "tree": boot["tree"], "images": boot["images"], "symbols": symbols}


def _image(image: dict[str, Any]) -> str:
    name = image["name"] or "made by vmrec"
    place = f"{image['kind']} at {image['address']:#x}, {size(image['size'])}"
    return f"{place}, {name}, blake3 {image['hash'].hex()[:16]}…"


def edits(reader: TraceReader) -> int:
    """How many edits by the user the recording begins with."""
    if "parent" not in reader.header:
        return 0
    begin = reader.header["parent"]["position"]
    return sum(isinstance(record, Poke | SetRegister) for record in reader.records(begin, begin + 1))


def _parent(report: dict[str, Any]) -> list[tuple[str, str]]:
    parent = report["parent"]
    if parent is None:
        return []
    held = "included here" if parent["included"] else f"in {report['lineage'][-1]}"
    return [
        ("forked", f"at {quantity(parent['position'])} from {parent['name']}, {held}"),
        ("edits", f"{plural(report['edits'], 'edit')} there; `vmrec events` lists them"),
    ]


def _drives(report: dict[str, Any]) -> list[tuple[str, str]]:
    """A line for each drive: its image, and whether that is still the same."""
    lines = []
    for drive, image in enumerate(report.get("drives", [])):
        state = {
            "same": "unchanged since",
            "changed": "changed since",
            "missing": "not to be found here",
        }[image["found"]]
        lines.append((f"drive {drive}", f"{image['name']}, {size(image['size'])}; {state}, and not needed to replay"))
    return lines


def _machine(machine: dict[str, Any]) -> str:
    ram = machine.get("ram_size")
    memory = f"{size(ram)} RAM" if isinstance(ram, int) else "unknown RAM"
    parts = (machine.get("isa", "unknown isa"), memory, f"{machine.get('time_rule', 'unknown')} time")
    return f"{', '.join(map(str, parts))}, machine revision {machine.get('revision', 'unknown')}"


def _seeds(report: dict[str, Any]) -> str:
    seed = "none" if report["seed"] is None else str(report["seed"])
    return seed if report["chaos"] is None else f"{seed}, chaos {report['chaos']}"


def _retired(end: dict[str, Any] | None) -> str:
    return f", {quantity(end['icount'])} instructions" if end and end["icount"] is not None else ""


def _ending(end: dict[str, Any] | None) -> str:
    if end is None:
        return "the recorder did not write how"
    code = end["exit_code"]
    return str(end["reason"]) + ("" if code is None else f", exit code {code}")


def _counted(counts: dict[str, Any], kinds: dict[str, Any]) -> str:
    """For example "2 input (5 B), 1 entropy (4 B)"."""
    parts = []
    for kind in kinds:
        count = counts.get(kind, {"records": 0})
        if count["records"]:
            held = f" ({size(count['bytes'])})" if count["bytes"] else ""
            parts.append(f"{quantity(count['records'])} {kind}{held}")
    return ", ".join(parts) or "none"
