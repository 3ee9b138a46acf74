# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures that several files of tests use."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import SETTINGS, Inside
from hypothesis import settings

# A busy machine is no failure: no example has to be done within some time.
settings.register_profile("vmrec", deadline=None)
settings.load_profile("vmrec")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory, made the current one, without the user's settings."""
    monkeypatch.chdir(tmp_path)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def run(capsysbinary: pytest.CaptureFixture[bytes]) -> Inside:
    """`vmrec` inside this process."""
    return Inside(capsysbinary)
