"""`docs` and `settings`: what there is to know before anything is started."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click
from pydantic_core import to_jsonable_python
from rich.console import Group, RenderableType
from rich.text import Text

from asyncflow.refusals import in_words
from runner.commands.access import JsonObject
from runner.commands.output import table, visible
from runner.commands.session import Command, Session, options, reaching, setting, with_session
from runner.durations import show_duration
from runner.settings import SECRETS, Settings, shown_url


@click.command("docs", cls=Command)
@click.argument("workflow", required=False)
@reaching
@with_session
def docs(session: Session, workflow: str | None) -> None:
    """Say what WORKFLOW takes and gives.

    That is its start, events and queries. Without WORKFLOW: which ones there are.

    With --json these are the JSON Schemas (2020-12).
    """
    with session.descriptions() as access:
        if workflow is None:
            found = access.workflows()
            rows = [(one["name"], _first_line(one.get("description"))) for one in found]
            session.output.data({"workflows": found}, table(["workflow", ""], rows))
        else:
            said = access.docs(workflow)
            session.output.data(said, docs_view(said))


def docs_view(docs: JsonObject) -> RenderableType:
    """Draw the docs of a workflow."""
    parts: list[RenderableType] = [Text(visible(docs["workflow"]), "bold")]
    if docs.get("description"):
        parts.append(Text(visible(docs["description"])))
    parts.append(Text(visible(f"\nstart   {in_words(docs['start']) or 'takes nothing'}")))
    parts.append(Text(visible(f"output  {in_words(docs['output']) or 'nothing'}")))
    events = [
        (
            name,
            in_words(one["input"]),
            in_words(one["output"]),
            ", ".join(one["role"] or ()) or "anybody",
            ", ".join(one["awaited_at"]),
            _first_line(one["description"]),
        )
        for name, one in docs["events"].items()
    ]
    if events:
        parts += [Text("\nevents", "bold"), table(["name", "input", "answer", "from", "awaited at", ""], events)]
    queries = [(n, in_words(one["output"]), _first_line(one["description"])) for n, one in docs["queries"].items()]
    if queries:
        parts += [Text("\nqueries", "bold"), table(["name", "gives", ""], queries)]
    return Group(*parts)


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


all_settings = options(
    click.option("--host", metavar="HOST", hidden=True),
    click.option("--port", metavar="PORT", hidden=True),
    click.option("--concurrency", metavar="NUMBER", hidden=True),
    click.option("--retention", metavar="DURATION", hidden=True),
    click.option("--history", metavar="DURATION", hidden=True),
    click.option("--lease", metavar="DURATION", hidden=True),
    click.option("--scheduler", metavar="URL", hidden=True),
    click.option("--base-url", metavar="URL", hidden=True),
    click.option("--log-level", metavar="LEVEL", hidden=True),
)


@click.command("settings", cls=Command)
@all_settings
@setting
@with_session
def settings(session: Session) -> None:
    """Print each setting and where it came from.

    Every setting is a variable ASYNCFLOW_NAME and a key of [tool.asyncflow] in the nearest pyproject.toml that has this
    table; flags come first, then variables, then the file.
    """
    configuration = session.configuration
    values = {name: shown_value(getattr(configuration.settings, name)) for name in Settings.model_fields}
    values |= {name: "***" for name in SECRETS if values[name]}
    sources = {name: source.place for name, source in configuration.sources.items()}
    rows = [(name, _in_words(value), sources[name]) for name, value in values.items()]
    as_json = {name: {"value": value, "source": sources[name]} for name, value in values.items()}
    session.output.data(as_json, table(["setting", "value", "from"], rows))


def shown_value(value: Any) -> Any:
    """A setting as JSON, durations as they are written, passwords left out."""
    if isinstance(value, timedelta):
        return show_duration(value)
    if isinstance(value, dict):
        return {name: shown_value(one) for name, one in value.items()}
    return shown_url(value) if isinstance(value, str) else to_jsonable_python(value)


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={one}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return {None: "none", True: "true", False: "false"}.get(value, str(value)) if not isinstance(value, str) else value
