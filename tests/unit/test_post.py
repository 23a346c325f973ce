"""`post`: what lies in the inbox and where, and what is answered at once (rules 9, 10, 14, 25, 27)."""

from datetime import timedelta
from typing import Any

import pytest

from asyncflow import (
    After,
    Ended,
    For,
    Full,
    Go,
    HandlerFailed,
    InvalidInput,
    KeyReused,
    Malformed,
    NotApplicable,
    NotFound,
    On,
    Parallel,
    Rejected,
    Return,
    S,
    Section,
    Select,
    Step,
    TooLarge,
    WaitEvent,
    WaitFor,
    Workflow,
    event,
    limits,
)
from asyncflow.leases import finished, lapsed
from asyncflow.post import post
from tests.unit.documents import Stored

SECOND = timedelta(seconds=1)


class Desk(Workflow):
    """Takes events while a plain step is in flight, and after it."""

    log: list[str] = []

    @event
    def add(self, text: str) -> int:
        if text == "no":
            raise Rejected("not this", details={"text": text})
        if text == "odd":
            raise Rejected("not this", details=object())  # type: ignore[arg-type]
        if text == "oops":
            raise KeyError(text)
        self.log.append(text)
        return len(self.log)

    @event
    def much(self) -> str:
        return "x" * (limits.ANSWER_BYTES + 1)

    @event
    def stop(self) -> None: ...

    def work(self) -> None:
        self.log.append("work")

    def definition(self) -> Section[Any]:
        wait = Select("wait", On(self.add), On(self.much), On(self.stop, Return("end")))
        return S(Step(self.work), For("loop", True, wait))


def held() -> Stored:
    return Stored(Desk(), room=1)


def free() -> Stored:
    stored = held()
    stored.finish(stored.runs[0])
    return stored


# -- answers at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, value, error, code",
    [
        ("nothing", None, NotFound, 404),
        ("add", None, InvalidInput, 422),
        ("add", b"3", InvalidInput, 422),
        ("stop", b"0", InvalidInput, 422),
        ("add", b'"\\u0000"', Malformed, 400),
        ("add", b'"' + b"x" * limits.BODY_BYTES + b'"', TooLarge, 413),
        ("add", b'"no"', Rejected, 409),
        ("add", b'"oops"', HandlerFailed, 500),
    ],
)
def test_a_refusal_has_its_code_and_changes_nothing(name: str, value: bytes | None, error: type[Exception], code: int) -> None:
    stored = free()
    before = stored.instance
    answer = stored.send(name, value, key="k")
    assert answer is not None
    assert answer.status == code
    assert type(answer.error) is error
    assert (stored.instance.state, stored.instance.pc, stored.instance.seen) == (before.state, before.pc, before.seen)


def test_what_a_handler_failed_with_is_in_the_history_with_the_input() -> None:
    stored = free()
    stored.send("add", b'"oops"')
    (record,) = [one for one in stored.records if one["kind"] == "refused"]
    assert (record["event"], record["input"], record["error"]["type"]) == ("add", "oops", "KeyError")


def test_verbs_of_a_later_release_are_refused() -> None:
    answer = free().say("goto")
    assert answer is not None
    assert isinstance(answer.error, NotApplicable)


def test_a_second_end_does_nothing() -> None:
    stored = free()
    stored.say("kill")
    before = stored.text
    for verb in ("cancel", "kill"):
        answer = stored.say(verb)
        assert answer is not None
        assert (answer.status, answer.error) == (200, None)
    assert stored.text == before


def test_an_ended_instance_takes_nothing() -> None:
    stored = free()
    stored.send("stop")
    before = stored.text
    said = [stored.say(verb) for verb in ("pause", "retry", "cancel", "kill")]
    for refused in (stored.send("add", b'"a"'), *said):
        assert refused is not None
        assert isinstance(refused.error, Ended)
    assert stored.text == before


# -- keys --------------------------------------------------------------------------------------------------------------


def test_a_key_gives_its_answer_again_and_the_handler_runs_once() -> None:
    stored = free()
    for _ in range(2):
        answer = stored.send("add", b'"a"', key="k", hash="h")
        assert answer is not None
        assert answer.value == b"2"
    other = stored.send("add", b'"b"', key="k", hash="other")
    assert other is not None
    assert isinstance(other.error, KeyReused)
    stored.send("stop")
    late = stored.send("add", b'"a"', key="k", hash="h")
    assert late is not None
    assert late.value == b"2"


def test_the_key_of_a_refused_event_may_try_again() -> None:
    stored = free()
    stored.send("add", b'"no"', key="k", hash="h")
    answer = stored.send("add", b'"b"', key="k", hash="i")
    assert answer is not None
    assert answer.value == b"2"


@pytest.mark.parametrize("text, details", [("no", {"text": "no"}), ("odd", None)])
def test_the_refusal_of_a_message_that_had_lain_is_kept(text: str, details: Any) -> None:
    stored = held()
    value = f'"{text}"'.encode()
    assert stored.send("add", value, key="k", hash="h") is None
    assert stored.send("add", value, key="k", hash="h") is None
    assert len(stored.instance.inbox) == 1
    reused = stored.send("add", b'"c"', key="k", hash="i")
    assert reused is not None
    assert reused.status == 422
    stored.finish(stored.runs[0])
    answer = stored.send("add", value, key="k", hash="h")
    assert answer is not None
    assert isinstance(answer.error, Rejected)
    assert (answer.error.message, answer.error.code, answer.error.details) == ("not this", 409, details)


def test_an_answer_that_is_too_large_to_keep_is_given_once() -> None:
    stored = free()
    first = stored.send("much", key="k")
    again = stored.send("much", key="k")
    assert first is not None
    assert first.value is not None
    assert again is not None
    assert (again.status, again.value, again.dropped) == (200, None, True)
    assert len(stored.text) < limits.ANSWER_BYTES


def test_an_id_without_a_key_is_recognised_but_its_answer_is_not_kept() -> None:
    stored = free()
    message = stored.message("event", name="add", value=b'"a"')
    stored.write(message)
    again = stored.write(message)[message.id]
    assert (again.status, again.dropped) == (200, True)
    assert stored.instance.state.count(b'"a"') == 1


# -- order -------------------------------------------------------------------------------------------------------------


class Race(Workflow):
    def definition(self) -> Section[str]:
        return S(Select("race", On("event", Return("event")), After(SECOND * 10, Return("timer"))))


@pytest.mark.parametrize(
    "came, written, winner",
    [(9, 9, "event"), (9, 11, "event"), (10, 12, "event"), (10.001, 12, "timer"), (11, 11, "timer"), (15, 9, "event")],
)
def test_an_event_has_the_time_it_came_and_not_that_of_its_write(came: float, written: float, winner: str) -> None:
    stored = Stored(Race())
    start = stored.now
    stored.now = start + SECOND * came
    message = stored.message("event", name="event")
    stored.now = start + SECOND * written
    stored.write(message)
    assert stored.instance.output == winner


def test_messages_lie_by_their_times_and_equal_times_as_they_came() -> None:
    stored = held()
    first = stored.message("event", key="a", after=-SECOND, name="stop")
    stored.write(stored.message("event", key="b", name="stop"), stored.message("event", key="c", name="stop"), first)
    assert [message.id for message in stored.instance.inbox] == ["a", "b", "c"]


def test_results_of_one_write_keep_the_order_in_which_their_steps_were_taken() -> None:
    class Two(Workflow):
        log: list[str] = []

        def ask(self, text: str) -> str:
            return text

        def put(self, text: str) -> None:
            self.log.append(text)

        def definition(self) -> Section[Any]:
            return S(Parallel("p", *(Step(name, self.ask, name, then=self.put) for name in "abc")), WaitEvent("end"))

    stored = Stored(Two(), room=3)
    ends = [stored.now + SECOND * after for after in (3, 1, 2)]
    stored.now += SECOND * 5
    stored.write(*(finished(run, run.call(), at=at) for run, at in zip(stored.runs, ends, strict=True)))
    assert b'["a","b","c"]' in stored.state


# -- results and lapses ------------------------------------------------------------------------------------------------


def test_a_result_whose_token_is_gone_is_dropped_before_it_reaches_the_inbox() -> None:
    stored = held()
    run = stored.runs[0]
    stored.now += timedelta(hours=1)
    stored.write(lapsed(run, at=stored.now), room=1)
    newer = stored.runs[1]
    before = stored.text
    stored.write(finished(run, run.call(), at=stored.now))
    assert stored.text == before
    act = stored.load()
    post(act, finished(run, None, at=stored.now))
    assert act.instance.inbox == []
    assert not act.changed
    stored.finish(newer)
    assert stored.state == b'{"log":["work"]}'


def test_a_result_that_lies_takes_away_till_so_that_nobody_lapses_it() -> None:
    class Beside(Workflow):
        n: int = 0

        def ask(self) -> int:
            return 7

        def work(self) -> None: ...

        def definition(self) -> Section[Any]:
            return S(Go("g", Step(self.ask, into="n")), Step(self.work), WaitFor("end", timedelta(days=9)))

    stored = Stored(Beside(), room=2)
    plain, beside = sorted(stored.runs, key=lambda run: not run.alone)
    stored.finish(beside)
    lease = stored.instance.threads["g"].lease
    assert lease is not None
    assert lease.till is None
    assert stored.instance.due_at == stored.main.lease.till  # type: ignore[union-attr]
    stored.now += timedelta(days=1)
    stored.finish(plain)
    assert stored.state == b'{"n":7}'


# -- kill, and words while a step is held ------------------------------------------------------------------------------


def test_kill_acts_at_once_also_while_a_step_is_held() -> None:
    stored = held()
    stored.send("add", b'"a"', key="lies")
    message = stored.message("kill")
    answers = stored.write(message)
    assert stored.instance.status == "Cancelled"
    assert answers["lies"].status == 410
    refused = [one for one in stored.records if one["kind"] == "refused"]
    assert [(one["message_id"], one["event"]) for one in refused] == [("lies", "add")]
    assert "has ended (Cancelled) before the event 'add' had its turn" in refused[0]["error"]["message"]
    assert stored.records[-1]["kind"] == "ended"
    assert answers[message.id].error is None
    assert stored.instance.threads == {}
    before = stored.text
    stored.finish(stored.runs[0])
    assert stored.text == before


def test_operators_words_that_lie_when_the_instance_ends_are_answered_and_noted() -> None:
    stored = held()
    for verb in ("pause", "cancel"):
        stored.write(stored.message(verb, key=verb))
    answers = stored.write(stored.message("kill"))
    assert (answers["pause"].status, answers["cancel"].status) == (410, 200)
    assert [one["event"] for one in stored.records if one["kind"] == "refused"] == ["pause"]


def test_a_cancel_of_a_held_step_is_told_to_its_action() -> None:
    stored = held()
    pc = stored.instance.pc
    assert stored.say("cancel") is None
    lease = stored.main.lease
    assert lease is not None
    assert lease.cancel
    assert stored.instance.pc > pc
    assert stored.instance.control.cancel is None


# -- limits ------------------------------------------------------------------------------------------------------------


def test_a_full_inbox_refuses_by_number_and_by_bytes() -> None:
    stored = held()
    big = b'"' + b"x" * (limits.INBOX_BYTES // 2) + b'"'
    assert stored.send("add", big) is None
    full = stored.send("add", big)
    assert full is not None
    assert isinstance(full.error, Full)
    stored = held()
    messages = [stored.message("event", name="stop") for _ in range(limits.INBOX_EVENTS + 1)]
    answers = stored.write(*messages)
    assert [answer.status for answer in answers.values()] == [429]
    assert len(stored.instance.inbox) == limits.INBOX_EVENTS
