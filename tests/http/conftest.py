"""An app over a store of its own, and a client that speaks JSON."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic_core import to_json
from werkzeug.test import TestResponse

from runner import Runner
from tests.http import shop
from tests.runner.gates import Gate

PROBLEM = "application/problem+json"


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


class Browserless:
    """Asks an app, as a program does; every problem that comes back is looked at."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client

    def ask(
        self,
        method: str,
        path: str,
        body: Any = ...,
        *,
        raw: bytes | None = None,
        status: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> TestResponse:
        data = raw if raw is not None else None if body is ... else to_json(body)
        kind = {} if data is None else {"Content-Type": "application/json"}
        response = self.client.open(path, method=method, data=data, headers={**kind, **(headers or {})})
        said = f"{method} {path}: {response.status_code} {response.text[:500]}"
        assert status is None or response.status_code == status, said
        if response.status_code >= 400:
            problem = response.get_json(force=True)
            assert response.mimetype == PROBLEM, said
            assert {"type", "title", "status", "detail"} <= problem.keys(), said
            assert problem["status"] == response.status_code, said
            assert all(problem[name] for name in ("type", "title", "detail")), said
        return response

    def get(self, path: str, status: int | None = 200, **options: Any) -> TestResponse:
        return self.ask("GET", path, status=status, **options)

    def post(self, path: str, body: Any = ..., status: int | None = 200, **options: Any) -> TestResponse:
        return self.ask("POST", path, body, status=status, **options)

    def start(self, workflow: str, id: str, body: Any = ...) -> str:
        """Start an instance and give its path."""
        return self.post(f"/workflows/{workflow}?id={id}", body, 201).headers["Location"]

    def problem(self, method: str, path: str, body: Any = ..., *, status: int, **options: Any) -> dict[str, Any]:
        """The problem a request is refused with, and the class it names."""
        problem: dict[str, Any] = self.ask(method, path, body, status=status, **options).get_json(force=True)
        return {**problem, "class": problem["type"].rpartition(":")[2]}


@pytest.fixture
def client(app: Flask) -> Browserless:
    return Browserless(app.test_client())
