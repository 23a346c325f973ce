"""What docs/http.md shows is what a served shop answers, command by command."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest

from tests.docs.snippets import Block, blocks_of, commands_of, matches

ROOT = Path(__file__).parents[2]
BLOCKS = list(blocks_of("docs/http.md", (ROOT / "docs" / "http.md").read_text("utf-8")))
SERVE = """
import shop
from runner.http.server import serve
serve(shop.runner, port=0, ready=lambda url: print(url, flush=True))
"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where the shop of the page is served."""
    shop = next(block for block in BLOCKS if block.language == "python")
    (tmp_path / "shop.py").write_text(shop.text, "utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
    with subprocess.Popen(
        [sys.executable, "-c", SERVE], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip().removeprefix("http://")
        finally:
            server.terminate()


def typed(block: Block, address: str, folder: Path) -> None:
    for command, shown in commands_of(block):
        done = subprocess.run(
            ["sh", "-c", command.replace("localhost:8080", address)],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{block}: $ {command}\n{done.stderr}"
        assert matches(shown, done.stdout), f"{block}: $ {command}\nprinted:\n{done.stdout}\nthe page shows:\n{shown}"


@pytest.mark.skipif(which("curl") is None, reason="needs curl")
def test_the_page_shows_what_curl_prints(address: str, tmp_path: Path) -> None:
    consoles = [block for block in BLOCKS if block.language == "console"]
    assert len(consoles) > 8
    for block in consoles:
        typed(block, address, tmp_path)


def test_the_page_names_every_route() -> None:
    from runner import Runner
    from tests.http import shop

    runner = Runner(shop.WORKFLOWS, store="memory://")
    page = (ROOT / "docs" / "http.md").read_text("utf-8")
    for rule in runner.create_app().url_map.iter_rules():
        last = rule.rule.rpartition("/")[2]
        shown = {
            "<workflow>": "/workflows/W",
            "<id>": "/workflows/W/ID",
            "<id>:<verb>": "ID:VERB",
            "<query>": "/queries/Q",
        }
        assert shown.get(last, last if "<" not in last else "events/E") in page, rule
    runner.close()
