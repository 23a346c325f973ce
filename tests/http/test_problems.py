"""One table of errors: every class of ours has a row, and every row is told as it says."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.exceptions import default_exceptions

from asyncflow import errors
from asyncflow.errors import (
    AsyncflowError,
    Awaited,
    Failure,
    InvalidInput,
    InvalidState,
    NotAwaited,
    Pending,
    Rejected,
    TerminalError,
)
from runner.client import error_of
from runner.http.problems import OWN, TABLE, TYPE, problem_of
from tests.docs.generated import error_classes
from tests.http.asking import Asker

INTERFACES = Path(__file__).parents[3] / "shared" / "INTERFACES.md"
SAID_BY_WORKFLOW = {Rejected, TerminalError}


def made(cls: type[BaseException]) -> BaseException:
    """An error of *cls* with all it can have."""
    if cls is errors.Cancelled:
        return cls("why")
    if cls is InvalidInput:
        return InvalidInput("why", errors=[{"path": "a/0", "message": "no"}])
    if cls is NotAwaited:
        awaited = Awaited.model_validate({"event": "go", "thread": "main", "role": ["clerk"], "schema": None})
        return NotAwaited("why", awaits=[awaited], details={"a": [1, None]})
    assert issubclass(cls, AsyncflowError)
    return cls("why", details={"a": [1, None]})


def below(cls: type[BaseException]) -> Iterator[type[BaseException]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from below(sub)


def test_every_class_has_a_row() -> None:
    """Nothing falls back to the root: a new class must say what it is over HTTP. `Pending` is none: it is a 202."""
    ours = {cls for cls in {*below(AsyncflowError), *error_classes()} if cls.__module__.partition(".")[0] == "asyncflow"}
    assert len(ours) > 20
    by_itself = {Pending, errors.Uncertain, errors.Failure}
    assert ours - by_itself <= TABLE.keys()
    assert {cls for cls in TABLE if not issubclass(cls, AsyncflowError)} == {errors.Cancelled}


@pytest.mark.parametrize("cls", TABLE, ids=lambda cls: cls.__name__)
def test_every_row_is_told_as_it_says(cls: type[BaseException]) -> None:
    status, title = TABLE[cls]
    if status == OWN:
        status = vars(cls).get("code", 500)
    else:
        assert getattr(cls, "code", None) == status, "the code of a class and its row say the same"
    app = Flask(__name__)

    @app.get("/")
    def fail() -> Any:
        return problem_of(made(cls), "/workflows/W/i")

    problem = Asker(app.test_client()).ask("GET", "/", status=status).get_json(force=True)
    told = {name: problem.pop(name) for name in ("type", "title", "status", "detail")}
    assert told == {"type": TYPE + cls.__name__, "title": title, "status": status, "detail": "why"}
    if cls is InvalidInput:
        assert problem == {"errors": [{"path": "a/0", "message": "no"}]}
    elif cls is NotAwaited:
        link = {"event": "go", "thread": "main", "role": ["clerk"], "schema": None, "link": "/workflows/W/i/events/go"}
        assert problem == {"details": {"a": [1, None]}, "awaits": [link]}
    elif cls is errors.Cancelled:
        assert problem == {}
    else:
        assert problem == {"details": {"a": [1, None]}}
    retry = problem_of(made(cls)).headers.get("Retry-After")
    assert (retry is not None) == (status in (429, 503))


@pytest.mark.parametrize("cls", [cls for cls in TABLE if issubclass(cls, AsyncflowError)], ids=lambda cls: cls.__name__)
def test_a_client_makes_the_same_error_of_it(cls: type[AsyncflowError]) -> None:
    error = made(cls)
    assert isinstance(error, AsyncflowError)
    response = problem_of(error)
    again = error_of(response.status_code, response.get_json(force=True) if response.is_json else {})
    assert type(again) is cls
    assert (again.message, again.code) == (error.message, error.code)
    assert again.details == error.details


def test_a_class_of_the_users_own_is_told_as_what_it_is_made_from() -> None:
    class SoldOut(Rejected):
        code = 410

    class Broke(TerminalError):
        """No money."""

    assert (problem_of(SoldOut("no")).status_code, problem_of(SoldOut("no", code=402)).status_code) == (410, 402)
    assert problem_of(Broke("no")).get_json(force=True)["type"] == f"{TYPE}TerminalError"
    assert problem_of(SoldOut("no", code=200)).status_code == 410


@pytest.mark.parametrize("code", sorted(default_exceptions))
def test_what_the_router_says_is_told_alike(code: int) -> None:
    app = Flask(__name__)

    @app.get("/")
    def fail() -> Any:
        return problem_of(default_exceptions[code]("why"))

    problem = Asker(app.test_client()).ask("GET", "/", status=code).get_json(force=True)
    assert problem.keys() == {"type", "title", "status", "detail"}


def test_other_errors_are_told_without_what_they_say(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    @app.get("/broken")
    def broken() -> str:
        raise RuntimeError("the secret is 4711")

    @app.get("/unfit")
    def unfit() -> str:
        raise InvalidState("size: not a list")

    client = Asker(app.test_client())
    problem = client.problem("GET", "/broken", status=500)
    assert (problem["type"], "4711" in str(problem), "4711" in caplog.text) == ("about:blank", False, True)
    assert client.problem("GET", "/unfit", status=500)["class"] == "InvalidState"


def test_the_log_names_the_instance_of_a_handler_that_failed(client: Asker, caplog: pytest.LogCaptureFixture) -> None:
    path = client.start("Basket", "b-1")
    problem = client.problem("POST", f"{path}/events/stumble", status=500)
    assert problem["detail"] == "the handler of the event 'stumble' of Basket/b-1 failed; nothing has changed"
    record = next(one for one in caplog.records if one.getMessage() == problem["detail"])
    assert record.__dict__["instance"] == "Basket/b-1"
    assert "4711" in caplog.text


def test_a_failure_is_no_error_of_a_request() -> None:
    assert not issubclass(Failure, BaseException)


@pytest.mark.skipif(not INTERFACES.exists(), reason="the contract does not come with the package")
def test_the_table_is_that_of_the_contract() -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]+) \|", INTERFACES.read_text("utf-8"), re.MULTILINE)
    checked = 0
    for names, codes in rows:
        numbers = [int(code) for code in re.findall(r"\d{3}", codes)] or [OWN]
        for position, name in enumerate(re.findall(r"\w+", names)):
            cls = getattr(errors, name, None)
            if cls is not None:
                assert TABLE[cls][0] == numbers[min(position, len(numbers) - 1)], name
                checked += 1
    assert checked >= 17
