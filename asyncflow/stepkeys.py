"""How `stubs=`, `hold=` and `held` name a step: by its method, its name or its path; `undo NAME` is its undo."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, TypeAlias

from asyncflow.errors import NotFound

if TYPE_CHECKING:
    from asyncflow.definition import Definition
    from asyncflow.leases import Run

StepKey: TypeAlias = str | Callable[..., Any]


def is_step(key: StepKey, run: Run) -> bool:
    """Whether *key* names the step of an attempt."""
    if isinstance(key, str):
        return key in (run.name, run.path) or (run.name == f"undo {run.place.name}" and key == run.place.path)
    return _function(run.action) is _function(key)


def key_name(key: StepKey) -> str:
    """What to call *key* in a message."""
    return key if isinstance(key, str) else getattr(key, "__name__", repr(key))


def check_keys(definition: Definition[Any], argument: str, keys: Collection[StepKey]) -> None:
    """Look whether each key names a step: one that names none would be passed over in silence.

    Args:
        definition: Whose steps.
        argument: What the keys were given by, as `hold=`.
        keys: What is to be looked up.

    Raises:
        NotFound: one names none; the text has the steps that there are.
        TypeError: it is no collection of keys.
    """
    if isinstance(keys, str) or callable(keys):
        raise TypeError(f"expected {argument} to be a collection of steps, found one step alone: {key_name(keys)!r}")
    steps = [place for place in definition.in_order() if place.kind == "step"]
    known: set[Any] = set()
    for place in steps:
        known |= {place.name, place.path, f"undo {place.name}"}
        known |= {_function(one) for one in (place.statement.action, place.statement.undo) if one is not None}
        if place.undo is not None:
            known.add(place.undo.path)
    for key in keys:
        if _function(key) not in known:
            from difflib import get_close_matches  # noqa: PLC0415 (only a mistake needs it)

            names = list(dict.fromkeys(place.name for place in steps))
            near = get_close_matches(key_name(key), names, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            there = ", ".join(names) or "none"
            raise NotFound(f"{argument} names no step of {definition.name}: {key_name(key)!r}{hint}; there are: {there}")


def _function(key: Any) -> Any:
    return getattr(key, "__func__", key)
