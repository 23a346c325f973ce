"""Every public name says what it promises."""

import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import ModuleType, SimpleNamespace

import pytest
from pydantic import BaseModel


def undocumented(module: ModuleType | SimpleNamespace) -> Iterator[str]:
    """Give the classes and functions of `__all__` without a docstring of their own; constants and aliases have none."""
    for name in module.__all__:
        thing = getattr(module, name)
        if isinstance(thing, type):
            text = vars(thing).get("__doc__") or ""
            if not text.strip() or text.startswith(f"{thing.__name__}("):  # what @dataclass writes by itself
                yield name
        elif inspect.isroutine(thing) and not (thing.__doc__ or "").strip():
            yield name


@pytest.mark.parametrize("package", ["asyncflow", "runner"])
def test_public_names_have_docstrings(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__
    assert list(undocumented(module)) == []


# -- the check itself --------------------------------------------------------------------------------------------------


class Documented:
    """Has one."""


class Inherits(Documented):
    pass


class Model(BaseModel):
    pass


class Colour(StrEnum):
    RED = "red"


@dataclass
class Generated:
    field: int


def bare() -> None:
    pass


def test_missing_docstrings_are_seen() -> None:
    things = {thing.__name__: thing for thing in (Documented, Inherits, Model, Colour, Generated, bare)}
    module = SimpleNamespace(__all__=[*things, "LIMIT"], LIMIT=3, **things)
    assert set(undocumented(module)) == {"Inherits", "Model", "Colour", "Generated", "bare"}
