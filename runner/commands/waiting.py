"""Waiting for the end of an instance, and watching many."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from rich.console import RenderableType
from rich.live import Live

from asyncflow import Unavailable, WorkflowCancelled, WorkflowFailed
from runner.commands.access import Access, JsonObject
from runner.commands.output import Output

ENDS: Final = frozenset({"Finished", "Failed", "Cancelled"})
WAIT_SECONDS: Final = 30.0
"""The longest single wait at a server: below the time-outs of most proxies; waits follow each other."""
WATCH_SECONDS: Final = 1.0
"""How often a list under watch is read: quick enough for an eye, one page a second for the store."""


def end_of(access: Access, instance: JsonObject, seconds: float) -> JsonObject:
    """Wait until *instance* has ended, however; give it then.

    Raises:
        TimeoutError: That did not come within *seconds*.
    """
    until = time.monotonic() + seconds
    while instance["status"] not in ENDS:
        left = until - time.monotonic()
        if left <= 0:
            name = f"{instance['workflow']}/{instance['id']}"
            raise TimeoutError(f"{name} has not ended within {seconds:g} s; it is {instance['status']}")
        instance = access.changed(instance["workflow"], instance["id"], instance["pc"], min(left, WAIT_SECONDS)) or instance
    return instance


def check_end(instance: JsonObject) -> None:
    """Look how an instance has ended.

    Raises:
        WorkflowFailed: It failed.
        WorkflowCancelled: It was cancelled or killed.
    """
    name = f"{instance['workflow']}/{instance['id']}"
    if instance["status"] == "Failed":
        error = instance.get("error") or {}
        raise WorkflowFailed(f"{name} has failed: {error.get('type')}: {error.get('message')}")
    if instance["status"] == "Cancelled":
        raise WorkflowCancelled(f"{name} was cancelled")


def watch(
    output: Output,
    read: Callable[[], list[JsonObject]],
    draw: Callable[[list[JsonObject]], RenderableType],
    tell: Callable[[JsonObject], None],
    miss: Callable[[str, str], None],
) -> None:
    """Show a list again and again until somebody interrupts: on a terminal as a whole, elsewhere what has changed.

    A store or a server that goes away is waited for, once it has answered at all.

    Args:
        output: Where to.
        read: Gives the instances.
        draw: Draws all of them, for a terminal.
        tell: Prints one that is new or has changed.
        miss: Prints workflow and id of one that is no longer listed.
    """
    try:
        if output.out.is_terminal and not output.as_json:
            with Live(draw(read()), console=output.out, auto_refresh=False) as live:
                while True:
                    time.sleep(WATCH_SECONDS)
                    live.update(draw(_patiently(output, read)), refresh=True)
        known: dict[tuple[str, str], object] = {}
        listed = read()
        while True:
            found = {(one["workflow"], one["id"]): one for one in listed}
            for key, one in found.items():
                mark = (one.get("pc"), one["status"], one["created_at"])
                if known.get(key) != mark:
                    tell(one)
                known[key] = mark
            for key in [key for key in known if key not in found]:
                miss(*key)
                del known[key]
            time.sleep(WATCH_SECONDS)
            listed = _patiently(output, read)
    except KeyboardInterrupt:
        return


def _patiently(output: Output, read: Callable[[], list[JsonObject]]) -> list[JsonObject]:
    """Read, again and again while there is nobody to answer."""
    said = False
    while True:
        try:
            return read()
        except Unavailable as error:
            if not said:
                output.warn(f"{error}; looking again until somebody answers")
                said = True
            time.sleep(WATCH_SECONDS)
