"""`take` and what follows it: who gets a lease, for how long, and what becomes of it (rules 12, 13, 15, 16, 17)."""

from datetime import timedelta
from typing import Any

import pytest

from asyncflow import Cancelled, Go, Parallel, Retry, S, Section, Step, Try, Uncertain, WaitEvent, Workflow
from asyncflow.leases import LEASE, MARGIN, STEP_TIMEOUT, failed, finished, lapsed, release, renew, take
from tests.unit.documents import Stored

MINUTE = timedelta(minutes=1)


class Base(Workflow):
    n: int = 0
    log: list[str] = []

    def work(self, text: str = "") -> None:
        self.log.append(text)

    def ask(self) -> int:
        return self.n + 1

    def undo(self, *_: Any) -> None:
        self.log.append("undo")

    def asked(self, name: str, **options: Any) -> Step:
        return Step(name, self.ask, into="n", **options)

    def plain(self, name: str, **options: Any) -> Step:
        return Step(name, self.work, name, **options)


def names(stored: Stored) -> list[str]:
    return [run.name for run in stored.runs]


class Crowd(Base):
    def definition(self) -> Section[Any]:
        return S(
            Parallel(
                "crowd",
                self.asked("a"),
                self.plain("p"),
                self.asked("b"),
                self.plain("q"),
                S(self.asked("c"), self.plain("r")),
            )
        )


# -- take --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room, taken", [(0, []), (1, ["p"]), (2, ["p", "a"]), (3, ["p", "a", "b"]), (9, ["p", "a", "b", "c"])])
def test_one_plain_step_and_as_many_others_as_there_is_room_for(room: int, taken: list[str]) -> None:
    assert names(Stored(Crowd(), room=room)) == taken


def test_the_plain_step_that_stands_there_the_longest_comes_first() -> None:
    stored = Stored(Crowd(), room=9)
    order = ["p"]
    while stored.runs:
        run = next((one for one in stored.runs if not one.alone), stored.runs[0])
        stored.finish(run, room=9)
        order += [name for name in names(stored) if name in ("q", "r") and name not in order]
    assert order == ["p", "q", "r"]
    assert stored.instance.status == "Finished"


def test_while_a_plain_step_is_held_only_others_are_taken() -> None:
    stored = Stored(Crowd(), room=1)
    stored.write(room=9)
    assert names(stored) == ["p", "a", "b", "c"]
    assert len({run.token for run in stored.runs}) == 4
    assert [run.alone for run in stored.runs] == [True, False, False, False]


def test_an_attempt_is_counted_in_the_write_that_gives_its_lease() -> None:
    stored = Stored(Crowd(), room=1)
    thread = stored.instance.threads["crowd/p"]
    assert (thread.attempt, stored.runs[0].attempt) == (1, 1)
    assert thread.lease is not None
    assert thread.lease.till == stored.now + LEASE
    assert stored.runs[0].context.idempotency_key == f"u-{thread.visit}"


@pytest.mark.parametrize("timeout, length", [(MINUTE, MINUTE + MARGIN), (None, LEASE), (STEP_TIMEOUT, LEASE), (MINUTE * 60, LEASE)])
def test_a_lease_is_as_long_as_its_step_may_take_at_most_a_lease(timeout: timedelta | None, length: timedelta) -> None:
    class One(Base, name=f"One{timeout}"):
        def definition(self) -> Section[Any]:
            return S(self.plain("p", timeout=timeout))

    stored = Stored(One(), room=1)
    assert stored.instance.due_at == stored.now + length


@pytest.mark.parametrize("left, taken", [(MINUTE * 3, []), (MINUTE * 4, ["p"]), (MINUTE * 5, ["p"])])
def test_no_step_is_taken_whose_timeout_would_end_after_the_request(left: timedelta, taken: list[str]) -> None:
    class One(Base, name=f"Until{left}"):
        def definition(self) -> Section[Any]:
            return S(self.plain("p"))

    act = Stored(One()).load()
    assert [run.name for run in take(act, lambda: "t", room=9, until=act.now + left)] == taken


def test_nothing_is_taken_while_an_operator_pauses_or_before_a_retry_is_due() -> None:
    stored = Stored(Crowd())
    stored.say("pause")
    stored.write(room=9)
    assert stored.runs == []
    stored.say("resume")
    stored.write(room=1)
    stored.write(failed(stored.runs.pop(), ValueError(), at=stored.now))
    stored.write(room=9)
    assert "p" not in names(stored)
    stored.now += timedelta(seconds=1)
    stored.runs = [run for run in stored.runs if not run.alone]
    assert stored.instance.threads["crowd/p"].retry_at == stored.now


# -- renew, release, lapse ---------------------------------------------------------------------------------------------


def test_a_lease_is_renewed_by_its_token_alone() -> None:
    stored = Stored(Crowd(), room=1)
    run = stored.runs[0]
    stored.now += MINUTE
    assert stored.operate(lambda act: renew(act, run.token, run.timeout))
    lease = stored.instance.threads["crowd/p"].lease
    assert lease is not None
    assert lease.till == stored.now + LEASE
    pc = stored.instance.pc
    assert not stored.operate(lambda act: renew(act, "another", run.timeout))
    assert stored.instance.pc == pc
    stored.finish(run)
    assert not stored.operate(lambda act: renew(act, run.token, run.timeout))


def test_a_lease_given_back_gives_back_its_attempt() -> None:
    stored = Stored(Crowd(), room=1)
    assert stored.operate(lambda act: release(act, stored.runs[0].token))
    thread = stored.instance.threads["crowd/p"]
    assert (thread.lease, thread.attempt, stored.instance.due_at) == (None, 0, stored.now)
    assert not stored.operate(lambda act: release(act, stored.runs[0].token))


def test_a_lease_given_back_under_a_cancel_is_a_step_not_taken() -> None:
    class Slow(Base):
        def definition(self) -> Section[Any]:
            return S(Try(self.asked("slow", undo=self.undo)).Finally(self.plain("final")))

    stored = Stored(Slow(), room=1)
    stored.say("cancel")
    assert stored.main.lease is not None
    assert stored.operate(lambda act: release(act, stored.runs[0].token))
    assert stored.main.position == "try/finally/final"
    stored.write(room=9)
    stored.finish(stored.runs[-1])
    assert stored.instance.status == "Cancelled"


def test_the_first_loss_is_followed_at_once_and_the_second_by_the_backoff() -> None:
    stored = Stored(Crowd(), room=1)
    waits = []
    for _ in range(3):
        run = stored.runs.pop()
        stored.write(lapsed(run, at=stored.now))
        retry_at = stored.instance.threads["crowd/p"].retry_at
        assert retry_at is not None
        waits.append(retry_at - stored.now)
        stored.now = retry_at
        stored.write(room=1)
    assert waits == [timedelta(0), timedelta(seconds=2), timedelta(seconds=4)]


def test_a_lease_lapses_at_its_till_and_of_a_dead_process_at_once() -> None:
    class One(Base):
        def definition(self) -> Section[Any]:
            return S(self.plain("p"))

    stored = Stored(One(), room=1)
    assert not stored.wake(stored.now + LEASE - timedelta(microseconds=1)).changed
    assert stored.wake(stored.now + LEASE).instance.threads["main"].attempt == 2


# -- at most once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["lapse", "time out", "fail"])
def test_a_step_that_is_not_idempotent_is_never_repeated_by_itself(end: str) -> None:
    class Once(Base, name=f"Once{end}"):
        def definition(self) -> Section[Any]:
            once = self.asked("once", idempotent=False, undo=self.undo)
            return S(Try(once).Except(Uncertain, WaitEvent("uncertain")).Except(ValueError, WaitEvent("failed")))

    stored = Stored(Once(), room=1)
    run = stored.runs.pop()
    if end == "lapse":
        stored.write(lapsed(run, at=stored.now))
    else:
        stored.write(failed(run, TimeoutError() if end == "time out" else ValueError(), at=stored.now))
    stored.now += timedelta(days=1)
    stored.write(room=9)
    assert "once" not in names(stored)
    undone = [run for run in stored.runs if run.name == "undo once"]
    assert bool(undone) == (end != "fail")
    for one in undone:
        stored.finish(one)
    assert stored.main.position.endswith("failed" if end == "fail" else "uncertain")


# -- results -----------------------------------------------------------------------------------------------------------


def test_a_result_that_no_document_keeps_parks_its_thread_at_once() -> None:
    class Results(Base):
        any: Any = None

        def look(self) -> Any:
            return object()

        def definition(self) -> Section[Any]:
            return S(Step(self.look, into="any", retry=Retry(max_attempts=9)))

    stored = Stored(Results(), room=1)
    stored.finish(stored.runs[0])
    assert stored.instance.status == "Paused"
    assert stored.main.attempt == 1


def test_a_serializer_that_breaks_is_a_fault_of_the_code() -> None:
    from pydantic import BaseModel, model_serializer

    class Odd(BaseModel):
        @model_serializer
        def write(self) -> Any:
            raise AttributeError("in the serializer")

    class Results(Base):
        any: Any = None

        def look(self) -> Odd:
            return Odd()

        def put(self, odd: Odd) -> None: ...

        def definition(self) -> Section[Any]:
            return S(Step(self.look, then=self.put))

    stored = Stored(Results(), room=1)
    run = stored.runs[0]
    message = finished(run, run.call(), at=stored.now)
    assert message.fault
    stored.write(message)
    assert stored.main.error is not None
    assert "in the serializer" in stored.main.error.message


def test_a_changed_copy_is_found_where_it_is_looked_for() -> None:
    class Changing(Base):
        def change(self) -> int:
            self.log.append("a change of the copy")
            return 1

        def definition(self) -> Section[Any]:
            return S(Step(self.change, into="n"), Go("g", WaitEvent("x")), WaitEvent("y"))

    for watch in (True, False):
        stored = Stored(Changing(), room=1)
        run = stored.runs[0]
        message = finished(run, run.call(), at=stored.now, watch_copy=watch)
        assert message.fault == watch
        stored.write(message)
        assert stored.state == (b'{"n":0,"log":[]}' if watch else b'{"n":1,"log":[]}')


def test_a_cancelled_action_that_raises_cancelled_ends_as_cancelled() -> None:
    class Slow(Base):
        def definition(self) -> Section[Any]:
            return S(self.asked("slow"))

    stored = Stored(Slow(), room=1)
    stored.say("cancel")
    stored.write(failed(stored.runs[0], Cancelled(), at=stored.now))
    assert stored.instance.status == "Cancelled"
