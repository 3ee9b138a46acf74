# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec verify: is a recording whole, and does it replay?"""

from __future__ import annotations

import textwrap
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from vmrec.cli.options import JsonOption, ParentOption, TraceArgument, parents_also_in
from vmrec.cli.output import columns, plural, print_json, progress, quantity, size, write
from vmrec.cli.paths import trace_path
from vmrec.cli.replaying import agreement, divergence_text, explained, play, replayed
from vmrec.errors import TraceError, UsageError
from vmrec.replay.divergence import Divergence
from vmrec.replay.player import Player
from vmrec.replay.rows import player_from
from vmrec.trace.reader import TraceReader
from vmrec.trace.recovery import ChainReport, Damage, DamageKind, verify_chain


def command(
    trace: TraceArgument = None,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="H",
            help="The head that the recording ought to have, as `vmrec info` or a summary showed it: 64 hexadecimal "
            "digits.",
            show_default=False,
        ),
    ] = None,
    parent: ParentOption = None,
    json: JsonOption = False,
) -> int:
    """Check that a recording is whole, byte for byte, and that it replays exactly.

    Every frame is checked against the chain of hashes, and what is damaged is named by its frame. Then the recording
    is replayed: outputs, digests and captured rows are compared, and each checkpoint with its digest. Of a torn
    recording (its recorder was killed, or is at work) the good part is replayed. Of a fork, what its parents hold of
    it is checked and replayed as well.

    Exit status: 0 if all is well, 1 if the replay diverged, 2 if the file is damaged or not the one that H names.

    \b
    Examples:
      vmrec verify
      vmrec verify race-1.vmrec --json
      vmrec verify race-1 --head $(cat noted-head.txt)
    """
    expected = None if head is None else _head(head)
    parents_also_in(parent)
    path = trace_path(trace)
    with progress(f"checking {path.name}", path.stat().st_size) as line:
        chain = verify_chain(path, expected, progress=lambda done, total: line.update(done, f"of {size(total)}"))
    found: dict[str, Any] | None = None
    if chain.damage is None or chain.damage.kind is DamageKind.TORN:
        _check_ancestors(path)
    divergence: Divergence | None = None
    text = ""
    if chain.damage is None or chain.damage.kind is DamageKind.TORN:
        with TraceReader(path) as reader, Player(reader, check_rows=True) as player:
            begin = time.perf_counter()
            divergence = play(player)
            found = replayed(player, time.perf_counter() - begin)
            if divergence is not None:
                divergence = explained(reader, divergence)
                text = divergence_text(reader, divergence)
            else:
                for mark in reader.checkpoints:
                    player_from(reader, mark).close()
    if json:
        print_json("verify", _fields(path, chain, found, divergence))
    else:
        write(_file_text(path, chain, found))
        if text:
            write("\n" + text)
        if chain.damage is not None:
            write("\n" + _remedy(path, chain, chain.damage))
    return 2 if chain.damage is not None else 1 if divergence is not None else 0


def _check_ancestors(path: Path) -> None:
    """Checks the chains of the files that hold what was before a fork. Raises TraceError if one is damaged there."""
    with TraceReader(path) as reader:
        needed = reader.lineage
    for older, frame in needed:
        with progress(f"checking {Path(older).name}", Path(older).stat().st_size) as line:
            chain = verify_chain(older, progress=lambda done, total: line.update(done, f"of {size(total)}"))
        if chain.good <= frame:
            reason = "too few frames" if chain.damage is None else chain.damage.reason
            raise TraceError(older, chain.good_bytes, f"is damaged where {path} needs it: {reason}")


def _head(text: str) -> bytes:
    """The hash that a value of --head stands for. Raises UsageError."""
    try:
        head = bytes.fromhex(text)
    except ValueError:
        head = b""
    if len(head) != 32:
        raise UsageError(f"--head {text}: is not a head, which has 64 hexadecimal digits; `vmrec info` shows one.")
    return head


def damage_fields(damage: Damage | None) -> dict[str, Any] | None:
    """What is wrong, for JSON."""
    if damage is None:
        return None
    return {"kind": damage.kind.value, "frame": damage.frame, "offset": damage.offset, "reason": damage.reason}


def damage_lines(damage: Damage) -> list[tuple[str, str]]:
    """What is wrong, for people."""
    what = f"damaged: {damage.kind.value}, frame {damage.frame}, byte {damage.offset}"
    reason = textwrap.wrap(damage.reason, 68, break_long_words=False, break_on_hyphens=False)
    return [("chain", what), *(("", line) for line in reason)]


def _fields(
    path: Path, chain: ChainReport, found: dict[str, Any] | None, divergence: Divergence | None
) -> dict[str, Any]:
    return {
        "path": path,
        "good": chain.damage is None and divergence is None,
        "frames": chain.frames,
        "good_frames": chain.good,
        "good_bytes": chain.good_bytes,
        "last_position": chain.last_position,
        "head": chain.head,
        "closed": chain.closed,
        "ended": chain.ended,
        "damage": damage_fields(chain.damage),
        "replay": found,
        "divergence": None if divergence is None else divergence.to_dict(),
    }


def _file_text(path: Path, chain: ChainReport, found: dict[str, Any] | None) -> str:
    """The result for people: what the file is, whether it is whole, whether it replays."""
    damage = chain.damage
    lines = [("recording", f"{path}, {size(chain.good_bytes)}")]
    if damage is None:
        state = "" if chain.closed else ", not closed: its recorder died, or is at work"
        lines.append(("chain", f"whole, {plural(chain.frames, 'frame')}{state}"))
    else:
        lines += [
            *damage_lines(damage),
            ("good", f"{plural(chain.good, 'frame')}, up to position {quantity(chain.last_position)}"),
        ]
    if found is None:
        lines.append(("replayed", "not tried, because of the damage"))
    elif found["same"]:
        lines += agreement(found)
    else:
        lines.append(("replayed", f"{plural(found['position'], 'step')}, and then not as recorded"))
    lines.append(("head", chain.head.hex()))
    return columns(lines)


def _remedy(path: Path, chain: ChainReport, damage: Damage) -> str:
    """What to do about damage."""
    if damage.kind is DamageKind.HEAD:
        return "Nothing is wrong inside the file: it is another recording than the one asked for, or went on since."
    if not chain.good:
        return "There is nothing in it to save."
    return f"`vmrec repair {path} -o saved.vmrec` saves what is good of it."
