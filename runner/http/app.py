"""The Flask app and its blueprint: the same routes, checks and errors in both."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import Blueprint, Flask, g, request, url_for
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BuildError
from werkzeug.wrappers import Response

from asyncflow.errors import AsyncflowError, Forbidden, Unavailable
from runner.auth import admit
from runner.http import edge
from runner.http.health import Health
from runner.http.problems import problem_of
from runner.http.tasks import Tasks, admit_delivery, is_delivery, verifier_for
from runner.http.workflows import Workflows

if TYPE_CHECKING:
    from runner.runner import Runner

ALWAYS_OPEN = frozenset({"healthz", "readyz"})
"""What is answered while draining too: an orchestrator wants to know."""


def create_app(runner: Runner, *, insecure: bool = False, clients: bool = True) -> Flask:
    """Make an app with all routes of *runner*.

    Args:
        runner: Whose instances; closing it is the caller's.
        insecure: It may be reached under other names than those of loopback, though everybody may do everything.
        clients: Whether anybody else than the scheduler is served; False: only its deliveries, and probes.

    Raises:
        Malformed: its scheduler delivers over HTTP, and nothing is set that could verify deliveries (unless *insecure*).
    """
    # No folder of files, which Flask would serve: nobody asked for that.
    app = Flask("asyncflow", static_folder=None, template_folder=None)
    app.register_blueprint(create_blueprint(runner, insecure=insecure, clients=clients))
    # Routes that are not there are nobody else's business either.
    app.before_request(_gate(runner, insecure=insecure, clients=clients))
    app.register_error_handler(HTTPException, _refuse)
    app.register_error_handler(Exception, _refuse)
    return app


def create_blueprint(runner: Runner, *, insecure: bool = False, clients: bool = True) -> Blueprint:
    """Make all routes of *runner*, to be mounted in an app of the user's own.

    Raises: as `create_app`.
    """
    blueprint = Blueprint("asyncflow", __name__)
    Workflows(runner).add_to(blueprint)
    Health(runner).add_to(blueprint)
    if runner.scheduler.delivers:
        Tasks(runner).add_to(blueprint)
    blueprint.before_request(_gate(runner, insecure=insecure, clients=clients))
    for kind in (AsyncflowError, HTTPException):
        blueprint.register_error_handler(kind, _refuse)
    return blueprint


def _gate(runner: Runner, *, insecure: bool, clients: bool) -> Callable[[], None]:
    verifier = verifier_for(runner, insecure=insecure)

    def enter() -> None:
        if "asyncflow_caller" in g:  # the app has looked before its blueprint
            return
        edge.check_target(request)
        name = (request.endpoint or "").rpartition(".")[2]
        if is_delivery(request.endpoint):
            admit_delivery(request, verifier)
            g.asyncflow_caller = None
        elif clients:
            g.asyncflow_caller = admit(request.headers, insecure=insecure)
        elif name in ALWAYS_OPEN:
            g.asyncflow_caller = None
        else:
            raise Forbidden("this address is for the deliveries of the scheduler alone")
        if runner.draining and name not in ALWAYS_OPEN:
            raise Unavailable("draining: this process takes nothing new, ask again in a moment")

    return enter


def _refuse(error: Exception) -> Response:
    return problem_of(error, _instance_path())


def _instance_path() -> str | None:
    """The path of the instance that the request is about, None where it is about none."""
    arguments = request.view_args or {}
    if not {"workflow", "id"} <= arguments.keys():
        return None
    try:
        return url_for(".instance", workflow=arguments["workflow"], id=arguments["id"])
    except BuildError:
        return None
