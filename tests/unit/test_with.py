"""The settings of a `With` are those of every step inside, in the bodies of items too."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from asyncflow import ForEach, Go, Join, Parallel, Retry, S, Section, Statement, Step, Try, With, Workflow, simulate

TWICE = Retry(max_attempts=2, exhausted="raise", delay=timedelta(seconds=1), jitter=0)


class Item(BaseModel):
    name: str = ""


class Base(Workflow):
    items: dict[str, Item] = {"a": Item()}
    caught: int = 0

    def work(self, item: Item) -> str:
        raise ConnectionError(item.name)

    def took(self, result: str) -> None: ...

    def count(self, _: object) -> None:
        self.caught += 1

    def one(self, item: Item) -> Statement[Any]:
        return Step(self.work, item, then=self.took)


class InOrder(Base):
    def definition(self) -> Section[None]:
        return S(Try(With(retry=TWICE)(ForEach("each", lambda: self.items, self.one))).Except(ConnectionError, self.count))


class SideBySide(Base):
    def definition(self) -> Section[None]:
        loop = ForEach("each", lambda: self.items, self.one, parallel=2)
        return S(Try(With(retry=TWICE)(loop)).Except(ConnectionError, self.count))


class Nested(Base):
    def inner(self, item: Item) -> ForEach[None]:
        return ForEach("inner", lambda: self.items, self.one)

    def definition(self) -> Section[None]:
        return S(Try(With(retry=TWICE)(ForEach("outer", lambda: self.items, self.inner))).Except(ConnectionError, self.count))


class InBranch(Base):
    def definition(self) -> Section[None]:
        loop = ForEach("each", lambda: self.items, self.one)
        return S(Try(With(retry=TWICE)(Parallel("both", loop))).Except(ConnectionError, self.count))


@pytest.mark.parametrize("workflow", [InOrder, SideBySide, Nested, InBranch])
@pytest.mark.parametrize("evict", [False, True])
def test_a_retry_around_a_loop_is_that_of_its_items_steps(workflow: type[Base], evict: bool) -> None:
    sim = simulate(workflow(), evict=evict)
    assert sim.steps == ["work", "work"]
    assert sim.status == "Finished"
    assert sim.state.caught == 1


class OfAThread(Base):
    def definition(self) -> Section[None]:
        start = Go("go", lambda: self.items, self.one, id=lambda: "a")
        return S(With(retry=TWICE)(start), Join("go"))


def test_a_retry_around_a_go_of_items_is_that_of_its_steps() -> None:
    sim = simulate(OfAThread())
    assert sim.steps == ["work", "work"]
    assert sim.status == "Failed"


class Innermost(Base):
    def one(self, item: Item) -> Section[None]:
        return With(retry=Retry(max_attempts=3, exhausted="raise", jitter=0))(Step(self.work, item, then=self.took))

    def definition(self) -> Section[None]:
        return S(Try(With(retry=TWICE)(ForEach("each", lambda: self.items, self.one))).Except(ConnectionError, self.count))


def test_the_innermost_with_wins_inside_an_item() -> None:
    assert simulate(Innermost()).steps == ["work"] * 3


class AtMostOnce(Base):
    def definition(self) -> Section[None]:
        return S(With(idempotent=False)(ForEach("each", lambda: self.items, self.one)))


def test_at_most_once_around_a_loop_holds_for_its_items_steps() -> None:
    sim = simulate(AtMostOnce(), hold={"work"})
    sim.held("work").lapse()
    assert sim.steps == ["work"]
    assert sim.error is not None
    assert sim.error.type == "Uncertain"
