"""`start`, `send`, `query`, `list`, `show`, `history`: instances one by one, and lists of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import click
from rich.console import RenderableType
from rich.text import Text

from asyncflow import NotFound, Pending, limits
from runner.commands.access import Access, JsonObject
from runner.commands.arguments import instance_name, json_text
from runner.commands.drawing import instance_view
from runner.commands.output import ago, json_line, status_text, table
from runner.commands.session import Command, Session, changing, reaching, with_session
from runner.commands.waiting import check_end, end_of, watch

STATUSES: Final = ("Running", "Paused", "Finished", "Failed", "Cancelled")
WHERE_CHARACTERS: Final = 60
"""On a terminal, how much of where an instance stands a line of a list says: a line is to stay one."""
THREADS_SHOWN: Final = 3
"""On a terminal, of an instance in a list."""


@click.command(
    "start",
    cls=Command,
    examples=(
        "asyncflow start PizzaOrder --id o-1",
        'asyncflow start Transfer \'{"amount": "12.50", "to": "ann"}\' --wait 30',
    ),
)
@click.argument("workflow")
@click.argument("input", required=False, callback=json_text)
@click.option("--id", "id_", metavar="ID", help="Its id; else made from the key, or random.")
@click.option("--key", metavar="KEY", help="Idempotency key: the same start with the same key is done once.")
@click.option("--wait", type=float, metavar="SECONDS", help="Wait for its end and print its output.")
@changing
@with_session
def start(session: Session, *, workflow: str, input: bytes | None, id_: str | None, key: str | None, wait: float | None) -> None:
    """Start an instance of WORKFLOW.

    INPUT is JSON: the fields without default, or what the workflow's start takes; @FILE reads it from a file, - from
    standard input. Prints the instance's name.
    """
    with session.access(makes=True) as access:
        instance = access.start(workflow, input, id=id_, key=key)
        name = f"{instance['workflow']}/{instance['id']}"
        if wait is None:
            session.output.data(instance, name)
            return
        if not session.output.as_json:
            session.output.note(f"started {name}")
        _wait_for(session, access, instance, wait)


def _wait_for(session: Session, access: Access, instance: JsonObject, seconds: float) -> None:
    """Print what came of an instance; its bad end is an error."""
    ended = end_of(access, instance, seconds)
    if session.output.as_json:
        session.output.value(ended)
        check_end(ended)
    else:
        check_end(ended)
        session.output.value(ended["output"])


@click.command(
    "send",
    cls=Command,
    examples=(
        'asyncflow send PizzaOrder/o-1 add \'{"name": "Margherita"}\'',
        "asyncflow send Review/r-7 approve --thread calls/c2 --caller ann",
    ),
)
@click.argument("instance", callback=instance_name, metavar="INSTANCE")
@click.argument("event")
@click.argument("input", required=False, callback=json_text)
@click.option("--thread", metavar="THREAD", help="The thread it is for, as calls/c2.")
@click.option("--key", metavar="KEY", help="Idempotency key: the same event with the same key gets the same answer.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=limits.PATIENCE_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the answer of an event that has to lie until its turn comes.",
)
@changing
@with_session
def send(
    session: Session,
    *,
    instance: tuple[str, str],
    event: str,
    input: bytes | None,
    thread: str | None,
    key: str | None,
    timeout: float,
) -> None:
    """Deliver EVENT to INSTANCE and print the answer.

    INPUT is JSON; @FILE reads it from a file, - from standard input. An event whose turn has not come within the
    time-out is stored all the same (exit code 4): the same command with the --key it names gets the answer.
    """
    try:
        with session.access() as access:
            answer = access.send(*instance, event, input, thread=thread, key=key, seconds=timeout)
    except Pending as pending:
        if session.output.as_json:
            session.output.value({"idempotency_key": pending.idempotency_key})
        raise
    session.output.value(answer)


@click.command("query", cls=Command, examples=("asyncflow query PizzaOrder/o-1 total",))
@click.argument("instance", callback=instance_name, metavar="INSTANCE")
@click.argument("query")
@reaching
@with_session
def query(session: Session, *, instance: tuple[str, str], query: str) -> None:
    """Print what QUERY says of INSTANCE."""
    with session.access() as access:
        session.output.value(access.query(*instance, query))


@click.command("show", cls=Command, examples=("asyncflow show PizzaOrder/o-1",))
@click.argument("instance", callback=instance_name, metavar="INSTANCE")
@click.option("--wait", type=float, metavar="SECONDS", help="Wait for its end first.")
@reaching
@with_session
def show(session: Session, *, instance: tuple[str, str], wait: float | None) -> None:
    """Show INSTANCE: its threads in the tree.

    Also what it awaits and from whom, timers counting down, errors, output and state.
    """
    with session.access() as access:
        found = access.get(*instance)
        if wait is not None:
            found = end_of(access, found, wait)
        if session.output.as_json:
            session.output.value(found)
        else:
            timers = access.timers(*instance)
            tree = _tree_of(access, instance[0])
            session.output.show(instance_view(found, tree, timers, datetime.now(UTC), whole=session.output.whole))
        if wait is not None:
            check_end(found)


def _tree_of(access: Access, workflow: str) -> JsonObject | None:
    try:
        return access.definition(workflow)
    except NotFound:  # what lies in the store can be shown without its code
        return None


@click.command("history", cls=Command, examples=("asyncflow history PizzaOrder/o-1",))
@click.argument("instance", callback=instance_name, metavar="INSTANCE")
@click.option("--limit", type=click.IntRange(min=1), metavar="NUMBER", help="Print at most that many entries.")
@click.option("--page-token", metavar="TOKEN", help="Go on where a page before ended (next_page_token).")
@reaching
@with_session
def history(session: Session, *, instance: tuple[str, str], limit: int | None, page_token: str | None) -> None:
    """Print what happened to INSTANCE, the oldest first."""
    entries: list[JsonObject] = []
    with session.access(code=False) as access:
        while True:
            size = limits.PAGE_SIZE_MAX if limit is None else min(limits.PAGE_SIZE_MAX, limit - len(entries))
            page = access.history(*instance, page_size=size, page_token=page_token)
            entries += page["entries"]
            page_token = page["next_page_token"]
            if page_token is None or len(entries) == limit:
                break
    most = None if session.output.whole else WHERE_CHARACTERS
    rows = [(one["n"], one["at"], one["kind"], one.get("thread"), one.get("path"), _details(one, most)) for one in entries]
    shown = table(["n", "at", "what", "thread", "where", ""], rows)
    session.output.data({"entries": entries, "next_page_token": page_token}, shown)


def _details(entry: JsonObject, most: int | None) -> str:
    said = []
    if entry.get("event"):
        said.append(str(entry["event"]))
    if entry.get("attempt"):
        said.append(f"attempt {entry['attempt']}")
    if entry.get("duration_ms") is not None:
        said.append(f"{entry['duration_ms']:.0f} ms")
    if entry.get("caller"):
        said.append(f"by {entry['caller']}")
    if entry.get("input") is not None:
        said.append(_line(json_line(entry["input"]), most))
    if entry.get("error"):
        said.append(_line(f"{entry['error'].get('type', '')} {entry['error'].get('message', '')}".strip(), most))
    return ", ".join(said)


# -- list --------------------------------------------------------------------------------------------------------------


@click.command(
    "list",
    cls=Command,
    examples=(
        "asyncflow list",
        "asyncflow list PizzaOrder --status Paused",
        "asyncflow list --filter 'labels.customer = ann AND created_at > 2026-01-31T00:00:00Z' --json",
    ),
)
@click.argument("workflow", required=False)
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False), help="Only those of that status.")
@click.option("--filter", "filter_", metavar="FILTER", help="Only those that fit, as: labels.customer = ann.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=limits.PAGE_SIZE,
    show_default=True,
    metavar="NUMBER",
    help="List at most that many.",
)
@click.option("--page-token", metavar="TOKEN", help="Go on where a page before ended (next_page_token).")
@click.option("--watch", "watching", is_flag=True, help="Show it again and again, until interrupted.")
@reaching
@with_session
def list_(
    session: Session,
    *,
    workflow: str | None,
    status: str | None,
    filter_: str | None,
    limit: int,
    page_token: str | None,
    watching: bool,
) -> None:
    """List instances, the newest first.

    Those of WORKFLOW, or all.
    """
    name = None if workflow == "-" else workflow
    with session.access(code=False) as access:

        def read(token: str | None = page_token) -> JsonObject:
            return _read_list(access, name, status, filter_, limit, token)

        most = None if session.output.whole else WHERE_CHARACTERS
        if watching:
            watch(
                session.output,
                lambda: read()["instances"],
                lambda found: list_view(found, most),
                lambda one: session.output.data(one, line_of(one)),
                lambda *name: session.output.data(_gone(*name), f"{'/'.join(name)} is no longer listed"),
            )
            return
        page = read()
        without = [] if session.configuration.settings.url else _without_code(access, page["instances"])
    session.output.data(page, list_view(page["instances"], most))
    if page["next_page_token"] is not None and not session.output.as_json:
        session.output.note(f"there are more: say --limit, or --page-token {page['next_page_token']}")
    if without:
        session.output.warn(f"the code that was given has no workflow {', '.join(without)}: nobody runs these with it")


def _gone(workflow: str, id_: str) -> JsonObject:
    return {"workflow": workflow, "id": id_, "listed": False}


def _without_code(access: Access, instances: list[JsonObject]) -> list[str]:
    """Which of the workflows that instances are of are not in the code, where there is any."""
    known = {one["name"] for one in access.workflows()}
    return sorted({one["workflow"] for one in instances} - known) if known else []


def _read_list(
    access: Access, workflow: str | None, status: str | None, filter_: str | None, limit: int, token: str | None
) -> JsonObject:
    found: list[JsonObject] = []
    while True:
        size = min(limits.PAGE_SIZE_MAX, limit - len(found))
        page = access.page(workflow, status=status, filter=filter_, page_size=size, page_token=token, foreign=True)
        found += page["instances"]
        token = page["next_page_token"]
        if token is None or len(found) >= limit:
            return {"instances": found, "next_page_token": token}


def list_view(instances: list[JsonObject], most: int | None = None) -> RenderableType:
    """Draw a list of instances, where they stand in at most so many characters."""
    if not instances:
        return Text("no instances")
    now = datetime.now(UTC)
    rows = [
        (f"{one['workflow']}/{one['id']}", status_text(one["status"]), where(one, most), ago(one["updated_at"], now))
        for one in instances
    ]
    return table(["instance", "status", "where", "changed"], rows)


def line_of(instance: JsonObject) -> str:
    """An instance that has changed, on one line."""
    return f"{instance['workflow']}/{instance['id']} {instance['status']} {where(instance)}".rstrip()


def where(instance: JsonObject, most: int | None = None) -> str:
    """Say in one line where an instance stands, who has stopped it, or how it ended."""
    error = instance.get("error") or next((one["error"] for one in instance["threads"] if one.get("error")), None)
    said = f"{error.get('type')}: {error.get('message')}" if error else ""
    threads = [one for one in instance["threads"] if one["position"]]
    shown = threads if most is None else threads[:THREADS_SHOWN]
    places = ", ".join(one["position"] if one["id"] == "main" else f"{one['id']}: {one['position']}" for one in shown)
    more = f" and {len(threads) - len(shown)} more" if len(threads) > len(shown) else ""
    words = ", ".join(f"{word} asked for" for word in instance.get("control") or ())
    return _line("; ".join(part for part in (places + more, words, said) if part), most)


def _line(text: str, most: int | None) -> str:
    line = " ".join(text.split())
    return line if most is None or len(line) <= most else line[: most - 1] + "…"
