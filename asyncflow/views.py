"""The instance as programs outside see it: paths instead of addresses, and nothing that only the engine needs."""

from __future__ import annotations

from typing import Any

from asyncflow.activation import Activation
from asyncflow.instance import Thread
from asyncflow.tree import END


def visible_path(act: Activation, thread: Thread) -> str:
    """Where a thread is, as users name it; the address where this code knows no such place."""
    place = act.place_of(thread)
    if place is None:
        return "" if thread.position == END else thread.position
    return place.path


def place_paths(act: Activation) -> dict[str, str]:
    """The path of each thread by its id."""
    return {thread.id: visible_path(act, thread) for thread in act.in_order()}


def shown_control(act: Activation) -> dict[str, Any] | None:
    """Pauses and cancels that hold, or will once the running step ends (rule 31)."""
    control = act.instance.control
    shown: dict[str, Any] = {}
    if control.pause is not None:
        shown["pause"] = {"since": control.pause}
    if control.cancel is not None:
        shown["cancel"] = {"since": control.cancel.since}
    for message in act.instance.inbox:
        if message.kind in ("pause", "cancel"):
            shown.setdefault(message.kind, {"since": message.at})
    return shown or None
