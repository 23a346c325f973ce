"""Callers that wait: without a thread where the server can park them, else in the thread of their request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from flask import Request
from werkzeug.wrappers import Response

from runner.http.problems import problem_of
from runner.work.waiting import Waiting

PARK: Final = "asyncflow.park"
"""The key of the WSGI environment under which a server that can park callers has a function that does."""


@dataclass(frozen=True, slots=True, eq=False)
class Parked:
    """A request that is answered later, without a thread.

    Args:
        waiting: What its caller waits for.
        patience: How many seconds.
        render: Makes the answer of what has come, or of None; needs no Flask.
        instance: The path of the instance, for links in a problem.
    """

    waiting: Waiting[Any]
    patience: float
    render: Callable[[Any], Response]
    instance: str

    async def answer(self, run: Callable[[Callable[[], Any]], Awaitable[Any]]) -> Response:
        """Wait on the running loop; *run* runs what blocks in a thread. Never raises but when it is cancelled."""
        try:
            found = await self.waiting.on_loop(self.patience, run)
            response: Response = await run(lambda: self.render(found))
            return response
        except Exception as error:  # noqa: BLE001 - Flask is gone, so this is the last one that can answer
            return problem_of(error, self.instance)


def answer_when(
    request: Request, waiting: Waiting[Any], patience: float, render: Callable[[Any], Response], *, instance: str
) -> Response:
    """Answer *request* when what it waits for has come, or its patience is over."""
    park: Callable[[Parked], None] | None = request.environ.get(PARK)
    if park is None:
        return render(waiting.here(patience))
    park(Parked(waiting, patience, render, instance))
    return Response()  # never sent
