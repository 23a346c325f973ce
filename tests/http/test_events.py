"""Events: the handler's value bare, refusals as problems, keys, preconditions, and bodies that are none."""

import math
import time
from typing import Any

import pytest
from werkzeug.test import EnvironBuilder, TestResponse
from werkzeug.wrappers import Request

from asyncflow import limits
from runner import Runner
from tests.http.asking import Asker
from tests.http.test_json_text import HOSTILE

BODY_MAX = limits.BODY_BYTES


@pytest.fixture
def path(client: Asker) -> str:
    return client.start("Basket", "b-1")


def test_the_answer_is_the_handlers_value_bare(client: Asker, path: str) -> None:
    answer = client.post(f"{path}/events/put", {"name": "tea"}, headers={"X-Asyncflow-Caller": "ann"})
    assert answer.get_json() == [{"name": "tea", "count": 1}]
    assert "Asyncflow-Answer" not in answer.headers
    assert client.post(f"{path}/events/clear").data == b"null"
    assert client.post(f"{path}/events/clear", None).data == b"null"
    assert client.get(path).get_json()["state"]["callers"] == ["ann"]


@pytest.mark.parametrize(
    "body, at",
    [
        ({}, ""),
        (None, ""),
        (..., ""),
        ([], ""),
        ("tea", ""),
        ({"name": 1}, "name"),
        ({"name": "tea", "count": 0}, "count"),
        ({"name": "tea", "count": "many"}, "count"),
        ({"name": "tea", "count": True}, "count"),
    ],
)
def test_a_wrong_input_is_422_and_says_where(client: Asker, path: str, body: Any, at: str) -> None:
    before = client.get(path).get_json()
    problem = client.problem("POST", f"{path}/events/put", body, status=422)
    assert problem["class"] == "InvalidInput"
    assert at in [one["path"] for one in problem["errors"]]
    assert client.get(path).get_json() == before


def test_an_event_without_input_takes_none(client: Asker, path: str) -> None:
    assert client.problem("POST", f"{path}/events/clear", {"a": 1}, status=422)["class"] == "InvalidInput"


def test_an_unknown_event_is_404(client: Asker, path: str) -> None:
    problem = client.problem("POST", f"{path}/events/steal", {"name": "tea"}, status=404)
    assert problem["class"] == "NotFound"
    assert "put" in problem["detail"]


def test_an_event_that_nobody_awaits_is_409_and_says_what_is(client: Asker) -> None:
    path = client.start("Form", "f", {"name": "ann", "age": 30})
    client.post(f"{path}/events/sign")
    assert client.problem("POST", f"{path}/events/sign", status=410)["class"] == "Ended"
    path = client.start("Prize", "p")
    problem = client.problem("POST", f"{path}/events/never", status=409)
    assert problem["class"] == "NotAwaited"
    assert problem["awaits"] == client.get(path).get_json()["awaits"]
    assert problem["awaits"][0]["link"] == f"{path}/events/claim"
    other = client.problem("POST", f"{path}/events/claim?thread=other", 1, status=409)
    assert other["class"] == "NotAwaited"


def test_the_workflow_may_refuse_with_a_code_of_its_own(client: Asker, path: str) -> None:
    problem = client.problem("POST", f"{path}/events/refuse", 418, status=418)
    assert (problem["class"], problem["detail"]) == ("Rejected", "not like this")
    assert problem["details"] == {"hint": "ask nicely"}
    assert client.problem("POST", f"{path}/events/end_badly", status=451)["class"] == "TerminalError"
    assert client.get(path).get_json()["status"] == "Running", "an event puts no error into the tree"


@pytest.mark.parametrize("code", [0, 99, 200, 302, 399, 600, 1000, -1])
def test_a_code_that_is_no_refusal_is_not_sent_as_a_status(client: Asker, path: str, code: int) -> None:
    assert client.problem("POST", f"{path}/events/refuse", code, status=409)["class"] == "Rejected"


def test_a_handler_that_fails_tells_no_secrets(client: Asker, path: str, caplog: pytest.LogCaptureFixture) -> None:
    client.post(f"{path}/events/put", {"name": "tea"})
    problem = client.problem("POST", f"{path}/events/stumble", status=500)
    assert problem["class"] == "HandlerFailed"
    assert "4711" not in str(problem)
    assert "4711" in caplog.text
    assert len(client.get(path).get_json()["state"]["items"]) == 1


def test_an_ended_instance_is_410(client: Asker, path: str) -> None:
    client.post(f"{path}/events/close")
    for event in ("put", "close"):
        body = {"name": "tea"} if event == "put" else ...
        assert client.problem("POST", f"{path}/events/{event}", body, status=410)["class"] == "Ended"


# -- keys --------------------------------------------------------------------------------------------------------------


def test_the_same_key_gives_the_same_answer_once(client: Asker, path: str) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = client.post(f"{path}/events/put", {"name": "tea", "count": 2}, headers=key)
    again = client.ask("POST", f"{path}/events/put", raw=b'{ "count": 2, "name": "tea" }', status=200, headers=key)
    assert again.get_json() == first.get_json()
    assert len(client.get(path).get_json()["state"]["items"]) == 1
    for event, body in (("put", {"name": "milk"}), ("pay", "1"), ("clear", ...)):
        assert client.problem("POST", f"{path}/events/{event}", body, status=422, headers=key)["class"] == "KeyReused"
    other = client.problem("POST", f"{path}/events/put?thread=main", {"name": "tea", "count": 2}, status=422, headers=key)
    assert other["class"] == "KeyReused", "the thread belongs to what a key was used for"
    client.post(f"{path}/events/close")
    assert client.post(f"{path}/events/put", {"name": "tea", "count": 2}, headers=key).get_json() == first.get_json()


def test_a_refused_event_may_be_tried_again_with_its_key(client: Asker, path: str) -> None:
    key = {"Idempotency-Key": "k-1"}
    client.problem("POST", f"{path}/events/refuse", 418, status=418, headers=key)
    client.problem("POST", f"{path}/events/refuse", 419, status=419, headers=key)


def test_an_answer_that_is_gone_is_said_to_be(client: Asker, path: str) -> None:
    key = {"Idempotency-Key": "k-1"}
    size = limits.ANSWER_BYTES + 1
    assert client.post(f"{path}/events/big", size, headers=key).get_json() == "x" * size
    again = client.post(f"{path}/events/big", size, headers=key)
    assert again.headers["Asyncflow-Answer"] == "dropped"
    assert again.data == b"null"


def test_a_refusal_whose_reason_is_gone_is_said_to_be(client: Asker, path: str, runner: Runner) -> None:
    """It lay, so it is kept; what is newer takes its place, and its status is all that is left."""
    client.post(f"{path}:pause", {})
    key = {"Idempotency-Key": "k-1", "Prefer": "wait=0"}
    client.post(f"{path}/events/refuse", 418, 202, headers=key)
    client.post(f"{path}:resume", {})
    assert client.problem("POST", f"{path}/events/refuse", 418, status=418, headers=key)["class"] == "Rejected"
    for number in range(3):
        client.post(f"{path}/events/big", 30_000, headers={"Idempotency-Key": f"big-{number}"})
    assert client.problem("POST", f"{path}/events/refuse", 418, status=410, headers=key)["class"] == "AnswerDropped"


def test_a_thread_that_can_be_none_is_422(client: Asker, path: str) -> None:
    client.problem("POST", f"{path}/events/clear?thread={'x' * 2_001}", status=422)


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256, "a\tb"])
def test_what_can_be_no_key_is_400(client: Asker, path: str, key: str) -> None:
    headers = {"Idempotency-Key": key}
    assert client.problem("POST", f"{path}/events/clear", status=400, headers=headers)["class"] == "Malformed"
    assert client.problem("POST", "/workflows/Basket", status=400, headers=headers)["class"] == "Malformed"


def test_a_caller_whose_name_cannot_be_kept_is_400(client: Asker, path: str) -> None:
    for name in ("", "x" * 257, "a\x7fb"):
        headers = {"X-Asyncflow-Caller": name}
        assert client.problem("POST", f"{path}/events/clear", status=400, headers=headers)["class"] == "Malformed"


# -- preconditions -----------------------------------------------------------------------------------------------------


def test_a_stale_if_match_is_412_and_changes_nothing(client: Asker, path: str) -> None:
    tag = client.get(path).headers["ETag"]
    client.post(f"{path}/events/put", {"name": "tea"}, headers={"If-Match": tag})
    problem = client.problem("POST", f"{path}/events/put", {"name": "milk"}, status=412, headers={"If-Match": tag})
    assert problem["class"] == "PreconditionFailed"
    assert len(client.get(path).get_json()["state"]["items"]) == 1
    client.post(f"{path}/events/put", {"name": "milk"}, headers={"If-Match": "*"})


def test_a_repeat_with_its_key_is_not_stale(client: Asker, path: str) -> None:
    headers = {"If-Match": client.get(path).headers["ETag"], "Idempotency-Key": "k-1"}
    first = client.post(f"{path}/events/put", {"name": "tea"}, headers=headers)
    assert client.post(f"{path}/events/put", {"name": "tea"}, headers=headers).get_json() == first.get_json()


@pytest.mark.parametrize("tag", ['"x"', '"-1"', "1", '"', '""', 'W/"1"', '"99999999999999999"', '"\u0661"'])
def test_a_tag_that_no_instance_has_is_412(client: Asker, path: str, tag: str) -> None:
    client.problem("POST", f"{path}/events/clear", status=412, headers={"If-Match": tag})


def test_several_tags_are_400(client: Asker, path: str) -> None:
    client.problem("POST", f"{path}/events/clear", status=400, headers={"If-Match": '"1", "2"'})


# -- hostile bodies ----------------------------------------------------------------------------------------------------


def test_a_body_that_is_no_json_is_415(client: Asker, path: str) -> None:
    before = client.get(path).get_json()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json+x", ""):
        raw = {"raw": b'{"name": "tea"}', "headers": {"Content-Type": kind}}
        assert client.problem("POST", f"{path}/events/put", status=415, **raw)["type"] == "about:blank"
        client.problem("POST", "/workflows/Basket", status=415, **raw)
        client.problem("POST", f"{path}:pause", status=415, **raw)
    for kind in ("application/json; charset=latin-1", "application/json; charset=utf-16"):
        client.problem("POST", f"{path}/events/put", raw=b'{"name": "tea"}', status=415, headers={"Content-Type": kind})
    packed = {"Content-Encoding": "gzip"}
    client.problem("POST", f"{path}/events/put", raw=b'{"name": "tea"}', status=415, headers=packed)
    assert client.get(path).get_json() == before
    for kind in ("application/json; charset=utf-8", "Application/JSON"):
        client.ask("POST", f"{path}/events/put", raw=b'{"name": "tea"}', status=200, headers={"Content-Type": kind})


def test_a_large_body_is_413_and_not_read(client: Asker, path: str) -> None:
    class Body:
        taken = 0

        def read(self, size: int = -1) -> bytes:
            self.taken += max(size, 0)
            return b"x" * max(size, 0)

    def send(body: Body, **said: object) -> TestResponse:
        environ = EnvironBuilder(f"{path}/events/put", method="POST", content_type="application/json").get_environ()
        environ.pop("CONTENT_LENGTH", None)
        return client.client.open(Request({**environ, "wsgi.input": body, **said}))

    told, streamed = Body(), Body()
    for response in (send(told, CONTENT_LENGTH=str(10**9)), send(streamed, **{"wsgi.input_terminated": True})):
        assert response.status_code == 413
        assert response.get_json(force=True)["type"] == "urn:asyncflow:error:TooLarge"
    assert told.taken == 0
    assert streamed.taken <= 4 * BODY_MAX


def test_a_body_of_the_limit_is_taken(client: Asker, path: str) -> None:
    raw = b'{"name": "' + b"x" * (BODY_MAX - 12) + b'"}'
    assert len(raw) == BODY_MAX
    client.ask("POST", f"{path}/events/put", raw=raw, status=200)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_json_changes_nothing(client: Asker, path: str, name: str) -> None:
    raw = HOSTILE[name]
    if not raw:
        return
    before = client.get(path).get_json()
    problem = client.problem("POST", f"{path}/events/put", raw=raw, status=413 if len(raw) > BODY_MAX else 400)
    assert problem["class"] == ("TooLarge" if len(raw) > BODY_MAX else "Malformed")
    client.problem("POST", "/workflows/Form", raw=raw, status=problem["status"])
    client.problem("POST", f"{path}:skip", raw=raw, status=problem["status"])
    assert client.get(path).get_json() == before


WRONG = {
    "objects": b"[" + b"{}," * (BODY_MAX // 3 - 2) + b"{}]",
    "arrays": b"[" + b"[]," * (BODY_MAX // 3 - 2) + b"[]]",
    "numbers": b"[" + b"1," * (BODY_MAX // 2 - 2) + b"1]",
    "a long string": b'"' + b"x" * (BODY_MAX - 2) + b'"',
    "many keys": b"{" + b",".join(b'"%d":1' % n for n in range(20_000)) + b"}",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_json_but_wrong_is_refused_quickly_and_briefly(client: Asker, path: str, name: str) -> None:
    """A schema that finds a fault in every byte must not say so for every byte."""
    best = math.inf
    for event, status in (("put", 422), ("pay", 422)):
        for _ in range(2):
            began = time.thread_time()
            response = client.ask("POST", f"{path}/events/{event}", raw=WRONG[name], status=status)
            best = min(best, time.thread_time() - began)
            assert len(response.data) < 32 * limits.KIB
    assert best < 1.0  # seconds; each fault told would be several


def test_what_a_document_cannot_take_is_429(client: Asker, runner: Runner) -> None:
    path = client.start("Basket", "b-2")
    raw = b'{"name": "' + b"x" * (200 * limits.KIB) + b'"}'
    statuses = [client.ask("POST", f"{path}/events/put", raw=raw).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    refused = client.ask("POST", f"{path}/events/put", raw=raw, status=429)
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.get_json(force=True)["type"] == "urn:asyncflow:error:Full"
