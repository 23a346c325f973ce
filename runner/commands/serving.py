"""`dev`, `serve`, `worker`: the commands that run until they are told to stop."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from asyncflow import Status, limits
from asyncflow.errors import Malformed
from runner.commands.loglines import set_up_logging
from runner.commands.session import Command, Session, options, with_session
from runner.schedulers import delivers
from runner.settings import shown_url
from runner.showing import unfit_of
from runner.target import folders_of

LOG: Final = logging.getLogger("asyncflow")
NAMES_LOGGED: Final = 10
"""Of instances that do not fit: a line of a log is to stay one that is read."""

_app = options(
    click.argument("target", required=False),
    click.option("--app", metavar="TARGET", help="The same as TARGET."),
)
_work = options(
    click.option("--store", metavar="URL", help="The store, as sqlite:///asyncflow.db."),
    click.option("--concurrency", metavar="NUMBER", help="How many attempts run at once."),
    click.option("--retention", metavar="DURATION", help="How long ended instances stay, as 30d; or PizzaOrder=7d,…"),
    click.option("--history", metavar="DURATION", help="true, false, or how long that of ended instances is kept."),
    click.option("--lease", metavar="DURATION", help="How long a step's lease holds without a renewal."),
    click.option("--scheduler", metavar="URL", help="What wakes instances: local, or cloudtasks://PROJECT/LOCATION/QUEUE."),
    click.option("--base-url", metavar="URL", help="Where such a queue reaches this app, as https://shop.example.com."),
    click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error."),
    click.option("--json", "as_json", is_flag=True, help="Log JSON lines on a terminal too, and report errors as JSON."),
)
_address = options(
    click.option("--host", metavar="HOST", help="Where to listen, 127.0.0.1 unless said otherwise."),
    click.option("--port", metavar="PORT", help="Where to listen, 8080 unless said otherwise; 0: any free port."),
    click.option("--insecure", is_flag=True, help="Listen elsewhere than on loopback, though everybody may do everything."),
)


@click.command("dev", cls=Command, examples=("asyncflow dev pizza.py", "asyncflow dev shop.workflows:PizzaOrder --port 9000"))
@_app
@_address
@_work
@click.option("--reload/--no-reload", default=True, show_default=True, help="Start anew when a source has changed.")
@with_session
def dev(session: Session, *, target: str | None, insecure: bool, reload: bool) -> None:
    """Serve TARGET while you write it, with reload.

    App and workers on SQLite, started anew after each change of a source. TARGET is a module, module:Class or a file.
    After each action of a `then` step it is looked whether it has changed
    its copy of the state, as in simulate.
    """
    if not reload:
        _serve(session, target, insecure=insecure, worker=True, watch_copies=True)
        return
    from runner.commands.reloading import Reloader, child_command  # noqa: PLC0415 - only what is asked for

    configuration = session.configuration
    wanted = target or configuration.settings.app
    if wanted is None:
        raise Malformed("expected a TARGET: a module, module:Class or a file with workflows, as `asyncflow dev pizza.py`")
    flags = [*(["--insecure"] if insecure else []), *(["--json"] if session.output.as_json else [])]
    command = child_command(["dev", wanted, "--no-reload", *session.flags_as_given(), *flags])
    folders = folders_of(wanted, configuration.folders)
    session.output.note(f"watching {', '.join(map(str, folders))}")
    Reloader(command, folders, session.output.note).run()


@click.command("serve", cls=Command, examples=("asyncflow serve --app shop.workflows --port 8000",))
@_app
@_address
@_work
@click.option("--no-worker", is_flag=True, help="Only the app: steps are left to `asyncflow worker`.")
@with_session
def serve(session: Session, *, target: str | None, insecure: bool, no_worker: bool) -> None:
    """Serve the workflows over HTTP and run their steps.

    With a scheduler that delivers wake-ups over HTTP, as cloudtasks://, steps run in its requests, without workers.

    Logs one JSON object a line to stderr (plain lines on a terminal). SIGTERM and Ctrl-C let running steps end.
    """
    _serve(session, target, insecure=insecure, worker=not no_worker)


@click.command("worker", cls=Command, examples=("asyncflow worker --app shop.workflows --concurrency 16",))
@_app
@_work
@with_session
def worker(session: Session, *, target: str | None) -> None:
    """Run the steps of the workflows, serve nothing.

    Several workers, on SQLite of one host, may share a store. SIGTERM and Ctrl-C let running steps end; a second
    Ctrl-C ends at once.
    """
    settings = session.configuration.settings
    if delivers(settings.scheduler):
        raise Malformed(
            f"a worker has nothing to do with the scheduler {settings.scheduler}, which brings its wake-ups to the app: "
            "run `asyncflow serve`"
        )
    with _runner(session, target) as runner, _told_to_stop() as stop, runner:
        _log_start("working", session, runner)
        stop.wait()
        LOG.info("draining: running steps may end")
    LOG.info("stopped")


def _serve(session: Session, target: str | None, *, insecure: bool, worker: bool, watch_copies: bool = False) -> None:
    with _runner(session, target, watch_copies=watch_copies) as runner:
        from runner.http.server import serve as serve_http  # noqa: PLC0415 - only what is asked for

        def ready(url: str) -> None:
            _log_start("serving", session, runner)
            if watch_copies:  # whoever runs `dev` looks on
                first = next(iter(runner.definitions))
                session.output.note(f"try: asyncflow start {first} --url {url}")

        settings = session.configuration.settings
        serve_http(
            runner,
            host=settings.host,
            port=settings.port,
            insecure=insecure,
            worker=worker,
            ready=ready,
        )
    LOG.info("stopped")


@contextmanager
def _runner(session: Session, target: str | None, *, watch_copies: bool = False) -> Iterator[Any]:
    from runner.runner import Runner  # noqa: PLC0415 - dear to import

    settings = session.configuration.settings
    set_up_logging(settings.log_level, as_json=session.output.as_json)
    runner = Runner(session.workflows(target), **settings.runner_arguments(), watch_copies=watch_copies)
    try:
        yield runner
    finally:
        runner.close()


def _log_start(what: str, session: Session, runner: Any) -> None:
    settings = session.configuration.settings
    LOG.info(
        what,
        extra={
            "workflows": ", ".join(runner.definitions),
            "store": shown_url(settings.store),
            "scheduler": settings.scheduler,
            "concurrency": settings.concurrency,
            "pid": os.getpid(),
        },
    )
    _log_unfit(runner)


def _log_unfit(runner: Any) -> None:
    """Say which instances this code may not be able to run, as far as that is known without reading them all."""
    if runner.store.remote:
        return
    unfit = unfit_of(runner.store, runner.definitions)
    if unfit:
        names = sorted(f"{key.workflow}/{key.id}" for key in unfit)
        text = "%d instances did not fit the code that looked at them last; those that this code knows go on now: %s%s"
        LOG.warning(text, len(names), ", ".join(names[:NAMES_LOGGED]), " …" if len(names) > NAMES_LOGGED else "")
    others: set[str] = set()
    for status in (Status.Running, Status.Paused):
        page = runner.store.list(None, status=status, page_size=limits.PAGE_SIZE)
        others |= {one.workflow for one in page.items} - runner.definitions.keys()
    if others:
        LOG.info("the store has instances of workflows that are not in this code, so not run here: %s", ", ".join(sorted(others)))


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """Give an event that SIGTERM and SIGINT set; the second one ends the process at once."""
    stop = threading.Event()

    def told(number: int, frame: object) -> None:  # noqa: ARG001
        if stop.is_set():
            os._exit(128 + number)  # its leases lapse with its lock
        stop.set()

    before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
