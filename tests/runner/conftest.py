"""What the tests of the runner share: stores, gates, Runners that are closed in the end."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any, TypeAlias

import pytest

from asyncflow import Workflow
from runner import Handle, Runner
from tests.runner.clocks import Clock
from tests.runner.gates import PATIENCE, Gate

Open: TypeAlias = Callable[..., Runner]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened() -> Iterator[Open]:
    """Open Runners that are closed, the last first, when the test is over."""
    with ExitStack() as stack:

        def open_runner(*workflows: type[Workflow], store: str = "memory://", **arguments: Any) -> Runner:
            runner = Runner(workflows, store=store, **arguments)
            stack.callback(runner.close)
            return runner

        yield open_runner


@pytest.fixture
def working(opened: Open) -> Open:
    """As `opened`, with workers."""

    def begin(*workflows: type[Workflow], store: str = "memory://", **arguments: Any) -> Runner:
        return opened(*workflows, store=store, **arguments).__enter__()

    return begin


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> Iterator[Gate]:
    """The gate of this test's module, `GATE`, which its actions stand at; open from the end of the test on."""
    gate = request.module.GATE = Gate()
    yield gate
    gate.open()


def wait_for(runner: Runner, handle: Handle[Any], fits: Callable[[], bool]) -> None:
    """Wait until what is stored of an instance fits, looking after every save of this process."""
    saved = Event()
    runner.bell.listen(handle._key, saved.set)
    deadline = time.monotonic() + PATIENCE
    try:
        while not fits():
            assert saved.wait(deadline - time.monotonic()), f"{handle}: {handle.status}, {handle.threads}"
            saved.clear()
    finally:
        runner.bell.leave(handle._key, saved.set)
