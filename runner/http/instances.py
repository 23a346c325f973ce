"""Instances as HTTP shows them: what `asyncflow.views` says, the state, and where to send what is awaited."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import quote

from asyncflow.activation import Activation
from asyncflow.definition import Definition
from asyncflow.errors import Unavailable
from asyncflow.views import shown, shown_awaits
from runner.http.replies import with_state
from runner.showing import set_aside
from runner.stores.base import Stored
from runner.work.records import Loaded


def whole(definition: Definition[Any], stored: Stored, *, now: datetime, path: str) -> tuple[bytes, int | None]:
    """Give the JSON text of an instance and its program counter, None where this code cannot read that.

    Args:
        definition: Of its workflow.
        stored: As it lies in the store.
        now: The store's clock.
        path: Of the instance, for links.
    """
    try:
        if stored.reason is not None:
            raise Unavailable(stored.reason)
        act = Loaded(definition, stored).activate(now, history=False)
    except Unavailable as error:
        view = set_aside(definition, stored.record, error.message)
        return with_state({**view, "awaits": []}, stored.record.state), view["pc"]
    try:
        return whole_of(act, path), act.instance.pc
    finally:
        definition.release(act.body)


def whole_of(act: Activation, path: str) -> bytes:
    """Give the JSON text of an instance that is loaded, or was decided on and not saved."""
    view = shown(act.definition, act.instance)
    return with_state({**view, "awaits": with_links(shown_awaits(act), path)}, act.instance.state)


def with_links(awaited: list[dict[str, Any]], path: str) -> list[dict[str, Any]]:
    """Add to each awaited event where it is to be sent."""
    return [{**one, "link": _link(path, one["event"], one["thread"])} for one in awaited]


def _link(path: str, event: str, thread: str) -> str:
    link = f"{path}/events/{quote(event, safe='')}"
    return link if thread == "main" else f"{link}?thread={quote(thread, safe='/')}"
