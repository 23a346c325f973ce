"""Code that has changed under instances: what does not fit it is seen where an operator looks."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Shell
from tests.cli.test_processes import running, says
from tests.cli.test_target import write

OLD = """
from asyncflow import Return, S, Section, Select, On, Step, WaitEvent, Workflow, event

class Order(Workflow):
    size: int = 1

    @event
    def shut(self) -> None: ...

    def definition(self) -> Section[int]:
        return S(Select("open", On(self.shut)), Return(1))

class Gone(Workflow):
    def definition(self) -> Section[None]:
        return S(WaitEvent("anything"))
"""


@pytest.fixture
def old(tmp_path: Path) -> Shell:
    """A shell with the code that started what is there."""
    store = f"sqlite:///{tmp_path / 'orders.db'}"
    file = write(tmp_path / "before" / "flows_before.py", OLD)
    shell = Shell(store, ("--store", store, "--app", str(file)))
    shell.run("start", "Order", "--id", "o-1")
    shell.run("start", "Gone", "--id", "g-1")
    return shell


def newer(old: Shell, folder: Path, name: str, *changes: tuple[str, str]) -> Shell:
    """A shell on the same store, with other code."""
    text = OLD
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    file = write(folder / name / f"flows_{name}.py", text)
    return Shell(old.store, ("--store", old.store, "--app", str(file)))


def listed(shell: Shell, *arguments: str) -> dict[str, Any]:
    return {one["id"]: one for one in shell.json("list", *arguments)["instances"]}


def test_a_step_that_was_renamed_under_an_instance_is_seen(old: Shell, tmp_path: Path) -> None:
    new = newer(old, tmp_path, "renamed", ('Select("open"', 'Select("opened"'))
    for found in (new.json("show", "Order/o-1"), listed(new)["o-1"]):
        thread = found["threads"][0]
        assert (found["status"], thread["status"], thread["position"]) == ("Running", "Waiting", "open")
        assert thread["error"]["type"] == "NotFound"
        assert thread["error"]["message"].startswith("this code has no statement 'open'")
    shown = new.run("show", "Order/o-1").stdout
    assert "◀ main: Waiting, NotFound at open" in shown
    assert "NotFound: this code has no statement 'open'" in shown
    assert "NotFound" in new.run("list").stdout
    assert listed(old)["o-1"]["threads"][0]["error"] is None


def test_a_state_that_does_not_fit_is_seen_and_the_statuses_agree(old: Shell, tmp_path: Path) -> None:
    new = newer(old, tmp_path, "retyped", ("size: int = 1", "size: list[int] = []"))
    assert new.error("send", "Order/o-1", "shut", code=5)["type"] == "Unavailable"
    new.run("resume", "Order/o-1", code=4)  # look again, it says
    shown = new.json("show", "Order/o-1")
    assert (shown["status"], shown["error"]["type"]) == ("Running", "Unavailable")
    text = shown["error"]["message"]
    assert text.startswith("this code cannot read the instance: the state does not validate as Order: size:")
    assert text.count("cannot read") == 1
    assert (listed(new)["o-1"]["status"], listed(new)["o-1"]["error"]["type"]) == ("Running", "Unavailable")
    assert set(listed(new, "--status", "Running")) == {"o-1", "g-1"}
    assert listed(new, "--status", "Paused") == {}


def test_instances_of_a_workflow_that_is_no_longer_there_are_seen(old: Shell, tmp_path: Path) -> None:
    new = newer(old, tmp_path, "fewer", ("class Gone(", "class Renamed("))
    result = new.run("list")
    assert {line.split()[0] for line in result.stdout.splitlines()[1:]} == {"Order/o-1", "Gone/g-1"}
    assert "warning: the code that was given has no workflow Gone: nobody runs these with it" in result.stderr
    assert set(listed(new, "Gone")) == {"g-1"}
    shown = new.json("show", "Gone/g-1")
    assert (shown["status"], shown["threads"][0]["position"]) == ("Running", "anything")
    assert "there is no workflow 'Gone' in the code that was given; there are: Order, Renamed" in shown["error"]["message"]
    assert "main    Waiting  anything" in new.run("show", "Gone/g-1").stdout
    assert new.error("show", "Gone/g-2", code=3)["type"] == "NotFound"
    assert new.error("list", "Nothing", code=3)["type"] == "NotFound"
    # A word to many is for what this code has alone.
    assert new.json("kill", "-", "--status", "Running") == {"matched": 1, "done": 1, "pending": 0, "refused": []}
    assert new.error("kill", "Gone/g-1", code=3)["type"] == "NotFound"


def test_a_worker_tells_at_its_start_what_does_not_fit(old: Shell, tmp_path: Path) -> None:
    new = newer(old, tmp_path, "worker", ("size: int = 1", "size: list[int] = []"), ("class Gone(", "class Renamed("))
    new.run("resume", "Order/o-1", code=4)
    with running(tmp_path, "worker", *new.way, "--json") as worker:
        assert worker.err.until(says("working"))
        line = json.loads(worker.err.until(lambda line: "did not fit" in line))
        assert (line["level"], line["message"].rpartition(": ")[2]) == ("warning", "Order/o-1")
        line = json.loads(worker.err.until(lambda line: "not in this code" in line))
        assert (line["level"], line["message"].rpartition(": ")[2]) == ("info", "Gone")
        assert worker.stop() == 0
