"""What the engine and the interpreter once disagreed about, and ties that random schedules seldom meet."""

import pytest

from asyncflow import simulate
from tests.property.compare import Call, Observation, observe, play
from tests.property.machine import Machine
from tests.property.naming import number
from tests.property.programs import (
    Each,
    For,
    Go,
    Handler,
    Node,
    Parallel,
    Policy,
    Program,
    Raise,
    Return,
    Select,
    Seq,
    Step,
    Try,
    WaitCase,
)


def wait(event: str = "e0", *body: Node) -> Select:
    return Select([WaitCase(event=event, body=list(body))], short=True)


def send(event: str = "e0", thread: str | None = None) -> Call:
    return Call("send", event, "0" if event == "e1" else None, thread)


HOURLY = Call("advance", minutes=60)
CANCEL = Call("cancel")


def undo() -> Step:
    return Step(undo=True)


def branch(*body: Node) -> Seq:
    return Seq(list(body))


CASES: dict[str, tuple[list[Node], list[Call]]] = {
    "the changes of an undo count": ([Try([undo(), Raise()], [Handler()])], []),
    "the changes of the last undo count": ([undo(), wait()], [CANCEL]),
    "branches: last finished, first undone": (
        [Parallel([branch(undo(), wait()), branch(undo()), branch(undo(), wait("e1"))])],
        [send("e1"), CANCEL],
    ),
    "a queued event is stored": ([wait(), Step(), wait("later")], [send("later"), send()]),
    "a refusal is not remembered": (
        [wait(), wait("later")],
        [send("later", "main"), send("e1"), send("later"), send()],
    ),
    "an item in order vanishes while another thread waits": (
        [Go([wait("e1"), Step(effects=(("drop", "a"),))]), Each("items", [Try([wait()], final=[Step()])])],
        [send("e1"), send(), send()],
    ),
    "an item in order vanishes by its own step": ([Each("items", [Step(effects=(("drop", "a"),)), Step()])], []),
    "branches begun under a cancel are stopped by the error of one": (
        [Try([wait()], final=[Parallel([branch(wait("e1"), Raise()), branch(wait())])])],
        [CANCEL, send("e1")],
    ),
    "branches of a Finally outlive a cancel": (
        [Try([wait()], final=[Each("items", [wait("poke")], 2)]), Return(1)],
        [send(), CANCEL, send("poke"), send("poke"), send("poke")],
    ),
    "an error of a thread beside an undo": (
        [Go([Step(), wait(), Raise()]), Try([undo(), wait(), Raise()], [Handler()])],
        [send(), send()],
    ),
    "a message before a timer of the same instant": (
        [
            wait(),
            Select([WaitCase(kind="at", minutes=60, body=[Return(1)]), WaitCase(event="later", body=[Return(2)])]),
        ],
        [HOURLY, send("later"), send()],
    ),
    "a timer before a message of a later instant": (
        [
            wait(),
            Select([WaitCase(kind="at", minutes=30, body=[Return(1)]), WaitCase(event="later", body=[Return(2)])]),
        ],
        [HOURLY, send("later"), send()],
    ),
    "two timers of one instant": (
        [
            Go([Select([WaitCase(kind="after", minutes=60)]), Step()]),
            Select([WaitCase(kind="after", minutes=60)]),
            Step(),
        ],
        [HOURLY],
    ),
    "a timer at the instant of the next attempt": (
        [
            Go([Select([WaitCase(kind="after", minutes=60)]), Step()]),
            Step(fails=1, policy=Policy(delay=60)),
            wait(),
        ],
        [],
    ),
    "a loop inside a loop begins anew": ([For(Step(), 2, body=[For(Step(style="then"), 2, leaves=True), Step()])], []),
}


@pytest.mark.parametrize("evict", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_both_sides_agree(case: str, evict: bool) -> None:
    body, calls = CASES[case]
    program = number(Program(body))
    machine = Machine(program)
    expected: list[Observation] = [(("start", None), machine.look())]
    expected += [(play(machine, call), machine.look()) for call in calls]
    assert observe(simulate, program, calls, evict=evict) == expected
