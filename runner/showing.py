"""Instances as they lie in a store, shown as far as this code can read them: over HTTP and to the command line alike."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from asyncflow.codec import decode
from asyncflow.definition import Definition
from asyncflow.errors import AsyncflowError, Failure, Unavailable
from asyncflow.views import shown
from runner.stores.base import Key, Record, Store, Summary

UNFIT: Final = "code that looked at it could not read it, or does not know where it stands: look at the instance alone"
"""What a list says of one that a worker could not get on; the reason is found by reading its state, which a list does not have."""


def unfit_of(store: Store, workflows: Collection[str]) -> frozenset[Key]:
    """Give the instances that code which looked at them could not read or place; none where asking is dear."""
    return frozenset() if store.remote else frozenset(Key(*key) for key in store.unfit(workflows))


def line_of(definition: Definition[Any] | None, one: Summary, unfit: Collection[Key] = ()) -> dict[str, Any]:
    """Give an instance as an item of a list: all but `state` and `awaits`.

    Args:
        definition: Of its workflow; None where the code is not at hand.
        one: As the store gives it.
        unfit: What `unfit_of` says of its workflow.
    """
    try:
        view = shown(definition, decode(one.document, b"{}"))
    except AsyncflowError as error:
        return set_aside(definition, one, one.reason or error.message)
    if one.reason is not None:
        return set_aside(definition, one, one.reason)
    told = view["error"] is not None or any(thread["error"] is not None for thread in view["threads"])
    return set_aside(definition, one, UNFIT) if not told and Key(one.workflow, one.id) in unfit else view


def set_aside(definition: Definition[Any] | None, row: Record | Summary, reason: str) -> dict[str, Any]:
    """Say of an instance that this code cannot read what its columns say, and why (rule 23)."""
    error = Failure.of(Unavailable(reason), path="", attempt=0, at=row.updated_at)
    try:
        view = shown(definition, decode(row.document, b"{}"))
    except AsyncflowError:
        view = {
            "workflow": row.workflow,
            "id": row.id,
            "status": row.status,
            "output": None,
            "error": None,
            "threads": [],
            "labels": dict(row.labels),
            "control": None,
            "pc": None,
            "created_at": row.created_at,
            "updated_at": row.updated_at,
        }
    # The column's: it is what a list is asked for by.
    return {**view, "status": row.status, "error": error.model_dump()}
