"""An app over a store of its own, and a client that speaks JSON."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest
from flask import Flask

from runner import Runner
from tests.http import shop
from tests.http.asking import Asker
from tests.runner.gates import Gate


class Open(Protocol):
    """Opens a Runner of the shop that is closed when the test is over."""

    def __call__(self, store: str = ..., *, work: bool = ..., **arguments: Any) -> Runner: ...


@pytest.fixture
def open_runner() -> Iterator[Open]:
    with ExitStack() as stack:

        def opened(store: str = "memory://", *, work: bool = False, **arguments: Any) -> Runner:
            runner = Runner(shop.WORKFLOWS, store=store, **arguments)
            stack.callback(runner.close)
            return runner.__enter__() if work else runner

        yield opened


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Where the steps of `Oven` stand in this test."""
    gate = Gate()
    monkeypatch.setattr(shop, "GATE", gate)
    yield gate
    gate.open()


@pytest.fixture
def runner(open_runner: Open) -> Runner:
    """Without workers: no step runs."""
    return open_runner()


@pytest.fixture
def app(runner: Runner) -> Flask:
    return runner.create_app()


@pytest.fixture
def client(app: Flask) -> Asker:
    return Asker(app.test_client())
