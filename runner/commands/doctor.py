"""`doctor`: whether the configuration works and work gets done, for people and for probes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

import click
from rich.text import Text

from asyncflow.definition import Definition
from asyncflow.errors import Malformed
from runner.commands.output import REFUSED, json_block, table, visible
from runner.commands.session import Command, Session, options, with_session
from runner.doctor import Finding, examine
from runner.runner import Runner
from runner.settings import shown_url

_STYLES: Final = {"ok": "green", "look": "yellow", "wrong": "red"}
_FIRESTORE: Final = "firestore://"

_what = options(
    click.option("--store", metavar="URL", help="The store, as sqlite:///asyncflow.db."),
    click.option("--app", metavar="TARGET", help="Where the workflows are: a module, module:Class or a file."),
    click.option("--scheduler", metavar="URL", help="What wakes instances: local, or cloudtasks://PROJECT/LOCATION/QUEUE."),
    click.option("--base-url", metavar="URL", help="Where such a queue reaches this app."),
    click.option("--json", "as_json", is_flag=True, help="Print JSON."),
)


@click.command("doctor", cls=Command, examples=("asyncflow doctor", "asyncflow doctor --indexes > firestore.indexes.json"))
@_what
@click.option("--strict", is_flag=True, help="Exit with 1 also where somebody should look at something.")
@click.option("--indexes", is_flag=True, help="Print firestore.indexes.json for these workflows, and look at nothing.")
@with_session
@click.pass_context
def doctor(ctx: click.Context, session: Session, *, strict: bool, indexes: bool) -> None:
    """Look whether this configuration works.

    The store answers and takes writes, its indexes are there, clocks agree, time-outs are in order, the queue takes
    tasks, nothing has been due for long, nobody waits for an operator. Exit code 0: all is well; 1: something is wrong;
    2: settings or code cannot work; 5: the store cannot be opened.
    """
    settings = session.configuration.settings
    if indexes:
        _print_indexes(session)
        return
    runner = Runner(session.workflows(), **settings.runner_arguments())
    try:
        found = list(examine(runner))
    finally:
        runner.close()
    rows = [(Text(visible(one.verdict), _STYLES[one.verdict]), one.check, one.text) for one in found]
    whole = {"store": shown_url(settings.store), "scheduler": settings.scheduler, "findings": [asdict(one) for one in found]}
    session.output.data(whole, table(["", "check", "found"], rows))
    if any(_bad(one, strict=strict) for one in found):
        ctx.exit(REFUSED)


def _bad(finding: Finding, *, strict: bool) -> bool:
    return finding.verdict == "wrong" or (strict and finding.verdict == "look")


def _print_indexes(session: Session) -> None:
    from runner.stores.firestore_indexes import firestore_indexes  # noqa: PLC0415 - only what is asked for
    from runner.stores.firestore_url import parse_url  # noqa: PLC0415 - as above

    store = session.configuration.settings.store
    if not store.startswith(_FIRESTORE):
        raise Malformed(f"only a store firestore://PROJECT/COLLECTION needs indexes, found {shown_url(store)}: name it by --store")
    definitions = [Definition.of(one) for one in session.workflows()]
    click.echo(json_block(firestore_indexes(definitions, parse_url(store.removeprefix(_FIRESTORE)).collection)))
