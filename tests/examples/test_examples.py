"""Every example runs from a clean checkout, says what to notice, and has its line in the list."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in (ROOT / "examples").glob("*.py") if '__name__ == "__main__"' in path.read_text("utf-8"))
# These end their own process; tests/runner and `make demo` are about them.
KILLED = frozenset(path for path in FILES if "demo" in path.stem)
RUN = [path for path in FILES if path not in KILLED]
SECONDS_MAX = 100  # the slowest takes a few; more is a hang


def printed_by(name: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{name}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


LINES = {
    "pizza": "bill: total=Decimal('7.50') payments=[Decimal('5.00'), Decimal('2.50')]",
    "approval": "outcome: outcome='approved' by='carol' why=''",
    "fan_out": "957 answered, mean 19.7, 43 offline",
    "transfer": "accounts: {'ann': 7000, 'bob': 3000, 'eve': 0} in all 10000",
    "agent": "answer: buy cake: paid 24 coins; buy pony: refused: where would it sleep?",
}


@pytest.mark.parametrize("path", RUN, ids=lambda path: path.stem)
def test_it_runs_offline_and_prints(path: Path) -> None:
    assert any(printed.startswith(LINES[path.stem]) for printed in printed_by(path.stem).splitlines())


@pytest.mark.parametrize("path", RUN, ids=lambda path: path.stem)
def test_its_first_lines_say_what_to_notice(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    assert "What to notice:" in text
    assert f"python -m examples.{path.stem}" in text


@pytest.mark.parametrize("path", RUN, ids=lambda path: path.stem)
def test_the_list_names_it(path: Path) -> None:
    rows = re.findall(
        r"^\| `python -m examples\.(\w+)` \| \[(\w+)\.py\]",
        (ROOT / "examples" / "README.md").read_text("utf-8"),
        re.MULTILINE,
    )
    assert (path.stem, path.stem) in rows
