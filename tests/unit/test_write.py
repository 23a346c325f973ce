"""One write: what is kept of `seen`, labels, limits of the document, a document due for nothing (rules 1, 11, 27)."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import Field
from pydantic_core import from_json, to_json

from asyncflow import For, On, Retry, S, Section, Select, Step, WaitEvent, Workflow, event, limits
from asyncflow.instance import Seen
from asyncflow.leases import failed
from tests.unit.documents import START, Stored

DAY = timedelta(days=1)


class Echo(Workflow):
    size: int = 0

    @event
    def echo(self, size: int) -> str:
        self.size = size
        return "x" * size

    def definition(self) -> Section[Any]:
        return S(For("loop", True, WaitEvent(self.echo)))


def filled(*seen: Seen) -> Stored:
    """An instance that has seen these, and one message more."""
    stored = Stored(Echo())

    def fill(act: Any) -> None:
        act.instance.seen += seen
        act.changed = True

    stored.operate(fill)
    stored.send("echo", b"1", key="newest", hash="h")
    return stored


def ids(stored: Stored) -> list[str]:
    return [one.id for one in stored.instance.seen]


def test_bare_ids_and_keys_have_each_their_number() -> None:
    bare = [Seen(f"b{n}") for n in range(limits.SEEN_BARE_IDS + 5)]
    keyed = [Seen(f"k{n}", START, "", 200) for n in range(20)]
    left = ids(filled(*bare, *keyed))
    assert [one for one in left if one.startswith("b")] == [f"b{n}" for n in range(5, limits.SEEN_BARE_IDS + 5)]
    assert [one for one in left if one.startswith("k")] == [f"k{n}" for n in range(20)]


def test_keys_are_kept_for_seven_days_also_behind_bare_ids() -> None:
    stored = filled(Seen("bare"), Seen("old", START - DAY * 7, "", 200, 1), Seen("young", START - DAY * 6, "", 200, 1))
    assert ids(stored) == ["bare", "old", "young", "newest"]
    stored.now += timedelta(seconds=1)
    stored.say("pause")
    assert "old" not in ids(stored)
    assert {"bare", "young", "newest"} <= set(ids(stored))


def test_the_oldest_answers_are_dropped_first_and_a_repeat_is_told_so() -> None:
    answer = "x" * (limits.ANSWER_BYTES - 100)
    stored = filled(*(Seen(f"k{n}", START, "h", 200, answer) for n in range(3)))
    kept = {one.id: (one.dropped, one.answer) for one in stored.instance.seen}
    assert kept["k0"] == (True, None)
    assert kept["k2"] == (False, answer)
    assert kept["newest"] == (False, "x")
    assert len(to_json([one.answer for one in stored.instance.seen])) < limits.SEEN_BYTES
    again = stored.send("echo", b"1", key="k0", hash="h")
    assert again is not None
    assert again.dropped


def test_few_large_answers_are_counted_too() -> None:
    stored = Stored(Echo())
    for n in range(8):
        stored.send("echo", str(30_000 + n).encode(), key=f"k{n}")
    assert len(stored.text) < limits.SEEN_BYTES + 2_000
    assert stored.instance.seen[-1].answer == "x" * 30_007


def test_many_ids_never_push_out_the_newest_answer() -> None:
    stored = filled(*(Seen("k" * 100 + str(n), START, "h" * 32, 200) for n in range(limits.SEEN_IDS)))
    assert ids(stored)[-1] == "newest"
    assert stored.instance.seen[-1].answer == "x"
    assert len(stored.text) < limits.SEEN_BYTES * 2


@pytest.mark.parametrize("answer", [0, "", False, [], None])
def test_an_answer_that_is_false_is_given_again(answer: Any) -> None:
    stored = filled(Seen("k", START, "h", 200, answer))
    again = stored.send("echo", b"1", key="k", hash="h")
    assert again is not None
    assert not again.dropped
    assert from_json(again.value or b"") == answer


# -- labels ------------------------------------------------------------------------------------------------------------


def test_labels_are_there_from_the_create_on_and_follow_the_state() -> None:
    class Labelled(Workflow, labels=("customer", "size")):
        customer: str = Field(alias="theCustomer")
        size: int = 0

        @event
        def grow(self) -> None:
            self.size += 1

        def definition(self) -> Section[Any]:
            return S(For("loop", True, WaitEvent(self.grow)))

    stored = Stored(Labelled(theCustomer="ann"))
    assert stored.instance.labels == {"customer": "ann", "size": 0}
    stored.send("grow")
    assert stored.instance.labels == {"customer": "ann", "size": 1}


# -- limits ------------------------------------------------------------------------------------------------------------


class Growing(Workflow):
    text: str = ""

    @event
    def fill(self, size: int) -> None:
        self.text = "x" * size

    @event
    def empty(self) -> None:
        self.text = ""

    def bigger(self) -> None:
        self.text = "x" * (limits.DOCUMENT_BYTES - 1_500)

    def fail(self) -> None:
        raise ValueError("y" * limits.ERROR_TEXT_BYTES)

    def definition(self) -> Section[Any]:
        wait = Select("wait", On(self.fill), On("on"))
        fail = Step(self.fail, retry=Retry(max_attempts=1))
        return S(wait, Step(self.bigger), fail, WaitEvent(self.empty), WaitEvent("end"))


def test_an_event_that_would_take_the_room_of_steps_is_refused_and_the_last_good_document_stays() -> None:
    stored = Stored(Growing())
    before = stored.text
    answer = stored.send("fill", str(limits.DOCUMENT_EVENT_BYTES).encode())
    assert answer is not None
    assert answer.status == 429
    assert stored.text == before


def test_a_full_document_can_still_say_what_went_wrong_and_be_emptied() -> None:
    stored = Stored(Growing())
    stored.send("on")
    stored.write(room=1)
    stored.finish(stored.runs[0], room=1)
    run = stored.runs[0]
    with pytest.raises(ValueError, match="yyy") as caught:
        run.call()
    stored.write(failed(run, caught.value, at=stored.now))
    failure = stored.main.error
    assert failure is not None
    assert (str(stored.instance.status), failure.type) == ("Paused", "ValueError")
    while stored.main.position != "empty":
        stored.say("skip")
    answer = stored.send("empty")
    assert answer is not None
    assert answer.error is None
    assert len(stored.text) + len(stored.state) < 10_000


# -- due for nothing ---------------------------------------------------------------------------------------------------


def test_a_document_that_is_due_for_nothing_is_saved_once_more() -> None:
    class Runaway(Workflow):
        n: int = 0

        def work(self) -> None: ...

        def definition(self) -> Section[Any]:
            return S(WaitEvent("go"), For("loop", True, For("empty", lambda: self.n > 0, Step(self.work))))

    stored = Stored(Runaway())
    stored.send("go")
    assert stored.instance.due_at == stored.now
    revisions = []
    for _ in range(4):
        stored.now += timedelta(minutes=1)
        stored.write()
        revisions.append(stored.instance.rev)
    ended = stored.instance
    failure = ended.threads["main"].error
    assert failure is not None
    assert (failure.type, ended.due_at) == ("RunawayWorkflow", None)
    assert revisions[-1] == revisions[-2]
