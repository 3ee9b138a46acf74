# SPDX-License-Identifier: GPL-2.0-or-later
"""vmrec doctor: finds what is wrong, says how to get it, and tells what is needed from what is optional."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator

import pytest

from vmrec.cli import doctor
from vmrec.cli.main import main


def test_this_installation_can_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "vmrec can work." in text
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["schema"], report["good"]) == ("vmrec-doctor/1", True)
    names = {check["name"] for check in report["checks"]}
    assert {"vmrec", "python", "extension", "C compiler", "guest compiler", "qemu-system-riscv64"} <= names
    assert any(name.startswith("engine: ") for name in names)
    assert all(check["good"] or check["remedy"] for check in report["checks"])


@pytest.fixture
def nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what asks other programs."""
    for name in ("_probes", "_compilers", "_peers", "_extension"):
        monkeypatch.setattr(doctor, name, lambda: iter(()))


@pytest.mark.usefixtures("nothing_else")
def test_packages_are_compared_with_what_the_metadata_ask_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs = ["unicorn==2.1.4", "capstone<7,>=5.0.6", "blake3<2,>=1", "gone>=1", "old; python_version < '3.0'"]
    versions = {"unicorn": "2.1.3", "capstone": "6.0.0a11", "blake3": "2.0"}
    needs[-1:] = ["pytest>=8; extra == 'test'"]

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "requires", lambda _: needs)
    monkeypatch.setattr(importlib.metadata, "version", version)
    assert main(["doctor", "--json"]) == 2
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["unicorn"]["detail"] == "2.1.3, but vmrec needs unicorn==2.1.4"
    assert checks["unicorn"]["remedy"] == "install it with `python -m pip install 'unicorn==2.1.4'`."
    assert checks["capstone"]["good"]
    assert not checks["blake3"]["good"]
    assert checks["gone"]["detail"] == "not installed"
    assert "pytest" not in checks
    assert main(["doctor"]) == 2
    assert "vmrec cannot work: see what is marked wrong." in capsys.readouterr().out


@pytest.mark.usefixtures("nothing_else")
def test_a_checkout_that_is_not_installed_can_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def requires(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert main(["doctor"]) == 0
    assert "run from a checkout without being installed" in capsys.readouterr().out


@pytest.mark.usefixtures("nothing_else")
def test_a_missing_extension_is_trouble_and_a_missing_peer_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(required: bool) -> Iterator[doctor.Check]:
        yield doctor.Check("thing", False, "not there", required, "get one")

    monkeypatch.setattr(doctor, "_packages", lambda: iter(()))
    monkeypatch.setattr(doctor, "_peers", lambda: missing(False))
    assert main(["doctor"]) == 0
    assert "absent  thing" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "_extension", lambda: missing(True))
    assert main(["doctor"]) == 2
    text = capsys.readouterr().out
    assert "wrong   thing" in text
    assert "thing: get one" in text


@pytest.mark.parametrize(
    ("version", "bound", "good"),
    [
        ("2.1.4", "==2.1.4", True),
        ("2.1.4.post1", "==2.1.4", True),
        ("2.1.40", "==2.1.4", False),
        ("2.0", "<2", False),
        ("1.99", "<2", True),
        ("6.0.0a11", "<7", True),
        ("5.0.10", ">=5.0.6", True),
        ("5.0.6", ">=5.0.6", True),
        ("5", ">=5.0", True),
        ("5.0.5", ">=5.0.6", False),
    ],
)
def test_bounds(version: str, bound: str, good: bool) -> None:
    assert doctor._satisfies(version, bound) == good
