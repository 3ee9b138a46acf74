# SPDX-License-Identifier: GPL-2.0-or-later
"""Building and packing: what a wheel and an sdist hold, and what the build says when something is missing.

Wheels are built here from a copy of the checkout, with the environment's own hatchling.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PREREQUISITES = "sudo apt install git gcc python3-dev python3-venv"
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".build", "__pycache__", ".*_cache", ".hypothesis", "*.so")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, in a path with a space."""
    place = tmp_path_factory.mktemp("build") / "a copy"
    shutil.copytree(ROOT, place, ignore=LEFT_OUT)
    return place


def pack(place: Path, kind: str) -> Path:
    """Builds the sdist or the wheel of `place`; returns the file."""
    output = place / "dist"
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(output)],
        cwd=place, check=True, capture_output=True,
    )  # fmt: skip
    (built,) = output.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return built


def test_an_sdist_builds_a_wheel_that_runs(checkout: Path, tmp_path: Path) -> None:
    with tarfile.open(pack(checkout, "sdist")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Debian 12's Python has none
        archive.extractall(tmp_path, **safely)
    assert {"vmrec/native/vmrec.h", "vmrec/native/build.py", "pyproject.toml", "LICENSE", "README.md"} <= names
    assert not [name for name in names if name.endswith((".so", ".o")) or "_vmrec.c" in name or "isa_table.h" in name]

    (unpacked,) = tmp_path.iterdir()
    wheel = pack(unpacked, "wheel")
    assert re.fullmatch(r"vmrec-[\w.]+-cp311-abi3-\w+\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert {"vmrec/native/_vmrec.abi3.so", "vmrec/py.typed", "vmrec/guest/bin/hello.elf"} <= names
    assert not [name for name in names if name.endswith((".c", ".h", ".o")) or name == "vmrec/native/build.py"]
    binaries = ROOT / "guests" / "bin"
    shipped = [*binaries.glob("*.elf"), *(binaries / "kernel").iterdir()]
    assert {path.relative_to(ROOT / "guests").as_posix() for path in shipped} == {
        name.removeprefix("vmrec/guest/") for name in names if name.startswith("vmrec/guest/bin/")
    }
    assert list(unpacked.rglob("*.so")) == [], "a wheel leaves nothing behind in the sources"

    program = (
        "import vmrec.native._vmrec\n"
        "from vmrec.guest.builtin import builtin_guest\n"
        "print(vmrec.native._vmrec.__file__)\n"
        "print(builtin_guest('hello'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    result = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert all(line.startswith(str(tmp_path / "site")) for line in result.stdout.splitlines())


def build(place: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the build of `place` by hand."""
    return subprocess.run(
        [sys.executable, "vmrec/native/build.py"],
        cwd=place, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_build_in_place_compiles_only_what_changed(checkout: Path) -> None:
    result = build(checkout, VMREC_WERROR="1")
    assert result.returncode == 0, result.stderr
    assert result.stderr == "", "compiled with a warning"
    extension = Path(result.stdout.strip())
    assert extension == checkout / "vmrec" / "native" / "_vmrec.abi3.so"
    before = {path: path.stat().st_mtime_ns for path in [extension, *(checkout / ".build").glob("*.o")]}
    assert len(before) > 3
    assert build(checkout, VMREC_WERROR="1").returncode == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    source = sorted((checkout / "vmrec" / "devices").glob("*.c"))[0]
    source.touch()
    assert build(checkout, VMREC_WERROR="1").returncode == 0
    changed = {path.name.rpartition("-")[0] or path.name for path in before if path.stat().st_mtime_ns != before[path]}
    assert changed == {"_vmrec.abi3.so", f"devices-{source.stem}"}


def test_what_a_build_lacks_is_said_without_a_traceback(checkout: Path, tmp_path: Path) -> None:
    result = build(checkout, PATH=str(tmp_path), CC="nonsense")
    assert result.returncode == 1
    assert "no C compiler found (looked for nonsense, gcc and cc)" in result.stderr
    assert result.stderr.rstrip().endswith(PREREQUISITES)
    for missing, sentence in (
        ("sysconfig.get_path = lambda name: '/nonexistent'", "Python's C headers are missing"),
        ("import importlib.util; importlib.util.find_spec = lambda name: None", "headers of the unicorn package"),
    ):
        program = f"import runpy, sysconfig; {missing}; runpy.run_path('vmrec/native/build.py', run_name='__main__')"
        result = subprocess.run(
            [sys.executable, "-c", program], cwd=checkout, capture_output=True, text=True, check=False
        )
        assert result.returncode == 1
        assert sentence in result.stderr
        assert result.stderr.rstrip().endswith(PREREQUISITES)
        assert "Traceback" not in result.stderr


def test_mistakes_in_c_end_the_build_with_the_compilers_words(checkout: Path, tmp_path: Path) -> None:
    place = tmp_path / "broken"
    shutil.copytree(checkout, place, ignore=LEFT_OUT)
    (place / "vmrec" / "devices" / "broken.c").write_text("int broken(void) { return nothing; }\n")
    result = build(place)
    assert result.returncode == 1
    assert "broken.c:1" in result.stderr
    assert "vmrec: the C compiler failed: " in result.stderr
    assert "Traceback" not in result.stderr


def test_the_instruction_table_is_written_out_as_it_is() -> None:
    module: dict[str, Any] = runpy.run_path(str(ROOT / "vmrec" / "native" / "build.py"), run_name="build")
    row = SimpleNamespace(
        name="fence.i",
        mask=0x707F,
        match=0x100F,
        nonzero=(0xF80,),
        extensions={"I", "Zifencei"},
        xlens=(32, 64),
        length=4,
    )
    again = SimpleNamespace(**{**vars(row), "xlens": (64,), "nonzero": ()})
    text = module["isa_table"]([row, again])
    assert text.count("    OP_FENCE_I,\n") == 1
    assert "{0x707f, 0x100f, {0xf80, 0x0}, OP_FENCE_I, 0x81, 3, 4}," in text
    assert "{0x707f, 0x100f, {0x0, 0x0}, OP_FENCE_I, 0x81, 2, 4}," in text
    assert "#define ISA_ROWS 2\n" in text
    assert '    "invalid",\n    "fence.i",\n' in text
    with pytest.raises(ValueError, match="two instruction names give the same C name"):
        module["isa_table"]([row, SimpleNamespace(**{**vars(row), "name": "fence_i"})])


def test_ci_types_what_the_readme_says() -> None:
    """The two command lines that .ci/run takes out of the README, by its own means."""
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    (extraction,) = re.findall(r"awk '[^']*'", script)
    result = subprocess.run(f"{extraction} README.md", shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    first, second = result.stdout.splitlines()
    assert first.endswith("vmrec demo")
    assert "pytest" in second
    readme = (ROOT / "README.md").read_text("utf-8")
    assert PREREQUISITES in readme
    assert f"```sh\n{first}\n```" in readme
    assert f"```sh\n{second}\n```" in readme


def test_every_dependency_is_bounded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for requirement in project["dependencies"]:
        bounds = requirement.partition(";")[0]
        assert "==" in bounds or (">=" in bounds and "<" in bounds), requirement
    assert "unicorn==2.1.4" in project["dependencies"]
