"""What the scheduler and a cron job call: `/tasks/wake` runs an instance, `/tasks/sweep` finds what nobody was woken for.

Both are there only with a scheduler that delivers over HTTP, and answer nobody else than it (`runner.deliveries`).
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Request, request
from werkzeug.wrappers import Response

from asyncflow import limits
from asyncflow.errors import Malformed, NotFound, TooLarge
from runner.auth import admit
from runner.deliveries import Verifier, verifier_of
from runner.http import edge
from runner.http.replies import reply
from runner.ids import check_id
from runner.stores.base import Key
from runner.work.sweeper import SWEEP_PART

if TYPE_CHECKING:
    from runner.runner import Runner

LOG: Final = logging.getLogger("asyncflow")

ARRIVED: Final = "asyncflow.arrived"
"""The key of the WSGI environment under which a server may say when a request came, by the monotonic clock."""
PREFIX: Final = "/tasks/"
"""Requests that may take minutes, since steps run in them."""
BODY_BYTES: Final = 4 * limits.KIB
"""A delivery has a key in it, and nothing else."""

_KINDS: Final = {"tasks_wake": "wake", "tasks_sweep": "sweep"}
"""What a delivery is for, by the name of its route."""


class Tasks:
    """The views, over one Runner with a scheduler that delivers."""

    def __init__(self, runner: Runner) -> None:
        assert runner.requests is not None
        self._runner = runner
        self._requests = runner.requests
        self._sweeper = runner.sweeper()

    def add_to(self, blueprint: Blueprint) -> None:
        """Add both routes."""
        blueprint.add_url_rule("/tasks/wake", "tasks_wake", self.wake, methods=["POST"])
        blueprint.add_url_rule("/tasks/sweep", "tasks_sweep", self.sweep, methods=["POST"])

    def wake(self) -> Response:
        """Do what is due of one instance, within this request; 200 too where nothing is.

        Raises:
            Malformed: the body is no key.
            Unavailable: the store is away, or this process is being stopped: the queue is to bring it again.
        """
        said: dict[str, Any] = edge.read_object(request, "workflow", "id")
        workflow, id_ = said.get("workflow"), said.get("id")
        if not isinstance(workflow, str) or not isinstance(id_, str):
            raise Malformed("expected a key: an object with workflow and id, both strings")
        check_id(id_)
        try:
            worked = self._requests.run(Key(workflow, id_), seconds=_left(request, self._requests.request_seconds))
        except NotFound as error:
            # Of another revision, or of another app on this queue: whoever has its code finds it by its own sweep.
            LOG.warning("a wake-up for %s/%s was brought here: %s", workflow, id_, error)
            return reply({"attempts": 0, "saves": 0, "due": False, "refused": False})
        return reply(asdict(worked))

    def sweep(self) -> Response:
        """Wake what is due and was not woken, and say how much is left.

        Raises:
            Unavailable: the store is away, or this process is being stopped.
        """
        seconds = min(float(limits.SWEEP_SECONDS), self._requests.request_seconds * SWEEP_PART)
        return reply(asdict(self._sweeper.sweep(seconds)))


def is_delivery(endpoint: str | None) -> bool:
    """Whether a route is one of these."""
    return (endpoint or "").rpartition(".")[2] in _KINDS


def admit_delivery(request: Request, verifier: Verifier | None) -> None:
    """Let in what the scheduler brings, whatever name it calls this host by.

    Args:
        verifier: None: nothing can prove itself, so only what this very machine sends is let in.

    Raises:
        Unauthorized, Forbidden: it is no delivery of the scheduler.
        TooLarge: it has more than a key in it.
        Unavailable: its proof cannot be looked at just now.
    """
    request.max_content_length = BODY_BYTES + 1
    body = request.get_data()
    if len(body) > BODY_BYTES:
        raise TooLarge(f"expected a body of at most {BODY_BYTES} bytes")
    if verifier is None:
        admit(request.headers)
        return
    kind = _KINDS[(request.endpoint or "").rpartition(".")[2]]
    verifier.check(request.headers, kind, body)


def verifier_for(runner: Runner, *, insecure: bool) -> Verifier | None:
    """Give what verifies the deliveries of a Runner's scheduler; None where it has none that delivers, or is insecure.

    Raises:
        Malformed: deliveries could not be told from what others send, and *insecure* was not said.
    """
    if not runner.scheduler.delivers:
        return None
    verifier = verifier_of(runner.terms)
    if verifier is None and not insecure:
        raise Malformed(
            "expected service_account or hmac_keys, so that deliveries to /tasks/ can be told from what others send, found "
            "neither; on loopback insecure (--insecure) does without"
        )
    return verifier


def _left(request: Request, seconds: float) -> float:
    """How much of the time of a request is left, where the server says when it came."""
    arrived: float | None = request.environ.get(ARRIVED)
    return seconds if arrived is None else seconds - (time.monotonic() - arrived)
