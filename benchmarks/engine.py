"""The engine in memory: the loop benchmark of the system this one grew from, and the resume walk in small and large trees."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import BaseModel

from asyncflow import For, On, S, Section, Select, Step, Workflow, event
from asyncflow.activation import Activation
from asyncflow.definition import Body, Definition
from asyncflow.engine import start
from asyncflow.instance import Instance, Message, Status
from asyncflow.leases import Run, finished, take
from asyncflow.write import decide

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
ROUNDS: Final = 15
"""Rounds in which what is compared takes turns; the median counts, so a busy machine hurts both."""


class Loop(Workflow):
    """8 steps, 2 events, 11 walks, 14 saves."""

    i: int = 0
    log: str = ""

    @event
    def happen(self) -> None:
        self.log += "h"
        self.i += 1

    def step1(self) -> None:
        self.i += 1
        self.log += "l"

    def reset(self) -> None:
        self.i = 0

    def step2(self) -> None:
        self.log += "a"

    def definition(self) -> Section[None]:
        return S(
            For("first", lambda: self.i < 5, Step(self.step1)),
            Step(self.reset),
            For("second", lambda: self.i < 2, Select("wait", On(self.happen)), Step(self.step2)),
        )


class InMemory:
    """One instance with all rules of the protocol and validation, without JSON of the document and without history."""

    def __init__(self, definition: Definition[Any], state: bytes) -> None:
        self.definition = definition
        self.instance: Instance = start(definition, state, id="i", uid="u", now=NOW)
        self.body: Body[Any] = definition.body(state)
        self.saves = 0
        self._tokens = 0

    def _activate(self) -> Activation:
        return Activation(self.definition, self.body, self.instance, NOW, history=False, encoded=False, placed=self.saves > 0)

    def _token(self) -> str:
        self._tokens += 1
        return str(self._tokens)

    def write(self, messages: tuple[Message, ...], room: int) -> list[Run]:
        act, runs = decide(self._activate, messages, lambda act: take(act, self._token, room=room) if room else [])
        assert act.changed
        self.saves += 1
        return runs

    def work(self) -> None:
        runs = self.write((), 10)
        while runs:
            run = runs[0]
            run.body.dirty = True
            run.call()
            runs = self.write((finished(run, None, at=NOW),), 10)

    def send(self, name: str, number: int) -> None:
        self.write((Message(f"m{number}", "event", NOW, name=name),), 0)


def one_loop(definition: Definition[Any]) -> InMemory:
    """One iteration of the loop benchmark."""
    run = InMemory(definition, definition.codec.dump(Loop()))
    run.write((), 0)
    run.work()
    run.send("happen", 1)
    run.work()
    run.send("happen", 2)
    run.work()
    definition.release(run.body)
    return run


def timed(function: Callable[[], Any], number: int) -> float:
    """Microseconds per call."""
    began = time.perf_counter()
    for _ in range(number):
        function()
    return (time.perf_counter() - began) / number * 1e6


class Attribute(BaseModel):
    """What one attribute of a pydantic object costs to set."""

    i: int = 0


def loop_figures() -> dict[str, float]:
    """`setattr_us` and `engine_loop_us`, interleaved."""
    definition = Definition.of(Loop)
    done = one_loop(definition)
    assert done.instance.status is Status.Finished, done.instance.status
    assert done.saves == 14, done.saves
    target = Attribute()

    def set_attribute() -> None:
        target.i = 1

    pairs = [(timed(set_attribute, 20_000), timed(lambda: one_loop(definition), 150)) for _ in range(ROUNDS)]
    return {
        "setattr_us": round(statistics.median(pair[0] for pair in pairs), 4),
        "engine_loop_us": round(statistics.median(pair[1] for pair in pairs), 2),
        "engine_loop_ratio": round(statistics.median(loop / setting for setting, loop in pairs), 1),
    }


def _long(size: int) -> type[Workflow]:
    class Long(Workflow, name=f"Long{size}"):
        """A sequence of waits, entered at the last one."""

        n: int = 0

        @event
        def tick(self) -> None:
            self.n += 1

        def definition(self) -> Section[None]:
            before = [Select(f"wait {number}", On("never")) for number in range(size - 2)]
            return S(*before, For("last", True, Select("here", On(self.tick))))

    return Long


def _resume(size: int) -> Callable[[], None]:
    definition = Definition.of(_long(size))
    run = InMemory(definition, b'{"n":0}')
    run.write((), 0)
    run.instance.threads["main"].position = "last/here"
    number = 0

    def resume() -> None:
        nonlocal number
        number += 1
        run.send("tick", number)

    return resume


def resume_figures() -> dict[str, float]:
    """`resume_10_us` and `resume_1000_us`: an event and the walk to the next wait, interleaved."""
    small, large = _resume(10), _resume(1000)
    pairs = [(timed(small, 1000), timed(large, 1000)) for _ in range(ROUNDS)]
    return {
        "resume_10_us": round(statistics.median(pair[0] for pair in pairs), 2),
        "resume_1000_us": round(statistics.median(pair[1] for pair in pairs), 2),
    }


def import_figures() -> dict[str, float]:
    """`import_ratio`: importing asyncflow against importing pydantic and jsonschema."""

    def seconds(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        return time.perf_counter() - began

    # As on a user's machine, where compiled modules are kept.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    ours, theirs = "import asyncflow", "import pydantic, jsonschema; from pydantic import BaseModel"
    seconds(ours), seconds(theirs)
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(11)]
    return {"import_ratio": round(statistics.median(mine / its for mine, its in pairs), 3)}
