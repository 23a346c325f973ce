"""Errors as problem details (RFC 9457): one table, for our own and for the router's."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from asyncflow import errors, limits
from asyncflow.errors import AsyncflowError, HandlerFailed, InvalidInput, NotAwaited
from runner.http.instances import with_links
from runner.http.replies import PROBLEM, reply

LOG: Final = logging.getLogger("asyncflow")

TYPE: Final = "urn:asyncflow:error:"
RETRY_AFTER_SECONDS: Final = 2
"""When to come again after 429 and 503: a step, a commit or a restart takes about as long."""

OWN: Final = 0
"""The error's own code: the workflow has chosen it."""

TABLE: Final[dict[type[BaseException], tuple[int, str]]] = {
    errors.Malformed: (400, "No JSON, hostile JSON, or an id, key, page token or filter that cannot be one"),
    errors.Unauthorized: (401, "No credentials"),
    errors.Forbidden: (403, "Not allowed"),
    errors.NotFound: (404, "Not found"),
    errors.NotAwaited: (409, "Nobody waits for the event"),
    errors.AlreadyExists: (409, "The id is taken"),
    errors.NotApplicable: (409, "The verb does not fit"),
    errors.WorkflowCancelled: (409, "The instance was cancelled"),
    errors.Cancelled: (409, "The instance was cancelled"),
    errors.Rejected: (OWN, "Refused by the workflow"),
    errors.TerminalError: (OWN, "Refused by the workflow"),
    errors.Ended: (410, "The instance has ended"),
    errors.AnswerDropped: (410, "The answer is no longer kept"),
    errors.PreconditionFailed: (412, "The instance has moved on"),
    errors.TooLarge: (413, "Too large"),
    errors.InvalidInput: (422, "The input does not fit its schema"),
    errors.InvalidState: (500, "A state that cannot be stored"),
    errors.KeyReused: (422, "The idempotency key came with another body"),
    errors.Full: (429, "No room"),
    errors.HandlerFailed: (500, "A handler failed"),
    errors.RunawayWorkflow: (500, "A loop that never blocks"),
    errors.DefinitionError: (500, "A workflow that cannot work"),
    errors.WorkflowFailed: (500, "The instance has failed"),
    errors.Unavailable: (503, "Not now"),
    errors.Lost: (503, "An attempt was lost"),
    AsyncflowError: (500, "Failed"),
}
"""Status and title of every class; a class that is not here has those of the nearest one above it."""


def row_of(error: BaseException) -> tuple[str, int, str]:
    """Give the name under which an error is told, its status and its title."""
    for cls in type(error).__mro__:
        if cls in TABLE:
            status, title = TABLE[cls]
            if status == OWN:
                # What is no refusal as a status would tell the caller that all is well.
                codes = (getattr(one, "code", None) for one in (error, type(error), cls))
                status = next(code for code in codes if isinstance(code, int) and 400 <= code <= 599)
            return cls.__name__, status, title
    return "", HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.INTERNAL_SERVER_ERROR.phrase


def problem_of(error: BaseException, instance: str | None = None) -> Response:
    """Answer with the problem details of an error; what is our fault goes into the log.

    Args:
        error: Ours, the router's, or any other.
        instance: The path of the instance that it is about, for links to what it awaits.
    """
    if isinstance(error, HTTPException):
        return _of_router(error)
    name, status, title = row_of(error)
    if not name:
        LOG.error("a request failed", exc_info=error)
        return _reply({"type": "about:blank", "title": title, "status": status, "detail": "see the log of the server"})
    assert isinstance(error, AsyncflowError | errors.Cancelled)
    if isinstance(error, HandlerFailed):
        LOG.error("%s", error.message, exc_info=error.__cause__ or error, extra=_instance_of(instance))
    problem: dict[str, Any] = {"type": TYPE + name, "title": title, "status": status, "detail": error.message}
    problem |= _extensions(error, instance)
    return _reply(problem)


def _instance_of(path: str | None) -> dict[str, str]:
    """The instance that a path is about, as the log names it."""
    parts = (path or "").rsplit("/", 2)[1:]
    return {"instance": "/".join(map(unquote, parts))} if len(parts) == 2 else {}


def _extensions(error: AsyncflowError | errors.Cancelled, instance: str | None) -> dict[str, Any]:
    if isinstance(error, InvalidInput):
        return {"errors": error.errors}
    found: dict[str, Any] = {} if error.details is None else {"details": error.details}
    if isinstance(error, NotAwaited):
        awaited = [one.model_dump(mode="json", by_alias=True) for one in error.awaits]
        found["awaits"] = awaited if instance is None else with_links(awaited, instance)
    return found


_OF_ROUTER: Final[dict[int, type[AsyncflowError]]] = {
    400: errors.Malformed,
    404: errors.NotFound,
    413: errors.TooLarge,
}
"""What the router says that is one of ours."""

_DETAILS: Final = {
    404: "there is nothing at this path",
    405: "this path does not take this method: see Allow",
    413: f"expected a body of at most {limits.BODY_BYTES} bytes",
}
"""Where we can say more than the router."""


def _of_router(error: HTTPException) -> Response:
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR.value
    cls = _OF_ROUTER.get(status)
    problem = {
        "type": "about:blank" if cls is None else TYPE + cls.__name__,
        "title": error.name if cls is None else TABLE[cls][1],
        "status": status,
        "detail": _DETAILS.get(status) or error.description or error.name,
    }
    kept = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    return _reply(problem, kept)


def _reply(problem: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    status = problem["status"]
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers = {**(headers or {}), "Retry-After": str(RETRY_AFTER_SECONDS)}
    return reply(problem, status, headers, mimetype=PROBLEM)
