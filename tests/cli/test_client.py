"""The client of a server: what it asks, and what it makes of answers of all sorts."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from asyncflow import AsyncflowError, Malformed, NotAwaited, Pending, Unavailable, errors
from asyncflow.errors import AnswerDropped, InvalidInput
from runner.client import Client, error_of


class Foreign(ThreadingHTTPServer):
    """A server that answers what it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, str, bytes]] = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, status: int, value: Any, kind: str = "application/json", **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.answers.append((status, kind, body))
        self.headers = headers

    headers: dict[str, str] = {}


class _Handler(BaseHTTPRequestHandler):
    server: Foreign

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((self.command, self.path, headers, body))
        status, kind, text = self.server.answers.pop(0)
        if kind == "hang up":
            return
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        for name, value in self.server.headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_DELETE = _any  # noqa: N815 - the names of the standard library

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Foreign]:
    found = Foreign()
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def asked(server: Foreign) -> tuple[str, str, dict[str, str], bytes]:
    return server.asked[-1]


# -- what is asked -----------------------------------------------------------------------------------------------------


def test_a_start_names_id_key_and_caller(server: Foreign) -> None:
    server.answer(201, {"workflow": "W"})
    Client(f"{server.url}/prefix/", caller="ann").start("W", b'{"a": 1.0}', id="w-1", key="k 1")
    method, path, headers, body = asked(server)
    assert (method, path, body) == ("POST", "/prefix/workflows/W?id=w-1", b'{"a": 1.0}')
    assert (headers["idempotency-key"], headers["x-asyncflow-caller"]) == ("k 1", "ann")
    assert headers["content-type"] == "application/json"


def test_without_input_there_is_no_body(server: Foreign) -> None:
    server.answer(201, {"workflow": "W"})
    Client(server.url).start("W", None, id=None, key=None)
    _, path, headers, body = asked(server)
    assert (path, body) == ("/workflows/W", b"")
    assert not {"content-type", "idempotency-key", "x-asyncflow-caller"} & headers.keys()


def test_names_are_quoted(server: Foreign) -> None:
    server.answer(200, None)
    Client(server.url).send("W/x", "w 1", "é?", b"1", thread="calls/c 2", key=None, seconds=1.2)
    _, path, headers, _ = asked(server)
    assert path == "/workflows/W%2Fx/w%201/events/%C3%A9%3F?thread=calls%2Fc+2"
    assert headers["prefer"] == "wait=2"


def test_a_verb_says_thread_value_and_program_counter(server: Foreign) -> None:
    server.answer(202, {"status": "Paused"})
    found, applied = Client(server.url).operate("W", "w-1", "skip", thread="a", value=b"1.50", key="k", if_pc=7)
    method, path, headers, body = asked(server)
    assert (method, path, body) == ("POST", "/workflows/W/w-1:skip", b'{"thread":"a","value":1.50}')
    assert headers["if-match"] == '"7"'
    assert (found, applied) == ({"status": "Paused"}, False)


# -- what is answered --------------------------------------------------------------------------------------------------


def test_an_event_that_lies_is_asked_for_again_with_its_key(server: Foreign) -> None:
    server.answer(202, {"idempotency_key": "k1"})
    server.answer(200, [1])
    assert Client(server.url).send("W", "w", "e", None, thread=None, key=None, seconds=5) == [1]
    assert [headers.get("idempotency-key") for _, _, headers, _ in server.asked] == [None, "k1"]


def test_an_event_that_lies_beyond_all_patience_is_pending(server: Foreign) -> None:
    server.answer(202, {"idempotency_key": "k1"})
    with pytest.raises(Pending) as raised:
        Client(server.url).send("W", "w", "e", None, thread=None, key=None, seconds=0)
    assert raised.value.idempotency_key == "k1"


def test_an_answer_that_is_gone_is_told(server: Foreign) -> None:
    server.answer(200, None, Asyncflow_Answer="dropped")
    with pytest.raises(AnswerDropped):
        Client(server.url).send("W", "w", "e", None, thread=None, key="k", seconds=1)


def test_nothing_new_is_none(server: Foreign) -> None:
    server.answer(304, b"")
    assert Client(server.url).changed("W", "w", 3, 2.5) is None
    assert asked(server)[1] == "/workflows/W/w?wait=2&since=3"


@pytest.mark.parametrize("status, value, kind, said", [
    (404, b"<html>", "text/html", "answers 404 with text/html: is it an asyncflow server?"),
    (200, b"<html>", "text/html", "answers 200 with text/html: is it an asyncflow server?"),
    (200, b"{", "application/json", "is it an asyncflow server?"),
    (200, [], "application/json", "answers with something else than expected"),
    (502, b"bad gateway", "text/plain", "answers 502 Bad Gateway"),
    (503, b"", "text/plain", "answers 503 Service Unavailable"),
    (0, b"", "hang up", "has not answered (RemoteDisconnected"),
])  # fmt: skip
def test_what_is_no_answer_of_ours_is_unavailable(server: Foreign, status: int, value: Any, kind: str, said: str) -> None:
    server.answer(status, value, kind)
    with pytest.raises(Unavailable) as raised:
        Client(server.url).get("W", "w")
    assert said in str(raised.value)
    assert server.url in str(raised.value)


def test_a_change_that_was_not_answered_may_have_been_made(server: Foreign) -> None:
    server.answer(0, b"", "hang up")
    with pytest.raises(Unavailable, match="whether it did what was asked is unknown"):
        Client(server.url).operate("W", "w", "kill")


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(Malformed, match=r"found 'ftp://me:\*\*\*@host'"):
        Client("ftp://me:pw@host")


# -- errors ------------------------------------------------------------------------------------------------------------

TOLD = [
    cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, AsyncflowError) and cls not in (NotAwaited, InvalidInput)
]


@pytest.mark.parametrize("cls", TOLD, ids=lambda cls: cls.__name__)
def test_an_error_comes_back_as_its_class(cls: type[AsyncflowError]) -> None:
    for problem in (
        {"type": f"https://example.org/errors#{cls.__name__}"},
        {"type": "about:blank", "title": cls.__name__},
    ):
        error = error_of(499, {**problem, "status": 499, "detail": "why", "details": {"a": 1}})
        assert type(error) is cls
        assert (error.message, error.code, error.details) == ("why", 499, {"a": 1})


def test_a_refusal_says_what_is_awaited() -> None:
    told = [{"event": "pay", "thread": "main", "role": ["cashier"], "schema": {"type": "string"}, "link": "/x"}]
    error = error_of(409, {"title": "NotAwaited", "detail": "no", "awaits": told})
    assert isinstance(error, NotAwaited)
    assert [(one.event, one.thread, one.role, one.schema_) for one in error.awaits] == [
        ("pay", "main", ["cashier"], {"type": "string"})
    ]
    assert isinstance(error_of(409, {"title": "NotAwaited", "awaits": "all"}), NotAwaited)


def test_a_bad_input_says_where() -> None:
    error = error_of(422, {"title": "InvalidInput", "detail": "no", "errors": [{"path": "a/0", "message": "is no number"}, 3]})
    assert isinstance(error, InvalidInput)
    assert error.errors == [{"path": "a/0", "message": "is no number"}]


@pytest.mark.parametrize("status, cls", [(404, errors.NotFound), (401, errors.Unauthorized), (418, AsyncflowError)])
def test_a_problem_without_a_known_name_is_known_by_its_status(status: int, cls: type[AsyncflowError]) -> None:
    error = error_of(status, {"title": "Whatever"})
    assert type(error) is cls
    assert (error.message, error.code) == ("Whatever", status)
