"""`cancel`, `kill`, `pause`, `resume`, `retry`, `skip`, `delete`: operators' words, to one or to all that match."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from asyncflow import AsyncflowError, limits
from asyncflow.errors import Unavailable
from runner.commands.access import Access, JsonObject
from runner.commands.arguments import json_text
from runner.commands.instances import STATUSES
from runner.commands.output import PENDING, REFUSED, UNREACHABLE, Output, error_json, visible
from runner.commands.session import Command, Session, changing, options, with_session

DONE: Final = {
    "cancel": "cancelled",
    "kill": "killed",
    "pause": "paused",
    "resume": "resumed",
    "retry": "retried",
    "skip": "skipped",
    "delete": "deleted",
}
"""What was done, in the summary of many."""
GIVE_UP_AFTER: Final = 5
"""So many instances in a row that cannot be reached: it is the store or the server, not they."""
FAULTS_SHOWN: Final = 10
"""Refusals that are printed one by one on a terminal; elsewhere all are."""

Act = Callable[[Access, str, str], bool]
"""Does it to one instance; False when it is laid down and not yet applied."""


@dataclass(frozen=True, slots=True)
class Which:
    """What a word is for: one instance, or all that match."""

    workflow: str
    id: str | None
    status: str | None
    filter: str | None
    yes: bool


@dataclass(slots=True)
class Summary:
    """What came of a word to many."""

    matched: int = 0
    done: int = 0
    pending: int = 0
    refused: list[JsonObject] = field(default_factory=list)
    unreachable: bool = False

    @property
    def exit_code(self) -> int:
        """0 where all went well; the worst thing decides."""
        if self.unreachable:
            return UNREACHABLE
        return REFUSED if self.refused else PENDING if self.pending else 0


_which = options(
    click.argument("what", metavar="INSTANCE"),
    click.option("--status", type=click.Choice(STATUSES, case_sensitive=False), help="All of that status."),
    click.option("--filter", "filter_", metavar="FILTER", help="All that fit, as: labels.customer = ann."),
    click.option("--yes", is_flag=True, help="Do not ask before acting on many."),
)
_once = options(
    click.option("--key", metavar="KEY", help="Idempotency key: the same word with the same key is said once."),
    click.option("--if-pc", type=int, metavar="PC", help="Only if the instance is still at this program counter."),
)
_thread = click.option("--thread", metavar="THREAD", help="Only this one; else every parked thread of the instance.")


def _which_of(what: str, status: str | None, filter_: str | None, yes: bool) -> Which:
    workflow, stroke, id_ = what.partition("/")
    many = status is not None or filter_ is not None
    if stroke and (not workflow or not id_):
        raise click.BadParameter(f"expected WORKFLOW/ID, as PizzaOrder/o-1, found {what!r}", param_hint="INSTANCE")
    if id_ and many:
        raise click.UsageError(f"expected an instance or --status/--filter, found both: {what} and a choice of many")
    if not id_ and not many:
        text = f"which ones? Name one, as {workflow}/o-1, or choose all that match by --status or --filter"
        raise click.UsageError(text)
    return Which(workflow, id_ or None, status, filter_, yes)


# -- one and many ------------------------------------------------------------------------------------------------------


def _say(session: Session, verb: str, which: Which, **told: Any) -> None:
    """Say an operator's word to one instance, and print it; or to many."""
    if which.id is None:
        refuse_for_many(told)

        def act(access: Access, workflow: str, id_: str) -> bool:
            return access.operate(workflow, id_, verb, thread=told.get("thread"), value=told.get("value"))[1]

        _to_many(session, verb, which, act)
        return
    with session.access() as access:
        instance, applied = access.operate(which.workflow, which.id, verb, **told)
    session.output.data(instance, f"{which.workflow}/{which.id} {instance['status']}")
    if not applied:
        if not session.output.as_json:
            session.output.note(f"{verb} is laid down: it takes effect when the step that runs now has ended")
        click.get_current_context().exit(PENDING)


def refuse_for_many(told: JsonObject) -> None:
    """Refuse what only makes sense for one instance."""
    for name in ("key", "if_pc"):
        if told.get(name) is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} is for one instance, not for all that match")


def _to_many(session: Session, verb: str, which: Which, act: Act, *, code: bool = True) -> None:
    output = session.output
    with session.access(code=code) as access:
        found = list(_matching(access, which))
        summary = Summary(matched=len(found))
        if found and not which.yes and output.asks:
            click.confirm(f"{verb} {_counted(len(found))}?", abort=True, err=True)
        for workflow, id_ in _with_progress(output, verb, found):
            if not _one_of_many(access, act, workflow, id_, summary):
                break
    _print_summary(output, verb, summary)
    click.get_current_context().exit(summary.exit_code)


def _matching(access: Access, which: Which) -> Iterator[tuple[str, str]]:
    workflow = None if which.workflow == "-" else which.workflow
    token: str | None = None
    while True:
        page = access.page(workflow, status=which.status, filter=which.filter, page_size=limits.PAGE_SIZE_MAX, page_token=token)
        yield from ((one["workflow"], one["id"]) for one in page["instances"])
        token = page["next_page_token"]
        if token is None:
            return


def _one_of_many(access: Access, act: Act, workflow: str, id_: str, summary: Summary) -> bool:
    """Do it to one; False when there is no sense in going on."""
    try:
        applied = act(access, workflow, id_)
    except AsyncflowError as error:
        summary.refused.append({"instance": f"{workflow}/{id_}", "error": error_json(error)})
        last = summary.refused[-GIVE_UP_AFTER:]
        away = all(one["error"]["type"] == Unavailable.__name__ for one in last)
        tried = summary.done + summary.pending + len(summary.refused)
        summary.unreachable = away and (len(last) == GIVE_UP_AFTER or tried == len(last) == summary.matched)
        return not summary.unreachable
    summary.done += applied
    summary.pending += not applied
    return True


def _with_progress(output: Output, verb: str, found: list[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    if not output.err.is_terminal or not found:
        return found
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())

    def shown() -> Iterator[tuple[str, str]]:
        with Progress(*columns, console=output.err, transient=True) as progress:
            yield from progress.track(found, description=verb)

    return shown()


def _print_summary(output: Output, verb: str, summary: Summary) -> None:
    if output.as_json:
        said: JsonObject = {"matched": summary.matched, "done": summary.done, "pending": summary.pending}
        output.value({**said, "refused": summary.refused})
        return
    shown = summary.refused if output.whole else summary.refused[:FAULTS_SHOWN]
    for one in shown:
        output.note(f"{one['instance']}: {one['error']['type']}: {one['error']['message']}")
    if len(summary.refused) > len(shown):
        output.note(f"and {len(summary.refused) - len(shown)} more")
    left = summary.matched - summary.done - summary.pending - len(summary.refused)
    parts = [f"{DONE[verb]} {summary.done} of {_counted(summary.matched)}"]
    parts += [f"{summary.pending} laid down"] if summary.pending else []
    parts += [f"{len(summary.refused)} refused"] if summary.refused else []
    parts += [f"{left} not tried: the store or the server cannot be reached"] if left else []
    click.echo(visible(", ".join(parts)))


def _counted(number: int) -> str:
    return "1 instance" if number == 1 else f"{number} instances"


# -- the commands ------------------------------------------------------------------------------------------------------

_MANY: Final = "\n\nINSTANCE is WORKFLOW/ID; or WORKFLOW (- for every one) with --status or --filter, for all that match."


def _command(verb: str, text: str, status: str) -> Callable[[Callable[..., None]], click.Command]:
    examples = (f"asyncflow {verb} PizzaOrder/o-1", f"asyncflow {verb} PizzaOrder --status {status} --yes")
    return click.command(verb, cls=Command, help=text + _MANY, examples=examples)


def _plain(verb: str, text: str, status: str) -> click.Command:
    """A word without anything to add."""

    @_command(verb, text, status)
    @_which
    @_once
    @changing
    @with_session
    def command(
        session: Session,
        *,
        what: str,
        status: str | None,
        filter_: str | None,
        yes: bool,
        key: str | None,
        if_pc: int | None,
    ) -> None:
        _say(session, verb, _which_of(what, status, filter_, yes), key=key, if_pc=if_pc)

    return command


cancel = _plain("cancel", "Cancel: undos and Finally run, then it is Cancelled. A second cancel does nothing.", "Paused")
kill = _plain("kill", "End at once, without cleanup.", "Paused")
pause = _plain("pause", "Stop what would begin; what runs may finish.", "Running")
resume = _plain("resume", "Lift a pause. It retries nothing.", "Paused")


@_command("retry", "Try parked threads again. With --thread also one in backoff, now.", "Paused")
@_which
@_thread
@_once
@changing
@with_session
def retry(
    session: Session,
    *,
    what: str,
    status: str | None,
    filter_: str | None,
    yes: bool,
    thread: str | None,
    key: str | None,
    if_pc: int | None,
) -> None:
    """Try again what an operator has looked at."""
    _say(session, "retry", _which_of(what, status, filter_, yes), thread=thread, key=key, if_pc=if_pc)


@_command("skip", "Go on behind the statement a thread is parked at, or in backoff.", "Paused")
@_which
@_thread
@click.option("--value", callback=json_text, metavar="JSON", help="The step's result, or the condition's value.")
@_once
@changing
@with_session
def skip(
    session: Session,
    *,
    what: str,
    status: str | None,
    filter_: str | None,
    yes: bool,
    thread: str | None,
    value: bytes | None,
    key: str | None,
    if_pc: int | None,
) -> None:
    """Go on behind a statement."""
    _say(session, "skip", _which_of(what, status, filter_, yes), thread=thread, value=value, key=key, if_pc=if_pc)


@_command("delete", "Delete what has ended, with its history.", "Finished")
@_which
@changing
@with_session
def delete(session: Session, *, what: str, status: str | None, filter_: str | None, yes: bool) -> None:
    """Delete ended instances."""
    which = _which_of(what, status, filter_, yes)

    def act(access: Access, workflow: str, id_: str) -> bool:
        access.delete(workflow, id_)
        return True

    if which.id is None:
        _to_many(session, "delete", which, act, code=False)
        return
    with session.access(code=False) as access:
        access.delete(which.workflow, which.id)
    session.output.data({"deleted": what}, f"{what} deleted")
