"""docs/statements.md, `self.context`: what an action, a handler and a callable of the walk may know."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest
from pydantic import BaseModel

from asyncflow import (
    After,
    DefinitionError,
    For,
    ForEach,
    Go,
    If,
    On,
    Retry,
    Return,
    S,
    Section,
    Select,
    Step,
    WaitEvent,
    docs,
    event,
    query,
)
from tests.scenarios.drivers import START, evicted
from tests.scenarios.traced import Traced

HOUR = timedelta(hours=1)


class Seen(BaseModel):
    """One look at the context."""

    thread: str
    step: str
    attempt: int
    now: datetime
    caller: str | None
    key: str
    uuid: UUID
    number: float


LOOKS: list[Seen] = []
"""What was seen also by attempts whose state is gone."""


class Looking(Traced):
    looks: list[Seen] = []
    names: list[str] = []

    def look(self) -> Seen:
        context = self.context
        seen = Seen(
            thread=context.thread,
            step=context.step,
            attempt=context.attempt,
            now=context.now,
            caller=context.caller,
            key=context.idempotency_key,
            uuid=context.uuid(),
            number=context.random.random(),
        )
        LOOKS.append(seen)
        return seen

    def work(self) -> None:
        self.names = [self.context.workflow, self.context.id]
        self.context.logger.info("working")
        assert self.context.cancelled is False
        self.looks.append(self.look())

    def flaky(self) -> None:
        seen = self.look()
        if seen.attempt < 3:
            raise ConnectionError("no route")
        self.looks.append(seen)

    @event
    def poke(self) -> None:
        self.looks.append(self.look())

    def ring(self) -> None:
        self.looks.append(self.look())


class InSteps(Looking, name="Lookout"):
    def definition(self) -> Section[None]:
        return S(
            Step(self.work),
            Section("again", Step(self.work)),
            Go("child", Step("by the child", self.work), id=lambda: "c1"),
            WaitEvent("stop"),
        )


def test_a_step_knows_where_and_when_it_runs() -> None:
    run = evicted(InSteps(), now=START)
    first, second, child = run.state.looks
    assert run.state.names == ["Lookout", run.document["id"]]
    assert (first.thread, first.step, first.attempt, first.now, first.caller) == ("main", "work", 1, START, None)
    assert second.step == "work"
    assert (child.thread, child.step) == ("child/c1", "by the child")


def test_each_visit_has_a_key_of_its_own_and_what_is_seeded_by_it() -> None:
    """Rule 3."""
    run = evicted(InSteps())
    looks = run.state.looks
    assert len({look.key for look in looks}) == len({look.uuid for look in looks}) == 3
    assert len({look.number for look in looks}) == 3


class Retried(Looking):
    def definition(self) -> Section[None]:
        return S(Step(self.flaky, retry=Retry(delay=HOUR, factor=1, jitter=0)))


def test_all_attempts_have_the_same_key_uuid_and_random_numbers() -> None:
    """Rule 3."""
    LOOKS.clear()
    evicted(Retried(), now=START)
    assert [look.attempt for look in LOOKS] == [1, 2, 3]
    assert [look.now for look in LOOKS] == [START, START + HOUR, START + 2 * HOUR]
    assert len({(look.key, look.uuid, look.number) for look in LOOKS}) == 1


def test_a_crash_between_two_attempts_keeps_the_key() -> None:
    """Rules 3 and 12: save 3 would have finished the step, so it is run again."""
    LOOKS.clear()
    run = evicted(InSteps(), crash=("before", 3))
    first, second = LOOKS[:2]
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.key == second.key
    assert run.state.looks[0] == second


class InHandlers(Looking):
    def definition(self) -> Section[None]:
        return S(For("loop", True, Select("next", On(self.poke), After(HOUR, self.ring))))


def test_a_handler_of_an_event_knows_its_case_and_caller() -> None:
    run = evicted(InHandlers(), now=START)
    run.advance(timedelta(minutes=1))
    run.send(Looking.poke, caller="ann")
    (seen,) = run.state.looks
    assert (seen.thread, seen.step, seen.attempt, seen.caller) == ("main", "poke", 1, "ann")
    assert seen.now == START + timedelta(minutes=1)


def test_each_message_and_each_timer_has_a_key_of_its_own() -> None:
    run = evicted(InHandlers(), now=START)
    run.send(Looking.poke)
    run.send(Looking.poke)
    run.advance(HOUR)
    run.advance(HOUR)
    looks = run.state.looks
    assert [look.step for look in looks] == ["poke", "poke", "after", "after"]
    assert [look.caller for look in looks] == [None] * 4
    assert len({look.key for look in looks}) == len({look.uuid for look in looks}) == 4


class InWalk(Traced):
    until: timedelta = HOUR

    def definition(self) -> Section[str]:
        return S(
            If("at the start", lambda: self.context.now == START, WaitEvent("go on")),
            Select("nap", After(lambda: self.until if self.context.thread == "main" else None)),
            Return(lambda: f"{self.context.thread} {(self.context.now - START) / HOUR:g}"),
        )


def test_callables_of_the_walk_have_a_context() -> None:
    run = evicted(InWalk(), now=START)
    assert run.threads == {"main": "at the start/go on"}
    run.send("go on")
    run.advance(HOUR)
    assert run.output == "main 1"


class Item(BaseModel):
    name: str


class InItems(Looking):
    items: dict[str, Item]

    def say(self, item: Item) -> str:
        return f"{self.context.thread} {item.name}"

    def definition(self) -> Section[None]:
        return S(
            ForEach("items", lambda: self.items, lambda item: Step(self.say, item, then=self.mark), parallel=2),
        )


def test_an_item_is_the_thread_of_its_context() -> None:
    run = evicted(InItems(items={"a": Item(name="x"), "b": Item(name="y")}))
    assert sorted(run.state.log) == ["items/a x", "items/b y"]


class InDefinition(Traced):
    def definition(self) -> Section[str]:
        return S(Return(self.context.id))


class InQuery(Traced):
    @query
    def known(self) -> bool:
        try:
            return bool(self.context.id)
        except Exception:
            return False

    def definition(self) -> Section[None]:
        return S(WaitEvent("stop"))


def test_there_is_no_context_elsewhere() -> None:
    with pytest.raises(Exception, match="context"):
        _ = InQuery().context
    with pytest.raises(DefinitionError):
        docs(InDefinition)
    assert evicted(InQuery()).query(InQuery.known) is False
