# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line around the verbs: help, errors, exit status, streams, completion."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import vmrec
from vmrec.cli import main as cli
from vmrec.cli import output
from vmrec.errors import GuestError, MachineError, UsageError

PRESENT = [verb.name for verb in cli.VERBS if Path(cli.__file__).with_name(f"{verb.module}.py").exists()]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`vmrec` with these arguments in a process of its own, without a terminal."""
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "VMREC_DIR")}
    return subprocess.run(
        [sys.executable, "-m", "vmrec", *arguments],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**plain, **environment}, check=False,
    )  # fmt: skip


def status_of(arguments: list[str]) -> int:
    """The exit status of `vmrec`, run inside this process."""
    return cli.main(arguments)


# ---------------------------------------------------------------------------------------------------- help, version


def test_the_version_is_that_of_the_package() -> None:
    result = run("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"vmrec {vmrec.__version__}\n", "")


@pytest.mark.parametrize("verb", PRESENT)
def test_every_verb_has_help_with_examples_and_exit_status(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Usage: vmrec {verb}" in text
    assert f"  vmrec {verb}" in text.partition("Examples:")[2]
    assert "Exit status: " in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_help_lists_the_verbs_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["--help"]) == 0
    text = capsys.readouterr().out
    for verb in cli.VERBS:
        if verb.name in PRESENT:
            assert f"  {verb.name} " in text
            assert verb.help in text
            assert f"{verb.panel}:" in text
    assert max(map(len, text.splitlines())) <= 80


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of([]) == 2
    assert "Usage: vmrec" in capsys.readouterr().out


def test_help_and_version_load_nothing_heavy() -> None:
    """They must be fast; time itself is measured by `vmrec bench`."""
    program = (
        "import sys; from vmrec.cli.main import main; main([sys.argv[1]])\n"
        "heavy = {'unicorn', 'capstone', 'elftools', 'msgpack', 'cffi', 'rich', 'blake3', 'asyncio', 'backports'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    for option in ("--version", "--help"):
        result = subprocess.run([sys.executable, "-c", program, option], capture_output=True, text=True, check=True)
        assert result.stderr == "[]\n"


def test_importing_the_package_does_no_work() -> None:
    program = "import sys; import vmrec; print(sorted(name for name in sys.modules if name.startswith('vmrec')))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "['vmrec']\n"


def test_every_public_name_is_there() -> None:
    for name in vmrec.__all__:
        assert getattr(vmrec, name) is not None
    assert dir(vmrec) == sorted(vmrec.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = vmrec.nonsense


def test_verbs_are_completed() -> None:
    result = run(_VMREC_COMPLETE="complete_bash", COMP_WORDS="vmrec do", COMP_CWORD="1")
    assert "doctor" in result.stdout.split()
    result = run(_VMREC_COMPLETE="complete_bash", COMP_WORDS="vmrec events --ki", COMP_CWORD="2")
    assert result.stdout.split() == ["--kind"]


# ----------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["doctr"], "vmrec: error: No such command 'doctr'. Did you mean 'doctor'? See `vmrec --help`.\n"),
        (["--bad"], "vmrec: error: No such option: --bad. See `vmrec --help`.\n"),
        (["ls", "--jsn"], "vmrec: error: No such option: --jsn"),
        (["info", "a", "b"], "vmrec: error: Got unexpected extra argument(s) (b). See `vmrec info --help`.\n"),
        (["events", "--from", "-1"], "vmrec: error: Invalid value for '--from'"),
    ],
)
def test_mistakes_on_the_command_line_are_one_paragraph(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert " ".join(result.stderr.split()).startswith(message.strip())
    assert max(map(len, result.stderr.splitlines())) <= 80


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    """The status of a verb that raises `error`."""

    def command() -> int:
        raise error

    monkeypatch.setattr("vmrec.cli.doctor.command", command)
    return status_of(["doctor"])


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (GuestError("x.elf", "is empty"), 2, "vmrec: error: x.elf: is empty\n"),
        (UsageError("word " * 30), 2, "vmrec: error: word word"),
        (MachineError("stuck at 5."), 2, "vmrec: error: stuck at 5. This is a mistake in vmrec"),
        (PermissionError(13, "Permission denied", "out/x"), 2, "vmrec: error: out/x: Permission denied\n"),
        (OSError(28, "No space left on device"), 2, "vmrec: error: No space left on device\n"),
        (KeyboardInterrupt(), 130, ""),
        (ZeroDivisionError("by zero"), 2, "vmrec: error: internal error: ZeroDivisionError: by zero (test_cli_main.py"),
        (AssertionError(), 2, "vmrec: error: internal error: AssertionError (test_cli_main.py"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_errors_are_one_paragraph_without_traceback(
    error: BaseException,
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert raising(error, monkeypatch) == status
    shown = capsys.readouterr().err
    assert " ".join(shown.split()).startswith(message.strip())
    assert bool(shown) == bool(message)
    assert "Traceback" not in shown


def test_a_traceback_is_shown_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("VMREC_DEBUG", "1")
    assert raising(ZeroDivisionError("by zero"), monkeypatch) == 2
    shown = capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown
    assert "VMREC_DEBUG=1" in " ".join(shown.split())


def test_a_reader_that_goes_away_is_no_error() -> None:
    program = (
        "from vmrec.cli import doctor, output\n"
        "def command() -> int:\n    while True:\n        output.write('x' * 1000)\n"
        "doctor.command = command\n"
        "import sys; from vmrec.cli.main import main; sys.exit(main(['doctor']))"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_the_status_of_a_verb_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for returned, status in ((0, 0), (None, 0), (1, 1), (77, 77)):
        monkeypatch.setattr("vmrec.cli.doctor.command", lambda returned=returned: returned)
        assert status_of(["doctor"]) == status


# ----------------------------------------------------------------------------------------------------------- streams


def test_any_locale_will_do(tmp_path: Path) -> None:
    (tmp_path / "ü.vmrec").write_bytes(b"x")
    for locale in ({"LANG": "C"}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        result = run("ls", str(tmp_path), **locale)
        assert result.returncode == 0, result.stderr
        assert "is not a vmrec trace" in result.stdout


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"),
    [
        (False, {}, False),
        (True, {}, True),
        (True, {"NO_COLOR": "1"}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (True, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
    ],
)
def test_colour_is_for_terminals_and_for_who_asks(
    terminal: bool, environment: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ends = pty.openpty() if terminal else os.pipe()
    with open(ends[1], "w", closefd=False) as stream:
        assert output.coloured(stream) == coloured
    for end in ends:
        os.close(end)


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress("working", 10) as bar:
        bar.update(5, "half")
    assert capsys.readouterr() == ("", "")


def test_progress_is_shown_on_a_terminal() -> None:
    master, slave = pty.openpty()
    program = (
        "import sys, time; from vmrec.cli import output\n"
        "with output.progress('working', 10) as bar:\n    bar.update(5, 'halfway')\n    time.sleep(0.3)"
    )
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    subprocess.run([sys.executable, "-c", program], stderr=slave, env=environment, check=True, timeout=60)
    shown = os.read(master, 65536)
    assert b"working" in shown
    assert b"halfway" in shown
    os.close(master)
    os.close(slave)


def test_reports_name_their_schema(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json("test", {"data": b"\x01\xff", "path": Path("x")})
    assert json.loads(capsys.readouterr().out) == {"schema": "vmrec-test/1", "data": "01ff", "path": "x"}
    for items in ([], [{"n": 1}], [{"n": 1}, {"n": 2, "data": b"a"}]):
        output.print_json_list("test", {"path": "x"}, "items", items)
        report = json.loads(capsys.readouterr().out)
        assert list(report) == ["schema", "path", "items"]
        assert [item["n"] for item in report["items"]] == [item["n"] for item in items]


def test_text_for_people() -> None:
    assert output.quantity(1234567) == "1 234 567"
    assert [output.plural(number, "event") for number in (0, 1, 2000)] == ["0 events", "1 event", "2 000 events"]
    sizes = {0: "0 B", 999: "999 B", 1000: "0.977 KiB", 1536: "1.5 KiB", 128 << 20: "128 MiB", 1 << 40: "1.02e+03 GiB"}
    assert {number: output.size(number) for number in sizes} == sizes
    assert output.quoted(b'a"\n\x1b\\\xff') == r'"a\"\n\x1b\\\xff"'
    assert output.columns([("a", "bb", "c"), ("aaa", "b", "")], right=(1,)) == "a    bb  c\naaa   b"
    assert output.columns([]) == ""
