"""`cost`: what one instance costs on Firestore and Cloud Tasks, from a run that does nothing outside."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final

import click
from rich.console import Group
from rich.text import Text

from asyncflow import Workflow
from asyncflow.errors import Malformed
from runner.commands.arguments import json_text, read_json
from runner.commands.output import table, visible
from runner.commands.session import Command, Session, serving, with_session
from runner.durations import parse_duration
from runner.trial import Cost, Row, Trial

COLUMNS: Final = ("reads", "writes", "history", "tasks", "attempts")
RULES: Final = (
    ("start", "0", "1", "1"),
    ("event, instance waits again", "1", "1", "0-1 (a new deadline)"),
    ("event, then N steps, wait", "2", "N + 2", "2"),
    ("event while a step holds it", "1 + the caller's polls", "1, and 1 + 1 tried for the step's end", "0"),
    ("timer", "1", "1 (+ N)", "its own"),
    ("timer that lost, task that came twice", "1", "0", "0"),
)
"""The table of the protocol (section 8): what happens once costs this on Firestore and Cloud Tasks."""


@click.command(
    "cost",
    cls=Command,
    examples=(
        "asyncflow cost pizza.py",
        """asyncflow cost pizza.py --do 'add={"name": "Funghi"}' --do submit --do wait=24h""",
        """asyncflow cost agent.py --input '{"question": "…"}' --result ask='{"text": "…"}'""",
    ),
)
@click.argument("target", required=False)
@click.option("--input", "body", metavar="JSON", callback=json_text, help="What the start takes.")
@click.option(
    "--do",
    "script",
    metavar="EVENT[=JSON]",
    multiple=True,
    help="What happens then, in this order: an event with its input, or wait=DURATION. Without any: nobody sends, timers come.",
)
@click.option("--thread", "threads", metavar="EVENT=THREAD", multiple=True, help="To which thread an event is addressed.")
@click.option("--result", "results", metavar="STEP=JSON", multiple=True, help="What a step with then= or into= gives.")
@serving
@with_session
def cost(
    session: Session,
    *,
    target: str | None,
    body: bytes | None,
    script: tuple[str, ...],
    threads: tuple[str, ...],
    results: tuple[str, ...],
) -> None:
    """Count reads, writes and tasks of one instance.

    They are those of Firestore and Cloud Tasks when nothing goes wrong; multiply them by your number of instances and the
    prices of your region. No action is run: plain steps change nothing, and others give what --result says. Where history is
    kept, each write of the column history is one more.
    """
    workflow = _one_of(session.workflows(target))
    trial = Trial(workflow, results={name: read_json(text) for name, text in map(_pair, results)})
    try:
        trial.start(body)
        _play(trial, script, dict(_pair(one) for one in threads))
        for name in sorted(trial.unused):
            session.output.warn(f"no step {name!r} was come to, so its --result was not used")
        total = trial.total
        value = {
            "workflow": workflow.__workflow_name__,
            "status": trial.status,
            "rows": [{"what": row.what, **asdict(row.cost)} for row in trial.rows],
            "total": asdict(total),
            "to_come": trial.to_come,
        }
        session.output.data(value, _drawn(trial, total))
    finally:
        trial.close()


def _one_of(workflows: list[type[Workflow]]) -> type[Workflow]:
    if len(workflows) > 1:
        names = ", ".join(one.__name__ for one in workflows)
        raise Malformed(f"expected one workflow, found {names}: say which by module:Class")
    return workflows[0]


def _play(trial: Trial, script: tuple[str, ...], threads: dict[str, str]) -> None:
    for one in script:
        event, text = _pair(one) if "=" in one else (one, None)
        if event == "wait" and text is not None:
            trial.wait(_duration(text))
        else:
            trial.send(event, None if text is None else read_json(text), thread=threads.get(event))
    if not script and not trial.wait_on():
        raise Malformed("timers come for ever: say by --do what happens, as --do wait=30d")


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise Malformed(f"--do wait: {error}") from error


def _pair(said: str) -> tuple[str, str]:
    name, equals, text = said.partition("=")
    if not name or not equals:
        raise Malformed(f"expected NAME=…, found {said!r}")
    return name, text


def _drawn(trial: Trial, total: Cost) -> Group:
    rows = [_line(row) for row in [*trial.rows, Row("in all", total)]]
    to_come = f"; tasks still to come: {trial.to_come}, for each of which it is read once more" if trial.to_come else ""
    return Group(
        table(["", *COLUMNS], rows),
        Text(visible(f"\nit is {trial.status} then{to_come}; a million of these: {_million(total)}\n")),
        Text("what each costs", "bold"),
        table(["", "reads", "writes", "tasks"], RULES),
    )


def _line(row: Row) -> tuple[Any, ...]:
    costs = asdict(row.cost)
    return (visible(row.what), *(str(costs[name]) for name in COLUMNS))


def _million(total: Cost) -> str:
    return f"{total.reads} M reads, {total.writes} M writes, {total.tasks} M tasks"
