"""The assistant spends only what was approved, and asks the model once for each turn."""

from collections.abc import Callable
from datetime import timedelta
from itertools import permutations

import pytest

from asyncflow import NotAwaited, Simulation, Status, simulate
from asyncflow.testing import Simulate, every_crash
from examples.agent import TIME_TO_ANSWER, Assistant, Call, Turn, model

WISHES = ["cake", "balloons", "pony"]


def party(start: Callable[..., Simulation[Assistant]] = simulate) -> Simulation[Assistant]:
    return start(Assistant(wishes=WISHES))


def test_prices_are_asked_without_a_person_and_nothing_is_bought() -> None:
    sim = party()
    assert sim.state.seen == ["price cake: 24 coins", "price balloons: 6 coins", "price pony: 900 coins"]
    assert sim.steps == ["think", "run_tool", "run_tool", "run_tool", "remember", "think"]
    assert sim.threads == {"main": "turns/calls", **{f"calls/{n}": "turns/calls/spends/permission" for n in (1, 2, 3)}}


@pytest.mark.parametrize("order", list(permutations("123")), ids="".join)
def test_answers_of_the_owner_may_come_in_any_order(order: tuple[str, ...]) -> None:
    sim = party()
    for number in order:
        if number == "3":
            sim.send(Call.refuse, "where would it sleep?", thread="calls/3")
        else:
            sim.send(Call.approve, thread=f"calls/{number}")
    assert sim.output == ("buy cake: paid 24 coins; buy balloons: paid 6 coins; buy pony: refused: where would it sleep?")
    assert sim.steps.count("think") == 3
    assert sim.steps.count("run_tool") == 3 + 2


def test_an_approved_call_runs_while_others_still_wait() -> None:
    sim = party()
    sim.send(Call.approve, thread="calls/1")
    assert sim.state.calls["1"].result == "paid 24 coins"
    assert sim.waiting == {"approve", "refuse"}
    with pytest.raises(NotAwaited):
        sim.send(Call.approve, thread="calls/1")


def test_without_an_address_the_first_that_waits_is_meant() -> None:
    sim = party()
    sim.send(Call.approve)
    assert [call.allowed for call in sim.state.calls.values()] == [True, None, None]


def test_who_does_not_answer_has_refused() -> None:
    sim = party()
    sim.send(Call.approve, thread="calls/2")
    sim.advance(TIME_TO_ANSWER)
    late = "refused: nobody answered in time"
    assert sim.output == f"buy cake: {late}; buy balloons: paid 6 coins; buy pony: {late}"


def test_a_slow_model_is_asked_again_and_its_late_answer_dropped() -> None:
    sim = simulate(Assistant(wishes=["cake"]), hold={Assistant.think})
    late = sim.held(Assistant.think)
    late.lapse()
    sim.held(Assistant.think).finish(Turn(thought="nothing to do"))
    assert sim.output == "nothing to do"
    late.finish(Turn(thought="buy it all", calls=[Call(tool="buy", thing="pony")]))
    assert (sim.output, sim.status) == ("nothing to do", Status.Finished)


def test_a_tool_that_fails_is_tried_again_and_blocks_nobody() -> None:
    failures = [ConnectionError("the shop is closed"), ConnectionError("still closed")]

    def run_tool(call: Call) -> str:
        if call.thing == "cake" and failures:
            raise failures.pop()
        return "fine"

    sim = simulate(Assistant(wishes=WISHES), stubs={Assistant.run_tool: run_tool}, skip_backoff=False)
    assert [call.result for call in sim.state.calls.values()] == ["", "fine", "fine"]
    sim.advance(timedelta(minutes=1))
    assert sim.state.seen[0] == "price cake: fine"


def test_the_model_is_a_function_of_what_it_has_seen() -> None:
    assert model(["cake"], []) == model(["cake"], [])
    assert model(["unicorn"], ["price unicorn: not in the shop"]) == Turn(thought="Then I shall buy it.")


def test_it_ends_the_same_whenever_the_process_dies() -> None:
    def whole(start: Simulate) -> tuple[str | None, list[str]]:
        sim = party(start)
        sim.send(Call.approve, thread="calls/2")
        sim.send(Call.refuse, "no", thread="calls/3")
        sim.advance(TIME_TO_ANSWER)
        return sim.output, sim.state.seen

    answer, seen = every_crash(whole)
    assert answer is not None
    assert len(seen) == 6
