"""`Client`: the instances behind a server, over its HTTP interface, with the errors of `asyncflow`.

It stands on `http.client` alone: a command makes a request or two, so a library would only bring a dependency.
Proxies of the environment are not asked: the usual server is on this host.
"""

from __future__ import annotations

import http.client
import inspect
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn
from urllib.parse import quote, urlencode, urlsplit

from pydantic import ValidationError

from asyncflow import errors, limits
from asyncflow.errors import AnswerDropped, AsyncflowError, Awaited, InvalidInput, NotAwaited, Pending, Unavailable
from runner.commands.access import JsonObject
from runner.settings import shown_url

CONNECT_SECONDS: Final = 5.0
"""A server that does not take a connection within this is away: three tries of TCP fit in."""
ANSWER_SECONDS: Final = 30.0
"""How much longer than it was told to wait a server may take: a store that is busy, and the way there."""
BODY_MAX: Final = 64 * limits.KIB * limits.KIB
"""A thousand instances of a page are far less; more than this is no answer of ours."""

_CLASSES: Final = {
    re.sub(r"[^a-z]", "", name.lower()): thing
    for name, thing in vars(errors).items()
    if inspect.isclass(thing) and issubclass(thing, AsyncflowError)
}
_BY_STATUS: Final[dict[int, type[AsyncflowError]]] = {
    400: errors.Malformed,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.NotApplicable,
    410: errors.Ended,
    412: errors.PreconditionFailed,
    413: errors.TooLarge,
    422: errors.InvalidInput,
    429: errors.Full,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.Unavailable,
}
"""For answers that do not say which error they are: those of a proxy."""


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    headers: Mapping[str, str]
    value: Any


class Client:
    """Talks to the server at *url*; `caller` is who it says is calling.

    Every method raises `Unavailable` where there is no server, or what answers is none of ours.
    """

    def __init__(self, url: str, *, caller: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise errors.Malformed(f"expected the address of a server, as http://localhost:8080, found {shown_url(url)!r}")
        self.url = url.rstrip("/")
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._prefix = parts.path.rstrip("/")
        self._caller = caller

    def close(self) -> None:
        """Nothing is kept open between two requests."""

    # -- descriptions --------------------------------------------------------------------------------------------------

    def workflows(self) -> list[JsonObject]:
        """Give `{name, description}` of every workflow of the server."""
        found: list[JsonObject] = self._get("/workflows")["workflows"]
        return found

    def docs(self, workflow: str) -> JsonObject:
        """Give what `asyncflow.docs` says of it."""
        return self._get(_path(workflow, "docs"))

    def definition(self, workflow: str) -> JsonObject:
        """Give its tree."""
        return self._get(_path(workflow, "definition"))

    # -- instances -----------------------------------------------------------------------------------------------------

    def start(self, workflow: str, body: bytes | None, *, id: str | None, key: str | None) -> JsonObject:
        """Start an instance and give it."""
        response = self._ask("POST", _path(workflow), query={"id": id}, body=body, headers={"Idempotency-Key": key})
        return self._object(response)

    def send(
        self,
        workflow: str,
        id: str,
        event: str,
        body: bytes | None,
        *,
        thread: str | None,
        key: str | None,
        seconds: float,
    ) -> Any:
        """Deliver an event and give the handler's value, waiting for it as long as *seconds*.

        Raises:
            Pending: It is stored and will be handled; its key gets the answer.
        """
        until = time.monotonic() + seconds
        while True:
            wait = min(max(until - time.monotonic(), 0.0), limits.PATIENCE_MAX_SECONDS)
            response = self._ask(
                "POST",
                _path(workflow, id, "events", event),
                query={"thread": thread},
                body=body,
                headers={"Idempotency-Key": key, "Prefer": f"wait={math.ceil(wait)}"},
                wait=wait,
            )
            if response.status != http.client.ACCEPTED:
                break
            key = str(self._object(response)["idempotency_key"])
            if time.monotonic() >= until:
                text = f"the event {event!r} lies in the inbox of {workflow}/{id}; its key is {key!r}"
                raise Pending(text, idempotency_key=key)
        if response.headers.get("asyncflow-answer") == "dropped":
            raise AnswerDropped("the event was handled, but its answer is no longer kept")
        return response.value

    def query(self, workflow: str, id: str, query: str) -> Any:
        """Give what a query says."""
        return self._ask("GET", _path(workflow, id, "queries", query)).value

    def get(self, workflow: str, id: str) -> JsonObject:
        """Give the instance."""
        return self._get(_path(workflow, id))

    def timers(self, workflow: str, id: str) -> list[JsonObject]:  # noqa: ARG002
        """A server does not tell them."""
        return []

    def changed(self, workflow: str, id: str, since: int, seconds: float) -> JsonObject | None:
        """Wait until its `pc` is greater than *since* and give it; None if that has not come within *seconds*."""
        wait = max(0, min(int(seconds), limits.PATIENCE_MAX_SECONDS))
        response = self._ask("GET", _path(workflow, id), query={"wait": str(wait), "since": str(since)}, wait=wait)
        return None if response.status == http.client.NOT_MODIFIED else self._object(response)

    def page(
        self,
        workflow: str | None,
        *,
        status: str | None,
        filter: str | None,
        page_size: int,
        page_token: str | None,
        foreign: bool = False,  # noqa: ARG002 - a server shows its own alone
    ) -> JsonObject:
        """Give `{instances, next_page_token}`, the newest first."""
        query = {"status": status, "filter": filter, "page_size": str(page_size), "page_token": page_token}
        return self._get(_path(workflow or "-"), query)

    def history(self, workflow: str, id: str, *, page_size: int, page_token: str | None) -> JsonObject:
        """Give `{entries, next_page_token}`, the oldest first."""
        return self._get(_path(workflow, id, "history"), {"page_size": str(page_size), "page_token": page_token})

    def operate(
        self,
        workflow: str,
        id: str,
        verb: str,
        *,
        thread: str | None = None,
        value: bytes | None = None,
        key: str | None = None,
        if_pc: int | None = None,
    ) -> tuple[JsonObject, bool]:
        """Say an operator's word; give the instance, and whether it is applied already."""
        fields = [f'"thread":{json.dumps(thread)}'] if thread is not None else []
        if value is not None:
            fields.append(f'"value":{value.decode()}')  # as it was given: a number keeps its digits
        headers = {"Idempotency-Key": key, "If-Match": None if if_pc is None else f'"{if_pc}"'}
        body = "{" + ",".join(fields) + "}"
        response = self._ask("POST", f"{_path(workflow, id)}:{verb}", body=body.encode(), headers=headers)
        return self._object(response), response.status != http.client.ACCEPTED

    def delete(self, workflow: str, id: str) -> None:
        """Delete an ended instance."""
        self._ask("DELETE", _path(workflow, id))

    # -- requests ------------------------------------------------------------------------------------------------------

    def _get(self, path: str, query: Mapping[str, str | None] | None = None) -> JsonObject:
        return self._object(self._ask("GET", path, query=query))

    def _object(self, response: _Response) -> JsonObject:
        if not isinstance(response.value, dict):
            raise Unavailable(f"{self._named} answers with something else than expected: is it an asyncflow server?")
        return response.value

    @property
    def _named(self) -> str:
        return shown_url(self.url)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | None] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str | None] | None = None,
        wait: float = 0,
    ) -> _Response:
        said = {name: value for name, value in (query or {}).items() if value is not None}
        target = f"{self._prefix}{path}" + (f"?{urlencode(said)}" if said else "")
        sent = {name: value for name, value in (headers or {}).items() if value is not None}
        sent |= {"Accept": "application/json, application/problem+json", "Connection": "close"}
        if body is not None:
            sent["Content-Type"] = "application/json"
        if self._caller is not None:
            sent["X-Asyncflow-Caller"] = self._caller
        status, got, text = self._exchange(method, target, body, sent, wait)
        value = self._parsed(status, got, text)
        if status >= 400:
            self._raise(status, value)
        return _Response(status, got, value)

    def _exchange(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], wait: float
    ) -> tuple[int, dict[str, str], bytes]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=CONNECT_SECONDS)
        try:
            try:
                connection.connect()
            except OSError as error:
                text = f"there is no server at {self._named} ({error.strerror or error}): start one by `asyncflow serve`"
                raise Unavailable(text) from error
            connection.sock.settimeout(wait + ANSWER_SECONDS)
            connection.request(method, target, body=body, headers=dict(headers))
            response = connection.getresponse()
            text_ = response.read(BODY_MAX)
            return response.status, {name.lower(): value for name, value in response.getheaders()}, text_
        except (OSError, http.client.HTTPException) as error:
            unknown = (
                "" if method == "GET" else "; whether it did what was asked is unknown: look, or ask again with the same --key"
            )
            said = f"{type(error).__name__}: {error}".rstrip(": ")
            raise Unavailable(f"{self._named} has not answered ({said}){unknown}") from error
        finally:
            connection.close()

    def _parsed(self, status: int, headers: Mapping[str, str], text: bytes) -> Any:
        if not text:
            return None
        kind = headers.get("content-type", "").partition(";")[0].strip()
        try:
            if kind == "application/json" or kind.endswith("+json"):
                return json.loads(text)
        except ValueError:
            pass
        if status in (502, 503, 504):
            return None
        raise Unavailable(f"{self._named} answers {status} with {kind or 'no type'}: is it an asyncflow server?")

    def _raise(self, status: int, problem: Any) -> NoReturn:
        if not isinstance(problem, dict):
            cls = _BY_STATUS.get(status, AsyncflowError)
            raise cls(f"{self._named} answers {status} {http.client.responses.get(status, '')}".rstrip())
        raise error_of(status, problem)


def _path(*parts: str) -> str:
    return "/workflows/" + "/".join(quote(part, safe="") for part in parts)


def error_of(status: int, problem: Mapping[str, Any]) -> AsyncflowError:
    """Make the error again that a server has told as problem details."""
    names = (re.split(r"[/#:]", str(problem.get("type", "")))[-1], str(problem.get("title", "")))
    cls: type[AsyncflowError] | None = None
    for name in names:
        cls = cls or _CLASSES.get(re.sub(r"[^a-z]", "", name.lower()))
    cls = cls or _BY_STATUS.get(status, AsyncflowError)
    message = str(problem.get("detail") or problem.get("title") or http.client.responses.get(status, status))
    details = problem.get("details")
    if cls is NotAwaited:
        return NotAwaited(message, awaits=_awaits(problem.get("awaits")), code=status, details=details)
    listed = problem.get("errors")
    if cls is InvalidInput and isinstance(listed, list):
        faults = [
            {"path": str(one.get("path", "")), "message": str(one.get("message", ""))} for one in listed if isinstance(one, dict)
        ]
        return InvalidInput(message, errors=faults, code=status)
    return cls(message, code=status, details=details)


def _awaits(told: Any) -> list[Awaited]:
    try:
        return [Awaited.model_validate(one) for one in told] if isinstance(told, list) else []
    except ValidationError:
        return []
