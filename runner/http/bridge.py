"""Between granian and the Flask app: requests run on a pool of threads, bodies are read and callers wait without one.

granian calls `__rsgi__` on its event loop. RSGI and not WSGI, for two reasons: only so does granian serve an app object
in the process that made it, beside the Runner's worker; and WSGI would hold a thread for every caller that waits.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any, Final, TypeVar

from werkzeug.exceptions import RequestTimeout
from werkzeug.wrappers import Response

from asyncflow import limits
from runner.http.parking import PARK, Parked
from runner.http.problems import problem_of
from runner.http.tasks import ARRIVED
from runner.http.tasks import PREFIX as TASKS
from runner.http.threads import Threads

LOG: Final = logging.getLogger("asyncflow")

REQUEST_THREADS: Final = 32
"""How many requests are at work at once. They mostly wait for the disk together, whose commits they then share."""
PARKED_MAX: Final = 5_000
"""How many callers wait at once, at 27 KiB each and a fifth of a core for all; those beyond are answered at once."""
BODY_SECONDS: Final = 30.0
"""How long a body may take to come: 256 KiB over a bad line."""

T = TypeVar("T")
Answered = tuple[int, list[tuple[str, str]], bytes]


class Bridge:
    """Serves a WSGI application to granian."""

    def __init__(
        self,
        app: Callable[..., Iterable[bytes]],
        *,
        threads: int = REQUEST_THREADS,
        parked_max: int = PARKED_MAX,
        deliveries: int = REQUEST_THREADS,
    ) -> None:
        self._app = app
        self._pool = Threads(threads)
        # Steps run in them for minutes: callers must not wait behind them.
        self._deliveries = Threads(deliveries)
        self._parked_max = parked_max
        self._parked: set[Parked] = set()
        self._at_work = 0
        self._idle = asyncio.Event()

    @property
    def parked(self) -> int:
        """How many callers wait."""
        return len(self._parked)

    def release(self) -> None:
        """End all waits: those who wait are answered with what there is."""
        for parked in list(self._parked):
            parked.waiting.give_up()

    async def finish(self, seconds: float) -> bool:
        """Wait until no request is at work; False when *seconds* were not enough."""
        try:
            async with asyncio.timeout(seconds):
                while self._at_work:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Give back the threads."""
        self._pool.close()
        self._deliveries.close()

    async def __rsgi__(self, scope: Any, proto: Any) -> None:
        """Answer one request."""
        if scope.proto != "http":
            return
        self._at_work += 1
        try:
            answered = await self._answer(scope, proto)
            if answered is not None:
                proto.response_bytes(*answered)
        except Exception:
            LOG.exception("a request failed outside the app")
            proto.response_empty(500, [])
        finally:
            self._at_work -= 1
            if not self._at_work:
                self._idle.set()

    async def _answer(self, scope: Any, proto: Any) -> Answered | None:
        environ = environ_of(scope)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                await _read_body(environ, proto)
        except TimeoutError:
            return _written(problem_of(RequestTimeout(f"expected the body within {BODY_SECONDS:g} s")), environ)
        taken: list[Parked] = []
        environ[PARK] = taken.append
        environ[ARRIVED] = time.monotonic()
        pool = self._deliveries if environ["PATH_INFO"].startswith(TASKS) else self._pool
        answered = await pool.run(lambda: called(self._app, environ))
        if not taken:
            return answered
        response = await self._wait(taken[0], proto)
        return None if response is None else _written(response, environ)

    async def _wait(self, parked: Parked, proto: Any) -> Response | None:
        """Wait without a thread; None when the caller has gone."""
        if len(self._parked) >= self._parked_max:
            parked.waiting.give_up()
        self._parked.add(parked)
        answer = asyncio.ensure_future(parked.answer(self._run))
        gone = asyncio.ensure_future(proto.client_disconnect())
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            return answer.result() if answer.done() else None
        finally:
            self._parked.discard(parked)
            gone.cancel()
            answer.cancel()

    async def _run(self, work: Callable[[], T]) -> T:
        return await self._pool.run(work)


def environ_of(scope: Any) -> dict[str, Any]:
    """Make the WSGI environment of a request, without its body."""
    name, _, port = scope.server.rpartition(":")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": scope.path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "SERVER_NAME": name,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "REMOTE_ADDR": scope.client.rpartition(":")[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for header, value in scope.headers.items():
        # A name with "_" would come out as one with "-", perhaps one that a proxy before us has taken away.
        if "_" in header:
            continue
        key = header.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ


async def _read_body(environ: dict[str, Any], proto: Any) -> None:
    """Read a body that is not too long; of one that is, no more than what shows it."""
    length = environ.get("CONTENT_LENGTH", "")
    chunked = environ.pop("HTTP_TRANSFER_ENCODING", None) is not None
    if not chunked and (not length.isdecimal() or not 0 < int(length[:10]) <= limits.BODY_BYTES):
        return
    if not chunked:
        environ["wsgi.input"] = BytesIO(await proto())
        return
    body = bytearray()
    async for chunk in proto:
        body += chunk
        if len(body) > limits.BODY_BYTES:
            break
    environ["CONTENT_LENGTH"] = str(len(body))
    environ["wsgi.input"] = BytesIO(body)


def called(app: Callable[..., Iterable[bytes]], environ: dict[str, Any]) -> Answered:
    """Call a WSGI application and give its whole answer."""
    said: list[tuple[int, list[tuple[str, str]]]] = []

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:  # noqa: ARG001
        said.append((int(status.partition(" ")[0]), headers))

    parts = app(environ, start)
    try:
        text = b"".join(parts)
    finally:
        close = getattr(parts, "close", None)
        if close is not None:
            close()
    status, headers = said[-1]
    return status, headers, text


def _written(response: Response, environ: dict[str, Any]) -> Answered:
    return called(response, environ)
