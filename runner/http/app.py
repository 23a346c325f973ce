"""The Flask app and its blueprint: the same routes, checks and errors in both."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import Blueprint, Flask, g, request, url_for
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BuildError
from werkzeug.wrappers import Response

from asyncflow.errors import AsyncflowError, Unavailable
from asyncflow.state import InvalidState
from runner.auth import admit
from runner.http import edge
from runner.http.health import Health
from runner.http.problems import problem_of
from runner.http.workflows import Workflows

if TYPE_CHECKING:
    from runner.runner import Runner

ALWAYS_OPEN = frozenset({"healthz", "readyz"})
"""What is answered while draining too: an orchestrator wants to know."""


def create_app(runner: Runner, *, insecure: bool = False) -> Flask:
    """Make an app with all routes of *runner*.

    Args:
        runner: Whose instances; closing it is the caller's.
        insecure: It may be reached under other names than those of loopback, though everybody may do everything.
    """
    # No folder of files, which Flask would serve: nobody asked for that.
    app = Flask("asyncflow", static_folder=None, template_folder=None)
    app.register_blueprint(create_blueprint(runner, insecure=insecure))
    # Routes that are not there are nobody else's business either.
    app.before_request(_gate(runner, insecure=insecure))
    app.register_error_handler(HTTPException, _refuse)
    app.register_error_handler(Exception, _refuse)
    return app


def create_blueprint(runner: Runner, *, insecure: bool = False) -> Blueprint:
    """Make all routes of *runner*, to be mounted in an app of the user's own."""
    blueprint = Blueprint("asyncflow", __name__)
    Workflows(runner).add_to(blueprint)
    Health(runner).add_to(blueprint)
    blueprint.before_request(_gate(runner, insecure=insecure))
    for kind in (AsyncflowError, InvalidState, HTTPException):
        blueprint.register_error_handler(kind, _refuse)
    return blueprint


def _gate(runner: Runner, *, insecure: bool) -> Callable[[], None]:
    def enter() -> None:
        if "asyncflow_caller" in g:  # the app has looked before its blueprint
            return
        edge.check_target(request)
        g.asyncflow_caller = admit(request.headers, insecure=insecure)
        name = (request.endpoint or "").rpartition(".")[2]
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
