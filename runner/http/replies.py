"""How an answer is written: JSON, never kept by caches, never taken for something else by browsers."""

from __future__ import annotations

from typing import Any, Final

from pydantic_core import to_json
from werkzeug.wrappers import Response

PROBLEM: Final = "application/problem+json"

_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def reply(
    value: object, status: int = 200, headers: dict[str, str] | None = None, *, mimetype: str = "application/json"
) -> Response:
    """Answer with a value; bytes are JSON text already."""
    text = value if isinstance(value, bytes) else to_json(value)
    return Response(text, status, {**_HEADERS, **(headers or {})}, mimetype)


def reply_nothing(status: int, headers: dict[str, str] | None = None) -> Response:
    """Answer without a body: 204, 304."""
    response = Response(None, status, {**_HEADERS, **(headers or {})})
    del response.headers["Content-Type"]
    return response


def with_state(view: dict[str, Any], state: bytes) -> bytes:
    """Write an instance with its state, which is JSON text already, in its place."""
    head = {name: view[name] for name in ("workflow", "id", "status")}
    rest = {name: value for name, value in view.items() if name not in head}
    return to_json(head)[:-1] + b',"state":' + state + b"," + to_json(rest)[1:]
