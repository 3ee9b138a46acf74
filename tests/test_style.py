# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules that hold for every file: who may import whom, what a file begins with, what may not be in it.

The rules that ruff and mypy know are theirs; they run here too, so that one command checks everything.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: The layers, lowest first; imports point down, and those in one line do not import each other.
LAYERS = (
    ("errors",),
    ("events",),
    ("devices", "native", "guest", "trace", "isa"),
    ("machine",),
    ("replay",),
    ("record",),
    ("debug", "diff", "query", "migrate"),
    ("view",),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

#: Packages from outside that one place alone imports, so that one place knows how they behave.
KEEPERS = {
    "capstone": "vmrec/isa/disasm.py",
    "unicorn": "vmrec/machine/cpu.py",
    "msgpack": "vmrec/trace/",
    "backports": "vmrec/trace/",
    "compression": "vmrec/trace/",
    "typer": "vmrec/cli/",
    "rich": "vmrec/cli/",
    "hatchling": "vmrec/native/build.py",
}


def committed() -> list[Path]:
    """Every file under version control, or about to be."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listing.returncode == 0 and listing.stdout:
        return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    unwanted = {".git", ".venv", ".build", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not unwanted & set(path.relative_to(ROOT).parts)]


FILES = committed()
PYTHON = [path for path in FILES if path.suffix == ".py"]
PACKAGE = [path for path in PYTHON if path.is_relative_to(ROOT / "vmrec")]
SOURCES = [path for path in FILES if path.suffix in (".py", ".pyi", ".c", ".h", ".S", ".ld") or path.name == "run"]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imports(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """(line, module, name) for each import anywhere in a file; name is "" for a plain `import`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, "." * node.level + (node.module or ""), alias.name


def layer(module: str) -> str | None:
    """The layer of a module of vmrec: "trace" for vmrec.trace.reader."""
    parts = module.split(".")
    return parts[1] if parts[0] == "vmrec" and len(parts) > 1 else None


# ----------------------------------------------------------------------------------------------------------- imports


def misplaced(path: str, tree: ast.Module) -> list[str]:
    """The imports of one file that point the wrong way."""
    here = layer(path.removesuffix(".py").replace("/", "."))
    if here in (None, "__init__", "__main__"):  # the package's front door may open every room
        return []
    found = []
    for line, module, name in imports(tree):
        if module == "vmrec" and name == "__version__":
            continue
        there = layer(f"{module}.{name}" if module == "vmrec" else module)
        if (module == "vmrec" or module.startswith("vmrec.")) and there not in RANK:
            found.append(f"{path}:{line}: imports {module}, which is in no layer")
        elif there is not None and there != here and RANK[there] >= RANK[here]:
            found.append(f"{path}:{line}: {here} imports {there}")
    return found


def test_imports_point_one_way() -> None:
    found = [problem for path in PACKAGE for problem in misplaced(relative(path), tree_of(path))]
    assert found == []
    folders = {path.relative_to(ROOT / "vmrec").parts[0].removesuffix(".py") for path in PACKAGE}
    assert folders <= {*RANK, "__init__", "__main__"}


def test_the_import_rule_sees_what_it_should() -> None:
    wrong = {
        "from vmrec.cli.output import write": "trace imports cli",
        "import vmrec.machine.machine": "trace imports machine",
        "from vmrec.guest import elf": "trace imports guest",
        "from vmrec import machine": "trace imports machine",
        "def f():\n    from vmrec.record import sources": "trace imports record",
        "from vmrec.nowhere import x": "imports vmrec.nowhere, which is in no layer",
        "import vmrec": "imports vmrec, which is in no layer",
    }
    for source, problem in wrong.items():
        (found,) = misplaced("vmrec/trace/reader.py", ast.parse(source))
        assert found.endswith(problem)
    right = "from vmrec import __version__\nfrom vmrec.errors import X\nfrom vmrec.trace.layout import Y\nimport re"
    assert misplaced("vmrec/trace/reader.py", ast.parse(right)) == []


def test_outside_packages_have_one_place_each() -> None:
    found = [
        f"{relative(path)}:{line}: imports {module}; only {KEEPERS[top]} does"
        for path in PACKAGE
        for line, module, _ in imports(tree_of(path))
        if (top := module.partition(".")[0]) in KEEPERS and not relative(path).startswith(KEEPERS[top])
    ]
    assert found == []


# ------------------------------------------------------------------------------------------------------ every file


def test_every_source_says_its_licence_and_its_purpose() -> None:
    found = []
    for path in SOURCES:
        text = path.read_text("utf-8")
        if not text and path.name == "__init__.py":
            continue
        if "SPDX-License-Identifier: GPL-2.0-or-later" not in "".join(text.splitlines(keepends=True)[:2]):
            found.append(f"{relative(path)}: no SPDX line at its top")
        if path.suffix == ".py":
            if not ast.get_docstring(ast.parse(text)):
                found.append(f"{relative(path)}: no docstring")
        elif not re.search(r"\A(#!.*\n)?(#|/\*|//).*\n\s*(\*/\s*\n)?\s*(#|/\*|//|\*)\s*\S", text):
            found.append(f"{relative(path)}: no comment that states its purpose")
    assert found == []


def test_nothing_is_caught_or_imported_wholesale() -> None:
    found = []
    for path in PYTHON:
        for node in ast.walk(tree_of(path)):
            where = f"{relative(path)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
                found.append(f"{where}: import *")
            if isinstance(node, ast.ExceptHandler) and swallows(node):
                found.append(f"{where}: catches everything")
    assert found == []


def swallows(handler: ast.ExceptHandler) -> bool:
    """True for `except:`, `except Exception:` and the like; cleaning up and raising again is another matter."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    broad = any(
        kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException")) for kind in kinds
    )
    last = handler.body[-1]
    return broad and not (isinstance(last, ast.Raise) and last.exc is None)


def test_nothing_is_left_for_later() -> None:
    words = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b|raise Not" + "Implemented")
    found = [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in SOURCES
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if words.search(line)
    ]
    assert found == []


def test_no_path_of_somebodys_machine_is_in_any_file() -> None:
    """Also not in ELF files and recordings: debug information likes to hold some."""
    paths = re.compile(rb"/(home|Users|root|work)/[\w.+-]+")
    found = [
        f"{relative(path)}: {match[0].decode()}" for path in FILES for match in paths.finditer(path.read_bytes())
    ]
    assert found == []


def test_the_top_level_is_as_agreed() -> None:
    folders = {"vmrec", "guests", "tests", "traces"}
    files = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"}
    top = {path.relative_to(ROOT).parts[0] for path in FILES}
    assert {name for name in top if not name.startswith(".")} <= folders | files


def test_the_readme_knows_every_verb() -> None:
    from vmrec.cli.main import VERBS

    readme = ROOT / "README.md"
    assert readme.is_file()
    text = readme.read_text("utf-8")
    assert [verb.name for verb in VERBS if f"vmrec {verb.name}" not in text] == []


# ---------------------------------------------------------------------------------------------------------- checkers


@pytest.mark.parametrize("command", [["ruff", "check", "."], ["mypy"]], ids=["ruff", "mypy"])
def test_checkers_find_nothing(command: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
