"""The contract's programs run, with the tests that came with them."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parents[2] / ".." / "shared" / "api" / "programs"


def test_the_tests_of_the_contracts_programs_pass() -> None:
    if not PROGRAMS.is_dir():
        pytest.skip("the contract's programs are not beside this checkout")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(PROGRAMS), "test_programs.py"]
    done = subprocess.run(command, cwd=PROGRAMS, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout, done.stdout
