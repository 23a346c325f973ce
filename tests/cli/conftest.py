"""The command in this process: on a store of its own, in an empty folder, without settings from outside."""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from werkzeug.serving import make_server

from asyncflow import Workflow
from runner import Runner
from runner.cli import cli
from tests.cli import shop

WORKFLOWS: list[type[Workflow]] = [shop.Parcel, shop.Visit, shop.Calls, shop.Slow, shop.Bad]


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of the developer's own settings, and nothing left behind in this process."""
    for name in os.environ:
        if name.startswith("ASYNCFLOW_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and file.startswith(str(tmp_path)):
            del sys.modules[name]


@dataclass
class Shell:
    """Types commands. `store` is where the instances are."""

    store: str
    way: tuple[str, ...]

    def __call__(self, *arguments: str, code: int = 0, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(cli, [*arguments], input=stdin)
        said = f"asyncflow {' '.join(arguments)}\n{result.stdout}\n{result.stderr}"
        assert result.exit_code == code, said
        assert not isinstance(result.exception, Exception), said
        return result

    def run(self, command: str, *arguments: str, code: int = 0, stdin: str | None = None) -> Result:
        """A command that talks to the instances."""
        return self(command, *arguments, *self.way, code=code, stdin=stdin)

    def json(self, command: str, *arguments: str, code: int = 0) -> Any:
        """What it prints with --json."""
        return json.loads(self.run(command, *arguments, "--json", code=code).stdout)

    def error(self, command: str, *arguments: str, code: int) -> Any:
        """The error that it prints with --json."""
        return json.loads(self.run(command, *arguments, "--json", code=code).stderr.splitlines()[-1])["error"]

    def work(self) -> None:
        """Let a worker do what is due."""
        with Runner(WORKFLOWS, store=self.store) as runner:
            assert runner.wait_idle()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    store = f"sqlite:///{tmp_path / 'shop.db'}"
    return Shell(store, ("--store", store, "--app", "tests.cli.shop"))


@pytest.fixture(params=["store", "server"])
def either(request: pytest.FixtureRequest, shell: Shell) -> Iterator[Shell]:
    """A shell whose commands go to a store, and one whose commands go to a server on that store."""
    if request.param == "store":
        yield shell
        return
    runner = Runner(WORKFLOWS, store=shell.store)
    server = make_server("127.0.0.1", 0, runner.create_app(), threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield Shell(shell.store, ("--url", f"http://127.0.0.1:{server.server_port}"))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        runner.close()


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Steps are broken until this is called."""
    mark = tmp_path / "broken"
    mark.touch()
    monkeypatch.setenv("SHOP_BROKEN", str(mark))
    return mark.unlink
