"""Errors and how they are stored (`Failure`): what an exception holds never breaks a document."""

import copy
import json
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest

import asyncflow
from asyncflow import (
    AsyncflowError,
    Cancelled,
    DefinitionError,
    Failure,
    InvalidInput,
    NotAwaited,
    Pending,
    Problem,
    Rejected,
    TerminalError,
    WorkflowFailed,
    limits,
)

NOW = datetime(2024, 5, 1, tzinfo=UTC)


def stored(error: BaseException) -> Failure:
    return Failure.of(error, path="a/b", attempt=2, at=NOW)


class Coded(Exception):
    def __init__(self, code: object) -> None:
        super().__init__("coded")
        self.code = code


@pytest.mark.parametrize(
    "code, kept", [(404, 404), (100, 100), (599, 599), (99, 500), (600, 500), (True, 500), ("404", 500), (None, 500)]
)
def test_a_code_is_an_http_status_or_500(code: object, kept: int) -> None:
    assert stored(Coded(code)).code == kept


@pytest.mark.parametrize("details", [None, 0, False, "", [], {"a": [1, None]}, 1.5])
def test_details_that_are_json_are_kept_as_they_are(details: Any) -> None:
    assert stored(TerminalError("x", details=details)).details == details


@pytest.mark.parametrize(
    "details",
    [object(), {1: 2}, [float("nan")], {"a": 2**53}, "\0", (1, 2), {"a": b"x"}, "x" * (limits.ERROR_DETAILS_BYTES + 1)],
)
def test_details_that_no_document_keeps_are_left_out(details: Any) -> None:
    assert stored(TerminalError("x", details=details)).details is None


def test_texts_are_cut_and_cleaned() -> None:
    failure = stored(ValueError("\0\ud800" + "ä" * limits.ERROR_TEXT_BYTES))
    assert len(failure.message.encode()) <= limits.ERROR_TEXT_BYTES
    assert failure.message.endswith("ä…")
    json.loads(failure.model_dump_json())


def test_of_a_traceback_the_end_is_kept() -> None:
    def fall(depth: int) -> None:
        if depth == 0:
            raise ValueError("the end of it " + "x" * limits.TRACEBACK_BYTES)
        fall(depth - 1)

    with pytest.raises(ValueError, match="the end of it") as caught:
        fall(5)
    failure = stored(caught.value)
    assert len(failure.traceback.encode()) <= limits.TRACEBACK_BYTES
    assert failure.traceback.startswith("…")
    assert failure.traceback.rstrip().endswith("xxx")


def test_an_exception_that_cannot_be_shown_is_stored_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    assert "Mute" in stored(Mute()).message


def test_an_except_matches_by_qualified_names_of_the_bases() -> None:
    again = Failure.model_validate_json(stored(KeyError("k")).model_dump_json())
    assert again.matches((LookupError,))
    assert again.matches((OSError, KeyError))
    assert not again.matches((IndexError, OSError))
    assert not again.matches(())
    assert stored(Rejected("no")).bases[0] == "asyncflow.Rejected"


def test_a_cancel_is_no_exception() -> None:
    failure = stored(Cancelled())
    assert failure.matches((Cancelled,))
    assert not failure.matches((Exception,))


# -- the classes -------------------------------------------------------------------------------------------------------

CLASSES = [
    one
    for one in vars(asyncflow).values()
    if isinstance(one, type) and issubclass(one, AsyncflowError) and one is not DefinitionError
]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_survives_copying_and_pickling(cls: type[AsyncflowError]) -> None:
    error = cls("what, and what to do", code=418, details={"a": 0})
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(again) is cls
        assert (again.message, again.code, again.details, str(again)) == (
            "what, and what to do",
            418,
            {"a": 0},
            str(error),
        )


def test_a_definition_error_shows_every_problem() -> None:
    problems = [Problem(path="a", message="m", source="f.py:1"), Problem(path="", message="n", source="f.py:2")]
    error = DefinitionError(problems)
    assert error.problems == problems
    assert str(error) == "a: m (f.py:1)\n(definition): n (f.py:2)"
    assert DefinitionError("only words").problems == []


def test_an_invalid_input_says_where() -> None:
    error = InvalidInput("no", errors=[{"path": "a/0", "message": "too small"}])
    assert error.errors == [{"path": "a/0", "message": "too small"}]
    assert error.details == {"errors": error.errors}
    assert InvalidInput("no").errors == []


def test_what_others_need_travels_with_the_error() -> None:
    assert Pending("p", idempotency_key="k").idempotency_key == "k"
    assert NotAwaited("n").awaits == []
    failure = stored(ValueError("why"))
    assert WorkflowFailed(failure).failure == failure
    assert str(WorkflowFailed(failure)) == "ValueError: why"
    assert WorkflowFailed("only words").failure.message == "only words"
