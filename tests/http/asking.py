"""Requests as a program makes them, and a look at every problem that comes back."""

from typing import Any

from flask.testing import FlaskClient
from pydantic_core import to_json
from werkzeug.test import TestResponse

PROBLEM = "application/problem+json"


class Asker:
    """Asks an app; *status* is what it has to answer, None where that is looked at later."""

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
