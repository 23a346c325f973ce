"""Runs a program and a schedule on both sides and says what could be seen after each move."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from asyncflow import AsyncflowError, Pending, Simulation
from tests.property.build import build
from tests.property.machine import Machine, Seen
from tests.property.programs import EVENTS, START, Item, Program, State
from tests.property.strategies import Move

LEAPS = (60, 30, 90, 240, 1_500, 0)  # minutes


@dataclass(frozen=True)
class Call:
    """A move made definite: one call of a simulation."""

    verb: str
    event: str = ""
    value: Any = None
    thread: str | None = None
    minutes: int = 0


Observation = tuple[tuple[str, Any], Seen]


def call_of(move: Move, machine: Machine) -> Call:
    """Make *move* definite: by what *machine* waits for now."""
    seen = machine.look()
    if move.kind == "advance" or (move.kind == "send" and seen.threads and not seen.waiting):
        return Call("advance", minutes=LEAPS[move.pick % len(LEAPS)])
    stopped = [(name, plain) for name, plain in machine.stopped() if plain or move.kind == "retry"]
    if move.kind in ("retry", "skip") and stopped:
        return Call(move.kind, thread=stopped[move.pick % len(stopped)][0])
    if move.kind == "cancel" and not machine.ended:
        return Call("cancel")
    names = sorted(seen.waiting) or sorted(machine.events) or ["e0"]
    if move.kind == "stray":
        names = [*EVENTS, "poke", *sorted(machine.events)]
    event = "later" if move.kind == "queue" else names[move.pick % len(names)]
    threads = [thread for thread, _ in seen.threads]
    thread = threads[move.pick // 2 % len(threads)] if move.kind == "address" and threads else None
    return Call("send", event, str(move.pick % 3) if event == "e1" else None, thread)


def play(machine: Machine, call: Call) -> tuple[str, Any]:
    """Make *call* of the interpreter; gives ("ok", answer), or the name of the refusal."""
    if call.verb == "send":
        return machine.send(call.event, call.value, call.thread)
    if call.verb == "cancel":
        return (machine.cancel(), None)
    if call.verb == "advance":
        machine.advance(timedelta(minutes=call.minutes))
    elif call.thread is not None:
        (machine.retry if call.verb == "retry" else machine.skip)(call.thread)
    return ("ok", None)


def interpret(program: Program, moves: Sequence[Move], **options: Any) -> tuple[list[Call], list[Observation]]:
    """Run *program* in the interpreter; gives the calls that *moves* came to, and what was seen after each."""
    machine = Machine(program, **options)
    calls, seen = [], [(("start", None), machine.look())]
    for move in moves:
        if machine.ended and len(seen) > 1 and seen[-1][0][0] == "Ended":
            break
        call = call_of(move, machine)
        calls.append(call)
        answer = play(machine, call)
        seen.append((answer, machine.look()))
    return calls, seen


def look(sim: Simulation[Any]) -> Seen:
    """What can be seen of *sim*, in the interpreter's words."""
    state = sim.state.model_dump()
    for name in ("items", "rows"):
        rows = state[name]
        pairs = rows.items() if isinstance(rows, dict) else enumerate(rows)
        made = {key: Item(**row) for key, row in pairs}
        state[name] = made if isinstance(rows, dict) else list(made.values())
    failure = sim.error
    cancelled = failure is not None and failure.type == "Cancelled"
    return Seen(
        status=str(sim.status),
        state=State(**state),
        output=sim.output,
        error=(failure.type, "" if cancelled else failure.message) if failure else None,
        waiting=frozenset(sim.waiting),
        # Main that has ended under a cancel, and waits for the others, stands nowhere.
        threads=tuple((thread, path) for thread, path in sim.threads.items() if path),
        now=sim.now,
        steps=tuple(sim.steps),
    )


def perform(sim: Simulation[Any], call: Call) -> tuple[str, Any]:
    """Make *call*; gives ("ok", answer), or the name of the refusal."""
    try:
        if call.verb == "send":
            return ("ok", sim.send(call.event, call.value, thread=call.thread))
        if call.verb == "advance":
            sim.advance(timedelta(minutes=call.minutes))
        elif call.verb == "cancel":
            sim.cancel()
        elif call.thread is not None:
            (sim.retry if call.verb == "retry" else sim.skip)(call.thread)
    except (AsyncflowError, Pending) as refusal:
        return (type(refusal).__name__, None)
    return ("ok", None)


def observe(simulate: Any, program: Program, calls: Sequence[Call], **options: Any) -> list[Observation]:
    """Run *program* in the engine; gives what was seen after the start and each of *calls*."""
    sim = simulate(build(program), now=START, **options)
    seen: list[Observation] = [(("start", None), look(sim))]
    for call in calls:
        answer = perform(sim, call)
        seen.append((answer, look(sim)))
    return seen
