"""The bridge between granian and the app: bodies, waits and ends, with a request that a test holds in its hands."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from flask import Flask, Response, request
from pydantic_core import from_json

from asyncflow import limits
from runner.http import bridge
from runner.http.bridge import Bridge, environ_of
from runner.http.parking import answer_when
from runner.http.replies import reply
from runner.work.waiting import Waiting

MOST = limits.BODY_BYTES


class Headers:
    def __init__(self, *pairs: tuple[str, str]) -> None:
        self.pairs = list(pairs)

    def items(self) -> list[tuple[str, str]]:
        return self.pairs


@dataclass
class Scope:
    """What granian says of a request."""

    headers: Headers = field(default_factory=lambda: Headers(("host", "localhost")))
    method: str = "GET"
    path: str = "/"
    query_string: str = ""
    proto: str = "http"
    http_version: str = "1.1"
    scheme: str = "http"
    server: str = "127.0.0.1:8080"
    client: str = "[::1]:50000"


class Proto:
    """The other side of one request."""

    def __init__(self, chunks: Iterable[bytes] = (), *, never_ends: bool = False) -> None:
        self._chunks = chunks
        self._never_ends = never_ends
        self.gone = asyncio.Event()
        self.taken = 0
        self.answered: tuple[int, list[tuple[str, str]], bytes] | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            self.taken += len(chunk)
            yield chunk
        if self._never_ends:
            await asyncio.Event().wait()

    async def __call__(self) -> bytes:
        return b"".join([chunk async for chunk in self])

    async def client_disconnect(self) -> None:
        await self.gone.wait()

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.answered = status, headers, body

    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.answered = status, headers, b""

    @property
    def status(self) -> int:
        assert self.answered is not None
        return self.answered[0]

    @property
    def body(self) -> bytes:
        assert self.answered is not None
        return self.answered[2]


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await work()

    asyncio.run(main())


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)

    @app.post("/")
    def length() -> Response:
        return Response(str(len(request.get_data())))

    return app


def posted(*headers: tuple[str, str]) -> Scope:
    return Scope(Headers(("host", "localhost"), *headers), method="POST")


def test_a_request_reaches_the_app_as_wsgi_has_it() -> None:
    scope = Scope(
        Headers(
            ("host", "localhost"),
            ("content-type", "a/b"),
            ("x-one", "1"),
            ("x-one", "2"),
            ("x_two", "3"),
            ("x-two", "4"),
        ),
        path="/a b/é/%",
        query_string="a=%20",
    )
    environ = environ_of(scope)
    assert environ["PATH_INFO"].encode("latin-1").decode() == "/a b/é/%"
    assert {name: environ[name] for name in ("CONTENT_TYPE", "HTTP_X_ONE", "HTTP_X_TWO", "QUERY_STRING")} == {
        "CONTENT_TYPE": "a/b",
        "HTTP_X_ONE": "1,2",
        "HTTP_X_TWO": "4",
        "QUERY_STRING": "a=%20",
    }
    assert (environ["SERVER_PORT"], environ["REMOTE_ADDR"]) == ("8080", "[::1]")


@pytest.mark.parametrize(
    "headers, chunks, taken, answer",
    [
        ([("content-length", "5")], [b"12", b"345"], 5, b"5"),
        ([("transfer-encoding", "chunked")], [b"12", b"345"], 5, b"5"),
        ([("content-length", "0")], [b"left alone"], 0, b"0"),
        ([], [b"left alone"], 0, b"0"),
        ([("content-length", str(MOST))], [b"x" * MOST], MOST, str(MOST).encode()),
    ],
)
def test_a_body_is_read_before_the_app_is_called(
    app: Flask, headers: list[tuple[str, str]], chunks: list[bytes], taken: int, answer: bytes
) -> None:
    async def work() -> None:
        proto = Proto(chunks)
        await Bridge(app).__rsgi__(posted(*headers), proto)
        assert (proto.status, proto.body, proto.taken) == (200, answer, taken)

    run(work)


def test_a_body_that_is_too_long_is_not_read(app: Flask) -> None:
    app.config["MAX_CONTENT_LENGTH"] = MOST

    async def work() -> None:
        told, endless = Proto([b"x"]), Proto(b"x" * 1024 for _ in range(10**9))
        await Bridge(app).__rsgi__(posted(("content-length", "99999999999999999999")), told)
        await Bridge(app).__rsgi__(posted(("transfer-encoding", "chunked")), endless)
        assert (told.status, told.taken) == (413, 0)
        assert (endless.status, endless.taken) == (413, MOST + 1024)

    run(work)


def test_a_body_that_does_not_come_is_408(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "BODY_SECONDS", 0.01)

    async def work() -> None:
        proto = Proto([b"1"], never_ends=True)
        await Bridge(app).__rsgi__(posted(("content-length", "5")), proto)
        assert (proto.status, from_json(proto.body)["status"]) == (408, 408)

    run(work)


def test_an_app_that_fails_leaves_a_500(caplog: pytest.LogCaptureFixture) -> None:
    def broken(environ: Any, start: Any) -> list[bytes]:
        raise RuntimeError("the secret is 4711")

    async def work() -> None:
        proto = Proto()
        await Bridge(broken).__rsgi__(Scope(), proto)
        assert (proto.status, proto.body) == (500, b"")

    run(work)
    assert "4711" in caplog.text


# -- callers that wait -------------------------------------------------------------------------------------------------


class Kitchen:
    """An app whose callers wait for what is done."""

    def __init__(self, patience: float = 60) -> None:
        self.done: Any = None
        self.left = 0
        self.waits: list[Waiting[Any]] = []
        self.app = Flask(__name__)

        @self.app.get("/")
        def wait() -> Any:
            waiting: Waiting[Any] = Waiting(self.look, self.leave)
            self.waits.append(waiting)
            return answer_when(request, waiting, patience, self.render, instance="/here")

    def look(self) -> Any:
        if isinstance(self.done, Exception):
            raise self.done
        return self.done

    def leave(self) -> None:
        self.left += 1

    def render(self, found: Any) -> Any:
        return reply(found, 202 if found is None else 200)

    async def open(self, bridge: Bridge, parked: int = 1) -> list[tuple[Proto, asyncio.Task[None]]]:
        """Let callers come, and wait until they wait."""
        callers = []
        for _ in range(parked):
            proto = Proto()
            callers.append((proto, asyncio.ensure_future(bridge.__rsgi__(Scope(), proto))))
        while bridge.parked < parked:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
        return callers


def test_a_caller_waits_without_a_thread() -> None:
    async def work() -> None:
        kitchen = Kitchen()
        server = Bridge(kitchen.app, threads=1)
        callers = await kitchen.open(server, 20)
        kitchen.done = "bread"
        for waiting in kitchen.waits:
            waiting.tell()
        for proto, task in callers:
            await task
            assert (proto.status, proto.body) == (200, b'"bread"')
        assert (kitchen.left, server.parked) == (20, 0)
        server.close()

    run(work)


def test_a_wait_that_fails_is_told_as_a_problem() -> None:
    from asyncflow.errors import NotFound

    async def work() -> None:
        kitchen = Kitchen()
        [(proto, task)] = await kitchen.open(Bridge(kitchen.app))
        kitchen.done = NotFound("it is gone")
        kitchen.waits[0].tell()
        await task
        assert (proto.status, from_json(proto.body)["detail"]) == (404, "it is gone")

    run(work)


def test_patience_ends() -> None:
    async def work() -> None:
        kitchen, proto = Kitchen(patience=0.01), Proto()
        await Bridge(kitchen.app).__rsgi__(Scope(), proto)
        assert (proto.status, kitchen.left) == (202, 1)

    run(work)


def test_a_caller_that_has_gone_waits_no_more() -> None:
    async def work() -> None:
        kitchen = Kitchen()
        server = Bridge(kitchen.app)
        [(proto, task)] = await kitchen.open(server)
        proto.gone.set()
        await task
        while not kitchen.left:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        assert (proto.answered, server.parked) == (None, 0)

    run(work)


def test_more_callers_than_may_wait_are_answered_at_once() -> None:
    async def work() -> None:
        kitchen = Kitchen()
        server = Bridge(kitchen.app, parked_max=2)
        await kitchen.open(server, 2)
        proto = Proto()
        await server.__rsgi__(Scope(), proto)
        assert (proto.status, server.parked) == (202, 2)
        server.release()
        assert await server.finish(30)

    run(work)


def test_a_release_answers_all_who_wait() -> None:
    async def work() -> None:
        kitchen = Kitchen()
        server = Bridge(kitchen.app)
        callers = await kitchen.open(server, 5)
        assert not await server.finish(0.01), "they still wait"
        server.release()
        assert await server.finish(30)
        assert [proto.status for proto, _ in callers] == [202] * 5
        assert kitchen.left == 5

    run(work)


def test_elsewhere_a_caller_waits_in_the_thread_of_his_request() -> None:
    kitchen = Kitchen(patience=0.01)
    assert kitchen.app.test_client().get("/").status_code == 202
    kitchen.done = "bread"
    assert kitchen.app.test_client().get("/").get_json() == "bread"
    assert kitchen.left == 2
