"""What a sender is promised: answers, once, in order, also for what had to lie; and what a handle waits for."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from asyncflow import For, Return, S, Section, Status, Step, WaitEvent, Workflow, event
from asyncflow.errors import (
    AlreadyExists,
    AnswerDropped,
    Ended,
    KeyReused,
    NotApplicable,
    NotFound,
    Pending,
    PreconditionFailed,
)
from runner import Handle
from tests.runner.conftest import Open, wait_for
from tests.runner.gates import PATIENCE, Gate

GATE = Gate()


class Desk(Workflow):
    """A step, then as many notes as are wanted."""

    wanted: int = 1
    notes: list[str] = []

    async def work(self) -> None:
        await GATE.hold_async()

    @event
    def note(self, text: str) -> int:
        self.notes.append(text)
        return len(self.notes)

    def definition(self) -> Section[list[str]]:
        return S(
            Step(self.work),
            For("open", lambda: len(self.notes) < self.wanted, WaitEvent(self.note)),
            Return(lambda: self.notes),
        )


def lay_down(handle: Handle[Desk], text: str, key: str | None = None) -> str:
    """Send a note that has to lie; give its key."""
    with pytest.raises(Pending) as pending:
        handle.send(Desk.note, text, timeout=0, idempotency_key=key)
    return str(pending.value.idempotency_key)


def test_events_that_lie_are_handled_in_the_order_they_came(working: Open, gate: Gate) -> None:
    runner = working(Desk)
    handle = runner.start(Desk(wanted=20))
    gate.wait(here=1)
    texts = [str(number) for number in range(20)]
    for text in texts:
        lay_down(handle, text)
    gate.open()
    assert handle.result(PATIENCE) == texts


def test_pending_names_the_key_that_gets_the_answer_once(working: Open, gate: Gate) -> None:
    runner = working(Desk)
    handle = runner.start(Desk(wanted=2))
    gate.wait(here=1)
    key = lay_down(handle, "a")
    assert lay_down(handle, "a", key) == key
    gate.open()
    assert handle.send(Desk.note, "a", idempotency_key=key) == 1
    assert handle.send(Desk.note, "a", idempotency_key=key) == 1
    assert handle.state.notes == ["a"]


def test_a_key_answers_after_the_end_too(working: Open, gate: Gate) -> None:
    gate.open()
    runner = working(Desk)
    handle = runner.start(Desk())
    assert handle.send(Desk.note, "a", idempotency_key="k") == 1
    assert handle.result(PATIENCE) == ["a"]
    assert handle.send(Desk.note, "a", idempotency_key="k") == 1
    with pytest.raises(Ended):
        handle.send(Desk.note, "a")


def test_a_key_is_for_one_thing(working: Open, gate: Gate) -> None:
    gate.open()
    runner = working(Desk)
    handle = runner.start(Desk(wanted=2))
    handle.send(Desk.note, "a", idempotency_key="k")
    with pytest.raises(KeyReused):
        handle.send(Desk.note, "b", idempotency_key="k")
    assert handle.state.notes == ["a"]


def test_a_waiting_sender_is_answered_as_soon_as_his_turn_has_come(working: Open, gate: Gate) -> None:
    runner = working(Desk)
    handle = runner.start(Desk())
    gate.wait(here=1)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: handle.send(Desk.note, "a", timeout=PATIENCE))
        wait_for(runner, handle, lambda: bool(handle._loaded().instance().inbox))
        assert not answer.done()
        gate.open()
        assert answer.result(PATIENCE) == 1


def test_many_senders_at_once_lose_nothing(working: Open, gate: Gate) -> None:
    runner = working(Desk)
    handle = runner.start(Desk(wanted=200))
    gate.open()
    wait_for(runner, handle, lambda: handle.waiting == {"note"})
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: handle.send(Desk.note, str(number)), range(200)))
    assert sorted(answers) == list(range(1, 201))
    assert sorted(handle.result(PATIENCE), key=int) == [str(number) for number in range(200)]


class Archive(Workflow):
    """Gives large answers, for ever."""

    count: int = 0

    @event
    def fetch(self) -> str:
        self.count += 1
        return "x" * 20_000

    def definition(self) -> Section[None]:
        return S(For("ever", True, WaitEvent(self.fetch)))


def test_an_answer_that_was_dropped_is_told_as_such_and_not_given_again(opened: Open) -> None:
    runner = opened(Archive)
    handle = runner.start(Archive())
    for number in range(20):
        handle.send(Archive.fetch, idempotency_key=f"k-{number}")
    assert handle.send(Archive.fetch, idempotency_key="k-19") == "x" * 20_000
    with pytest.raises(AnswerDropped):
        handle.send(Archive.fetch, idempotency_key="k-0")
    assert handle.state.count == 20


# -- starts ------------------------------------------------------------------------------------------------------------


def test_a_start_with_the_same_key_finds_the_first(opened: Open) -> None:
    runner = opened(Desk)
    first = runner.start(Desk(), idempotency_key="order 7")
    again = runner.start(Desk(), idempotency_key="order 7")
    assert again.id == first.id
    assert len(list(runner.list(Desk))) == 1
    with pytest.raises(KeyReused):
        runner.start(Desk(wanted=3), idempotency_key="order 7")


def test_a_start_with_key_and_id_is_found_by_both(opened: Open) -> None:
    runner = opened(Desk)
    runner.start(Desk(), id="d-1", idempotency_key="k")
    assert runner.start(Desk(), id="d-1", idempotency_key="k").id == "d-1"
    with pytest.raises(AlreadyExists):
        runner.start(Desk(), id="d-1")
    with pytest.raises(AlreadyExists):
        runner.start(Desk(), id="d-1", idempotency_key="other")


def test_of_many_starts_with_one_key_one_makes_it(opened: Open, url: str) -> None:
    runners = [opened(Desk, store=url) for _ in range(3)]
    together = threading.Barrier(6)

    def start(number: int) -> str:
        together.wait(PATIENCE)
        return runners[number % 3].start(Desk(), idempotency_key="one").id

    with ThreadPoolExecutor(6) as pool:
        ids = set(pool.map(start, range(6)))
    assert len(ids) == 1
    assert [handle.id for handle in runners[0].list(Desk)] == list(ids)


# -- results and verbs -------------------------------------------------------------------------------------------------


def test_result_waits_through_a_pause(working: Open, gate: Gate) -> None:
    gate.open()
    runner = working(Desk)
    handle = runner.start(Desk())
    wait_for(runner, handle, lambda: handle.waiting == {"note"})
    handle.pause()
    assert handle.status is Status.Paused
    with ThreadPoolExecutor(2) as pool:
        result = pool.submit(handle.result, PATIENCE)
        key = lay_down(handle, "a")
        assert not result.done()
        handle.resume()
        assert result.result(PATIENCE) == ["a"]
        assert handle.send(Desk.note, "a", idempotency_key=key) == 1


def test_result_without_patience_says_what_it_is_doing(opened: Open) -> None:
    handle = opened(Desk).start(Desk(), id="d-1")
    with pytest.raises(TimeoutError, match="Desk/d-1 has not ended within 0 s; it is Running"):
        handle.result(0)


def test_if_pc_is_for_the_instance_as_it_was_seen(opened: Open) -> None:
    handle = opened(Archive).start(Archive())
    pc = handle._loaded().instance().pc
    handle.send(Archive.fetch)
    with pytest.raises(PreconditionFailed):
        handle.pause(if_pc=pc)
    handle.pause(if_pc=handle._loaded().instance().pc, idempotency_key="p")
    handle.pause(if_pc=pc + 1, idempotency_key="p")
    assert handle.status is Status.Paused


def test_a_second_cancel_or_kill_does_nothing_and_other_verbs_come_too_late(opened: Open) -> None:
    handle = opened(Archive).start(Archive())
    handle.cancel()
    before = handle._loaded().instance().rev
    handle.cancel()
    handle.kill()
    for verb in (handle.pause, handle.resume, handle.retry, handle.skip):
        with pytest.raises(Ended):
            verb()
    assert handle._loaded().instance().rev == before


def test_a_verb_that_does_not_fit_says_so(opened: Open) -> None:
    handle = opened(Archive).start(Archive())
    with pytest.raises(NotApplicable):
        handle.retry()


@pytest.mark.parametrize(
    "use",
    [
        lambda handle: handle.status,
        lambda handle: handle.state,
        lambda handle: handle.send(Archive.fetch),
        lambda handle: handle.cancel(),
        lambda handle: handle.result(1),
        lambda handle: list(handle.history()),
        lambda handle: handle.delete(),
    ],
)
def test_a_handle_of_nothing_says_so_at_its_first_use(use: Any, opened: Open) -> None:
    handle = opened(Archive).get(Archive, "nowhere")
    with pytest.raises(NotFound, match="Archive/nowhere"):
        use(handle)
