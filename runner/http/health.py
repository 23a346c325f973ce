"""Whether the process lives, and whether it can be given work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint
from werkzeug.wrappers import Response

from asyncflow.errors import Unavailable
from runner.http.replies import reply

if TYPE_CHECKING:
    from runner.runner import Runner


class Health:
    """The views, over one Runner."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def add_to(self, blueprint: Blueprint) -> None:
        """Add both routes."""
        blueprint.get("/healthz")(self.healthz)
        blueprint.get("/readyz")(self.readyz)

    def healthz(self) -> Response:
        """Say that the process lives: whoever gets no answer may restart it."""
        return reply({"status": "ok"})

    def readyz(self) -> Response:
        """Say that requests and steps find what they need.

        Raises:
            Unavailable: it is draining, its workers hang, or the store is away: bring requests elsewhere for now.
        """
        runner = self._runner
        if runner.draining:
            raise Unavailable("draining: this process takes nothing new")
        if not runner.healthy:
            raise Unavailable("the worker of this process cannot begin steps: see its log")
        runner.store.next_due(list(runner.definitions))
        return reply({"status": "ok"})
