# SPDX-License-Identifier: GPL-2.0-or-later
"""How verbs speak: data on stdout, everything else on stderr, errors as one paragraph.

Colour and progress appear only on a terminal. NO_COLOR and FORCE_COLOR are obeyed. Without a terminal text is laid out
for 80 columns, so that what a pipe gets does not depend on who runs it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, TextIO

import typer
from typer.exceptions import TyperException

from vmrec.errors import MachineError, VmrecError

__all__ = [
    "ErrorsReported",
    "Progress",
    "coloured",
    "columns",
        "note",
    "plural",
    "prepare_streams",
    "print_json",
    "print_json_list",
    "progress",
    "quantity",
    "quoted",
    "size",
    "width",
    "write",
    "write_bytes",
]

EXIT_TROUBLE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141  # as the shell shows a program that SIGPIPE ended


# -------------------------------------------------------------------------------------------------------- stdout


def prepare_streams() -> None:
    """Makes sure that no character can fail to be written, whatever the locale."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def write(text: str) -> None:
    """Writes a line (or several) of data to stdout."""
    sys.stdout.write(text + "\n")


def write_bytes(data: bytes) -> None:
    """Writes bytes of the guest's console to stdout as they are, at once."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def print_json(verb: str, report: dict[str, Any]) -> None:
    """Writes the report of `verb` as JSON. Its key "schema" names the verb and the version of the report's shape.

    Bytes become hexadecimal text.
    """
    json.dump({"schema": f"vmrec-{verb}/1", **report}, sys.stdout, indent=2, default=_as_json)
    sys.stdout.write("\n")


def print_json_list(verb: str, report: dict[str, Any], key: str, items: Iterable[dict[str, Any]]) -> None:
    """Like `print_json`, with a list of `items` under `key` at the end, which is written as it comes, one a line."""
    head = json.dumps({"schema": f"vmrec-{verb}/1", **report}, indent=2, default=_as_json)
    sys.stdout.write(head.removesuffix("\n}") + f',\n  "{key}": [')
    separator = "\n"
    for item in items:
        sys.stdout.write(f"{separator}    {json.dumps(item, default=_as_json)}")
        separator = ",\n"
    sys.stdout.write("\n  ]\n}\n")


def quoted(data: bytes) -> str:
    """Bytes of a console as text in quotes; what is not printable ASCII as \\n, \\x1b and the like."""
    text = data.decode("latin-1").encode("unicode_escape").decode("ascii")
    return '"' + text.replace('"', '\\"') + '"'


def _as_json(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = (), heading: bool = False) -> str:
    """The rows as aligned text, two spaces between columns; columns in `right` are aligned to the right.

    With `heading` the first row is shown bold on a terminal. The last column is never padded nor cut.
    """
    if not rows:
        return ""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(wide) if place in right else cell.ljust(wide)
            for place, (cell, wide) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    if heading and coloured(sys.stdout):
        lines[0] = f"\033[1m{lines[0]}\033[0m"
    return "\n".join(lines)


def quantity(number: int) -> str:
    """A count with its digits in groups of three: 1 234 567."""
    return f"{number:,}".replace(",", " ")


def plural(number: int, noun: str) -> str:
    """A count and its noun: 1 event, 2 events."""
    return f"{quantity(number)} {noun}{'' if number == 1 else 's'}"


def size(number: int) -> str:
    """A number of bytes in the unit that suits it: 512 B, 1.5 KiB, 128 MiB."""
    amount = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1000 or unit == "GiB":
            break
        amount /= 1024
    return f"{number} B" if unit == "B" else f"{amount:.3g} {unit}"


# ---------------------------------------------------------------------------------------------- terminal or not


def coloured(stream: TextIO) -> bool:
    """Whether to write colours to `stream`: as FORCE_COLOR and NO_COLOR say, else if it is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


def width(stream: TextIO | None = None) -> int:
    """Columns of the terminal behind `stream` (stdout), 80 if it is none."""
    stream = stream or sys.stdout
    return shutil.get_terminal_size((80, 24)).columns if stream.isatty() else 80


# -------------------------------------------------------------------------------------------------------- stderr


def note(text: str) -> None:
    """Tells the user something that is not data."""
    print(text, file=sys.stderr, flush=True)


class Progress(Protocol):
    """What `progress` gives."""

    def update(self, done: int, text: str = "") -> None:
        """Shows that `done` of the total are done, and `text` beside it."""


class _Silent:
    def update(self, done: int, text: str = "") -> None:
        """Shows nothing."""


@contextlib.contextmanager
def progress(what: str, total: int | None) -> Iterator[Progress]:
    """A progress bar on stderr while the block runs; nothing at all if stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    parts = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*parts, TextColumn("{task.fields[text]}"), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, text="")

        class Shown:
            def update(self, done: int, text: str = "") -> None:
                bar.update(task, completed=done, text=text)

        yield Shown()


# -------------------------------------------------------------------------------------------------------- errors


class ErrorsReported:
    """A block whose every ending becomes an exit status, in `code`; errors are reported on stderr, none leaves it.

    With VMREC_DEBUG=1 in the environment, the traceback of each error is shown as well.
    """

    code = 0

    def __enter__(self) -> ErrorsReported:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            return True
        if isinstance(error, SystemExit):
            if not isinstance(error.__context__, BrokenPipeError):
                return False
            error = error.__context__  # which typer made a SystemExit of
        self.code = _report(error)
        return True


def _report(error: BaseException) -> int:
    """Shows on stderr what is to be said about `error`; returns the exit status it means."""
    match error:
        case typer.Exit():
            return error.exit_code
        case KeyboardInterrupt() | typer.Abort():
            return EXIT_INTERRUPTED
        case BrokenPipeError():
            _abandon_stdout()
            return EXIT_BROKEN_PIPE
        case MachineError():
            _show_error(error, f"{error} This is a mistake in vmrec; please report it with the guest or the recording.")
        case VmrecError():
            _show_error(error, str(error))
        case TyperException():
            _show_error(error, _usage(error))
        case OSError():
            named = f"{error.filename}: " if isinstance(error.filename, str) else ""
            _show_error(error, f"{named}{error.strerror or error}")
        case _:
            _show_error(error, _own_mistake(error))
    return EXIT_TROUBLE


def _usage(error: TyperException) -> str:
    """A mistake in the command line, and where to read about it."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    hint = f" See `{context.command_path} --help`." if context else ""
    return message + ("" if message.endswith((".", "?")) else ".") + hint


def _own_mistake(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" ({os.path.basename(last[0].filename)}, line {last[0].lineno})" if last else ""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return (
        f"internal error: {text}{where}. This is a mistake in vmrec. Run the command again with VMREC_DEBUG=1 in the "
        "environment and report what it shows."
    )


def _show_error(error: BaseException, message: str) -> None:
    """Writes one paragraph on stderr, after what stdout holds back."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    if os.environ.get("VMREC_DEBUG"):
        traceback.print_exception(error, file=sys.stderr)
    prefix = "vmrec: error: "
    text = textwrap.fill(
        prefix + " ".join(message.split()), width(sys.stderr), break_long_words=False, break_on_hyphens=False
    )
    if coloured(sys.stderr):
        text = text.replace(prefix.strip(), f"\033[1;31m{prefix.strip()}\033[0m", 1)
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _abandon_stdout() -> None:
    """Sends what is still to be written to nowhere, so that the interpreter ends quietly."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
