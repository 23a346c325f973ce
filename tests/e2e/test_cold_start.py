"""What is loaded before it is asked for is paid at every start of a process: no library of a cloud is."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HELP = """
import runner.cli
try:
    runner.cli.cli(ARGUMENTS, prog_name="asyncflow")
except SystemExit as end:
    assert end.code == 0
"""
LOADED = """
import sys
print({"google", "grpc", "psycopg", "psycopg_pool"} & {name.partition(".")[0] for name in sys.modules})
"""


@pytest.mark.parametrize("program", [
    "import runner; runner.Runner",
    HELP.replace("ARGUMENTS", "['--help']"),
    HELP.replace("ARGUMENTS", "['serve', '--help']"),
], ids=["import runner", "asyncflow --help", "asyncflow serve --help"])  # fmt: skip
def test_no_library_of_a_cloud_is_loaded_before_it_is_needed(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program + LOADED], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
