"""Laws of PROTOCOL 11 on random trees, by the public interface and the document that a store would hold.

The law of `due_at` needs the engine's own functions and has a file of its own.
"""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from asyncflow import Failure, Retry, Return, S, Section, Simulation, Step, Workflow, simulate
from tests.property.build import Boom, Built, build
from tests.property.compare import Call, interpret, look, perform
from tests.property.programs import START, Program
from tests.property.show import show
from tests.property.strategies import Features, Move, programs, schedules
from tests.property.test_engine_against_interpreter import SLOW

pytestmark = pytest.mark.filterwarnings("ignore:.*has plain steps")  # they are asked for
FEW = settings(max_examples=40, suppress_health_check=SLOW)
STEADY = Features(failing=False)


def documents(program: Program, moves: list[Move], **options: Any) -> Iterator[tuple[Simulation[Built], dict[str, Any]]]:
    """Give the simulation and its document after the start and after each move."""
    note(show(program))
    calls, _ = interpret(program, moves)
    sim = simulate(build(program), now=START, **options)
    yield sim, sim.document
    for call in calls:
        note(str(call))
        perform(sim, call)
        yield sim, sim.document


# -- counters (rules 1, 2, 3) ------------------------------------------------------------------------------------------


@FEW
@given(programs(), schedules())
def test_pc_only_grows_and_grows_with_every_visible_change(program: Program, moves: list[Move]) -> None:
    before: tuple[int, Any] | None = None
    for sim, document in documents(program, moves):
        seen = look(sim)
        visible = (seen.status, seen.state, seen.output, seen.error, seen.threads)
        pc = document["pc"]
        if before is not None:
            assert pc >= before[0]
            assert pc > before[0] or visible == before[1]
        before = (pc, visible)


@FEW
@given(programs(), schedules())
def test_a_visit_is_never_used_twice(program: Program, moves: list[Move]) -> None:
    places: dict[int, tuple[str, str]] = {}
    for _, document in documents(program, moves):
        for thread in document.get("threads", []):
            place = (thread["id"], thread["position"])
            assert places.setdefault(thread["visit"], place) == place


@FEW
@given(programs(), schedules())
def test_a_document_changes_only_with_its_revision(program: Program, moves: list[Move]) -> None:
    before: dict[str, Any] | None = None
    for _, document in documents(program, moves):
        if before is not None:
            assert document["rev"] >= before["rev"]
            assert document == before or document["rev"] > before["rev"]
        before = document


@given(st.integers(0, 8))
def test_steps_in_a_row_cost_one_save_each_and_one_more(count: int) -> None:
    class Row(Workflow):
        done: int = 0

        def work(self) -> None:
            self.done += 1

        def definition(self) -> Section[None]:
            return S(*(Step(f"step {n}", self.work) for n in range(count)))

    sim = simulate(Row())
    assert sim.state.done == count
    # Save 1 is the create, which finishes where there is no step; else one more for the first take, one for each end.
    assert sim.document["rev"] == first_revision() + (count + 1 if count else 0)


def first_revision() -> int:
    """The revision of a document that has been created and no more."""

    class Nothing(Workflow):
        def definition(self) -> Section[None]:
            return S()

    revision = simulate(Nothing()).document["rev"]
    assert isinstance(revision, int)
    return revision


# -- the end (rule 30) -------------------------------------------------------------------------------------------------


@FEW
@given(programs(), schedules(), st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_an_ended_document_does_not_change(program: Program, moves: list[Move], more: list[int]) -> None:
    sim = list(documents(program, moves))[-1][0]
    if sim.status not in ("Finished", "Failed", "Cancelled"):
        sim.kill()
    ended = sim.document
    for pick in more:
        calls = [Call("send", "e0"), Call("send", "later"), Call("cancel"), Call("advance", minutes=10_000)]
        perform(sim, calls[pick % len(calls)])
        assert sim.document == ended


# -- advance, JSON, going on -------------------------------------------------------------------------------------------


@FEW
@given(programs(), schedules())
def test_no_time_changes_nothing(program: Program, moves: list[Move]) -> None:
    for sim, document in documents(program, moves):
        sim.advance(timedelta(0))
        assert sim.document == document


@FEW
@given(programs(STEADY), schedules(), st.integers(0, 300), st.integers(0, 300))
def test_advancing_twice_is_advancing_once(program: Program, moves: list[Move], first: int, second: int) -> None:
    once = list(documents(program, moves))[-1][0]
    twice = list(documents(program, moves))[-1][0]
    once.advance(timedelta(minutes=first + second))
    twice.advance(timedelta(minutes=first))
    twice.advance(timedelta(minutes=second))
    assert look(once) == look(twice)


@FEW
@given(programs(), schedules())
def test_evicting_changes_no_document(program: Program, moves: list[Move]) -> None:
    for (_, kept), (_, evicted) in zip(documents(program, moves), documents(program, moves, evict=True), strict=True):
        assert neutral(kept) == neutral(evicted)


def neutral(document: dict[str, Any]) -> dict[str, Any]:
    """Without what is random in every instance, and the ids of messages."""
    return {key: value for key, value in document.items() if key not in ("uid", "seen", "inbox")}


@FEW
@given(programs(), schedules(), st.integers(0, 9))
def test_an_instance_goes_on_from_its_document(program: Program, moves: list[Move], at: int) -> None:
    calls, _ = interpret(program, moves)
    note(show(program))
    note("\n".join(map(str, calls)))
    kept: Simulation[Built] = simulate(build(program), now=START)
    cut = at % (len(calls) + 1)
    for call in calls[:cut]:
        perform(kept, call)
    stored = json.loads(json.dumps(kept.document, allow_nan=False))
    assert stored == kept.document
    again = simulate(type(kept.state), document=stored, now=kept.now)
    for call in calls[cut:]:
        perform(kept, call)
        perform(again, call)
        assert neutral(kept.document) == neutral(again.document)


# -- messages (rules 6, 27) --------------------------------------------------------------------------------------------


@FEW
@given(programs(), schedules())
def test_a_repeated_event_changes_nothing_and_has_the_same_answer(program: Program, moves: list[Move]) -> None:
    note(show(program))
    calls, expected = interpret(program, moves)
    sim = simulate(build(program), now=START)
    for n, (call, ((answer, value), _)) in enumerate(zip(calls, expected[1:], strict=True)):
        if call.verb != "send" or answer != "ok":
            perform(sim, call)
            continue
        for _ in range(2):
            got = sim.send(call.event, call.value, thread=call.thread, idempotency_key=f"key-{n}")
            assert got == value
            assert look(sim) == expected[n + 1][1]


# -- errors and retries (rule 16, docs/statements.md) ------------------------------------------------------------------


@FEW
@given(programs(Features(parking=True)), schedules())
def test_a_failure_survives_json(program: Program, moves: list[Move]) -> None:
    for sim, _ in documents(program, moves):
        failure = sim.error
        if failure is not None:
            assert Failure.model_validate_json(failure.model_dump_json()) == failure
            assert failure.bases
            assert failure.bases[0].endswith(failure.type)


SECONDS = st.integers(1, 5_000).map(lambda n: timedelta(seconds=n))


@settings(max_examples=60)
@given(SECONDS, SECONDS, st.floats(1, 5), st.integers(2, 7))
def test_a_backoff_is_what_the_policy_says(delay: timedelta, most: timedelta, factor: float, attempts: int) -> None:
    policy = Retry(max_attempts=attempts, delay=delay, factor=factor, max_delay=most, exhausted="raise")

    class Failing(Workflow):
        def fail(self) -> None:
            raise Boom

        def definition(self) -> Section[None]:
            return S(Step(self.fail, retry=policy), Return(None))

    sim = simulate(Failing(), now=START, skip_backoff=False)
    for attempt in range(1, attempts):
        assert len(sim.steps) == attempt
        document: dict[str, Any] = sim.document
        (thread,) = document["threads"]
        waits = datetime.fromisoformat(thread["retry_at"]) - sim.now
        right = max(delay, min(most, delay * factor ** (attempt - 1)))
        assert abs(waits - right) < timedelta(milliseconds=2)
        sim.advance(waits)
    assert sim.status == "Failed"
    assert len(sim.steps) == attempts
