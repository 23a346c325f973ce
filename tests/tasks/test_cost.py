"""`asyncflow cost` says what a counted run over HTTP has cost."""

from pathlib import Path
from typing import Any

import pytest
from pydantic_core import to_json

from asyncflow import For, Go, Return, S, Section, Step, Workflow
from asyncflow.errors import Malformed, NotAwaited
from examples.pizza import PizzaOrder
from runner.trial import BETWEEN, Trial
from tests.cli.conftest import Shell
from tests.runner.clocks import Clock
from tests.tasks.conftest import Open
from tests.tasks.workflows import DAY, Bell, Cart, Row, Shelf

PIZZA = [
    ("add", {"name": "Funghi"}), ("submit", None), ("confirm", None), ("pay", "8.50"), ("cooked", None), ("take", None),
    ("deliver", None),
]  # fmt: skip
CART = [("add", "tea"), ("add", "milk"), ("submit", None), ("wait", DAY)]


@pytest.mark.parametrize("workflow, script", [
    (PizzaOrder, PIZZA),
    (Cart, CART),
    (Row, [("go", None)]),
    (Bell, [("wait", 2 * DAY)]),
    (Shelf, [("put", None), ("put", None), ("put", None)]),
])  # fmt: skip
def test_a_trial_costs_what_the_same_costs_over_http(
    workflow: type[Workflow], script: list[tuple[str, Any]], serving: Open, clock: Clock
) -> None:
    trial = Trial(workflow)
    site = serving(workflow, clock=clock)
    site.count()
    trial.start(None)
    handle = site.runner.start(workflow())
    site.queue.settle()
    for what, value in script:
        if what == "wait":
            trial.wait(value)
            end = clock.now() + value
            while site.queue.waiting and site.queue.waiting[0].at <= end:
                clock.advance(site.queue.waiting[0].at - clock.now())
                site.queue.settle()
        else:
            trial.send(what, None if value is None else to_json(value))
            clock.advance(BETWEEN)
            site.queue.settle()
            handle.send(what, value)
            site.queue.settle()
    cost = trial.total
    assert (cost.reads, cost.writes, cost.tasks) == (site.counts.reads, site.counts.writes, len(site.queue.made))
    assert trial.to_come == len(site.queue.waiting)
    assert trial.status == handle.status
    trial.close()


class Asks(Workflow):
    """A step with a result."""

    answers: list[int] = []

    def ask(self) -> int:
        raise AssertionError("no action is run")

    def note(self, answer: int) -> None:
        self.answers.append(answer)

    def definition(self) -> Section[list[int]]:
        return S(Go("beside", Step(self.ask, then=self.note)), Step("two", self.ask, then=self.note), Return(lambda: self.answers))


class Endless(Workflow):
    """A loop around a step that would end it."""

    done: bool = False

    def finish(self) -> None:
        self.done = True

    def definition(self) -> Section[None]:
        return S(For("loop", lambda: not self.done, Step(self.finish)), Return(None))


def test_results_of_steps_are_given_by_name_or_path() -> None:
    trial = Trial(Asks, results={"beside/ask": b"1", "two": b"2", "three": b"3"})
    trial.start(None)
    assert (trial.status, trial.unused) == ("Finished", {"three"})
    assert (trial.total.reads, trial.total.writes, trial.total.tasks, trial.total.attempts) == (1, 3, 1, 2)
    trial.close()


@pytest.mark.parametrize("results, said", [({}, "null"), ({"ask": b'"x"', "two": b"1"}, '"x"')])
def test_a_result_that_is_missing_or_wrong_is_said(results: dict[str, bytes], said: str) -> None:
    trial = Trial(Asks, results=results)
    with pytest.raises(Malformed, match=f"needs a result, and {said} cannot be one: Input should be a valid integer"):
        trial.start(None)
    trial.close()


def test_a_loop_around_steps_that_are_not_run_is_given_up() -> None:
    trial = Trial(Endless)
    with pytest.raises(Malformed, match="more than 1000 attempts"):
        trial.start(None)
    trial.close()


def test_an_event_that_is_refused_is_refused_here_too() -> None:
    trial = Trial(Cart)
    trial.start(None)
    with pytest.raises(NotAwaited):
        trial.send("receive", None)
    trial.close()


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell("", ())


def test_the_command_counts(shell: Shell) -> None:
    said = shell.json("cost", "examples.pizza", "--do", 'add={"name": "Funghi"}', "--do", "submit", "--do", "wait=30d")
    assert said["workflow"] == "PizzaOrder"
    assert [row["what"] for row in said["rows"]] == ["start", "add", "submit", "after 23h58m", "after 1m"]
    assert said["rows"][-1]["reads"] == 1, "a timer that lost"
    assert said["total"] == {"reads": 4, "writes": 3, "history": 3, "tasks": 2, "attempts": 0}
    assert said["to_come"] == 0
    assert shell.json("cost", "examples.pizza", "--do", 'add={"name": "Funghi"}')["to_come"] == 2
    text = shell("cost", "examples.pizza").stdout
    assert "it is Finished then; a million of these: 1 M reads, 2 M writes, 1 M tasks" in text
    assert "event, then N steps, wait" in text


@pytest.mark.parametrize("arguments, said", [
    (["tests.tasks.workflows"], "say which by module:Class"),
    (["examples.approval", "--input", '{"author": "a", "title": "b", "line": ["x"]}'], "timers come for ever"),
    (["examples.pizza", "--do", "wait=soon"], "expected a duration"),
    (["examples.pizza", "--result", "x"], "expected NAME=…"),
])  # fmt: skip
def test_wrong_use_is_said(shell: Shell, arguments: list[str], said: str) -> None:
    assert said in shell("cost", *arguments, code=2).stderr
