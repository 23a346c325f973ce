"""Checkers accept correct programs and refuse mistakes: every line marked E, and no other.

mypy --strict and pyright (strict) read copies of the programs once each, as a user's files beside the package.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[2]
CONTRACT = ROOT / ".." / "shared" / "api"
OWN = ("claims.py", "mistakes.py")
OF_CONTRACT = ("agent.py", "client.py", "extras.py", "importer.py", "pizza.py", "test_programs.py", "static.py")

# What a checker may not touch and a reader has to: our own `make type` passes over the mistakes.
PASSED_OVER = "# mypy: ignore-errors\n"
MARK = re.compile(r"# E$")
MYPY_LINE = re.compile(r"(?P<file>[^:]+):(?P<line>\d+): error: (?P<message>.*)")

Refusals = dict[str, dict[int, str]]
"""What a checker refuses: by file name and line, with the (last) message."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    for name in OWN:
        text = (HERE / name).read_text("utf-8")
        (folder / name).write_text(text.replace(PASSED_OVER, "\n", 1), "utf-8")
    for source in (CONTRACT / "programs", CONTRACT / "mistakes"):
        for path in source.glob("*.py"):
            shutil.copy(path, folder)
    return folder


def run(command: list[str], folder: Path) -> str:
    """Run a checker in *folder* and return what it says; it may find faults, but not fail."""
    environment = os.environ | {"MYPYPATH": str(ROOT), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False, text=True)
    assert done.returncode in {0, 1}, f"{command} did not run:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def mypy(programs: Path) -> Refusals:
    files = sorted(path.name for path in programs.glob("*.py"))
    options = ["--strict", "--no-pretty", "--no-error-summary", "--config-file=", "--cache-dir=.cache"]
    said = run([sys.executable, "-m", "mypy", *options, *files], programs)
    refused: Refusals = {name: {} for name in files}
    for found in filter(None, map(MYPY_LINE.fullmatch, said.splitlines())):
        refused.setdefault(found["file"], {})[int(found["line"])] = found["message"]
    return refused


@pytest.fixture(scope="module")
def pyright(programs: Path) -> Refusals:
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)], "include": ["*.py"]}
    (programs / "pyrightconfig.json").write_text(json.dumps(settings), "utf-8")
    said = run([sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable], programs)
    report = json.loads(said)
    refused: Refusals = {path.name: {} for path in programs.glob("*.py")}
    assert report["summary"]["filesAnalyzed"] == len(refused)
    for found in report["generalDiagnostics"]:
        if found["severity"] == "error":
            refused[Path(found["file"]).name][found["range"]["start"]["line"] + 1] = found["message"]
    return refused


def marked(path: Path) -> set[int]:
    """Return the lines that end with the mark of a mistake."""
    return {number for number, line in enumerate(path.read_text("utf-8").splitlines(), 1) if MARK.search(line)}


def needed(name: str, programs: Path) -> Path:
    """Return the program *name*; skip where it, or what it imports, is not here."""
    if not (programs / name).exists():
        pytest.skip("the contract's programs are not beside this checkout")
    if name == "client.py" and not (ROOT / "runner" / "__init__.py").exists():
        pytest.skip("client.py imports runner, which is not here")
    return programs / name


@pytest.mark.parametrize("name", [*OWN, *OF_CONTRACT])
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_the_marked_lines_are_refused_and_no_other(name: str, checker: str, programs: Path, request: pytest.FixtureRequest) -> None:
    expected = marked(needed(name, programs))
    refusals: Refusals = request.getfixturevalue(checker)
    refused = refusals[name]
    assert {number: message for number, message in refused.items() if number not in expected} == {}, "refused wrongly"
    assert sorted(expected - refused.keys()) == [], "mistakes that were accepted"


def test_the_files_of_mistakes_have_marks_and_the_programs_have_none(programs: Path) -> None:
    marks = {name: len(marked(programs / name)) for name in (*OWN, *OF_CONTRACT) if (programs / name).exists()}
    assert marks.pop("mistakes.py") >= 50
    assert marks.pop("static.py", 22) == 22
    assert set(marks.values()) == {0}


def test_the_program_uses_every_statement() -> None:
    import asyncflow
    from asyncflow.statements import Node, SelectCase, Statement

    parts = {kind.__name__ for kind in vars(asyncflow).values() if isinstance(kind, type) and issubclass(kind, Node)}
    parts -= {Node.__name__, SelectCase.__name__, Statement.__name__}
    assert {"Section", "Step", "On", "Case"} <= parts
    text = (HERE / "claims.py").read_text("utf-8")
    assert {part for part in parts if not re.search(rf"\b{part}\(", text)} == set()
