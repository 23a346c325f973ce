"""Leaving statements: undos, cancels and errors across threads, where they meet (rules 29, 30, 32)."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from asyncflow import (
    Cancelled,
    ForEach,
    Go,
    Parallel,
    Raise,
    Retry,
    Return,
    S,
    Section,
    Simulation,
    Statement,
    Step,
    TerminalError,
    Try,
    WaitEvent,
    Workflow,
    limits,
    simulate,
)
from asyncflow.testing import every_crash

ONCE = Retry(max_attempts=1)
GRACE = timedelta(seconds=limits.CANCEL_GRACE_SECONDS)


class Item(BaseModel):
    n: int = 0


class Base(Workflow):
    log: list[str] = []
    items: dict[str, Item] = {"a": Item(), "b": Item()}
    n: int = 0

    def note(self, text: str) -> None:
        self.log.append(text)

    def back(self, text: str) -> None:
        self.log.append(f"undo {text}")

    def ask(self, text: str) -> str:
        return text

    def did(self, text: str, *, undo: bool = True) -> Statement[Any]:
        return Step(text, self.note, text, undo=self.back if undo else None)


def run(workflow: Base, **arguments: Any) -> Simulation[Any]:
    return simulate(workflow, evict=True, skip_backoff=False, **arguments)


# -- undo --------------------------------------------------------------------------------------------------------------


def test_undos_of_branches_go_by_the_time_their_steps_finished() -> None:
    class Branches(Base):
        def definition(self) -> Section[Any]:
            one = S(WaitEvent("e1"), self.did("1"), WaitEvent("e4"), self.did("4"), WaitEvent("e6"))
            two = S(WaitEvent("e2"), self.did("2"), WaitEvent("e3"), self.did("3"), WaitEvent("e5"))
            return S(Try(self.did("0"), Parallel("p", one, two), Raise(ValueError())).Except(ValueError))

    sim = run(Branches())
    for event in ("e1", "e2", "e3", "e4", "e5", "e6"):
        sim.send(event)
    assert sim.status == "Finished"
    assert sim.state.log[5:] == ["undo 4", "undo 3", "undo 2", "undo 1", "undo 0"]


@pytest.mark.parametrize("verbs", [("skip",), ("retry", "skip"), ("pause", "resume", "skip"), ("cancel", "skip")])
def test_an_operator_can_help_a_parked_undo_while_the_instance_fails(verbs: tuple[str, ...]) -> None:
    class Failing(Base):
        def broken(self, text: str) -> None:
            raise TerminalError("cannot be undone")

        def definition(self) -> Section[Any]:
            return S(self.did("first"), Step("x", self.note, "x", undo=self.broken), Raise(ValueError("why")))

    sim = run(Failing())
    assert sim.status == "Paused"
    for verb in verbs:
        assert sim.status == "Paused"
        getattr(sim, verb)()
    assert sim.status == "Failed"
    assert sim.error is not None
    assert sim.error.message == "why"
    assert sim.state.log == ["first", "x", "undo first"]


def test_an_undo_whose_exception_its_policy_does_not_name_is_parked_at_once() -> None:
    class Named(Base):
        def broken(self, text: str) -> None:
            raise KeyError(text)

        def definition(self) -> Section[Any]:
            step = Step("x", self.note, "x", undo=self.broken, retry=Retry(on=OSError))
            return S(Try(step, Raise(ValueError())).Except(ValueError))

    sim = run(Named())
    assert sim.status == "Paused"
    assert sim.steps == ["x", "undo x"]


@pytest.mark.parametrize("plain", [True, False])
def test_a_step_that_takes_its_own_item_away_can_be_undone(plain: bool) -> None:
    class Taking(Base):
        def take(self, item: Item) -> None:
            self.items.pop("a", None)

        def look(self, item: Item) -> int:
            return item.n

        def taken(self, n: int) -> None:
            self.items.pop("a", None)

        def give_back(self, item: Item) -> None:
            self.log.append(f"undo {item.n}")

        def definition(self) -> Section[Any]:
            def body(item: Item) -> Section[Any]:
                if plain:
                    return S(Step("take", self.take, item, undo=self.give_back))
                return S(Step("take", self.look, item, then=self.taken, undo=self.give_back))

            return S(Try(ForEach("each", lambda: self.items, body), Raise(ValueError())).Except(ValueError))

    sim = run(Taking(items={"a": Item(n=7), "b": Item(n=8)}))
    assert sim.status == "Finished"
    assert sim.state.log == ["undo 8", "undo 7"]


@pytest.mark.filterwarnings("ignore::asyncflow.checks.DefinitionWarning")
@pytest.mark.parametrize("parallel", [1, 2])
def test_the_undos_of_an_item_that_is_gone_go_to_the_try_around_the_loop(parallel: int) -> None:
    class Gone(Base):
        def drop(self) -> None:
            self.items.pop("a", None)

        def body(self, item: Item) -> Section[Any]:
            deep = Parallel("deep", S(Try(self.did("3"), WaitEvent("x"))), S(WaitEvent("y")))
            return S(self.did("1"), Try("inner", self.did("2"), Parallel("p", S(deep))))

        def definition(self) -> Section[Any]:
            each = ForEach("each", lambda: self.items, self.body, parallel=parallel)
            gone = Go("gone", WaitEvent("drop", Step(self.drop)))
            return S(gone, Try(self.did("0"), each, Raise(ValueError())).Except(ValueError), Return("end"))

    sim = run(Gone(items={"a": Item()}))
    sim.send("drop")
    assert sim.output == "end"
    assert sim.state.log == ["0", "1", "2", "3", "undo 3", "undo 2", "undo 1", "undo 0"]


@pytest.mark.filterwarnings("ignore::asyncflow.checks.DefinitionWarning")
@pytest.mark.parametrize("parallel", [1, 2])
def test_an_undo_that_takes_its_own_item_away_ends_what_runs_in_the_item(parallel: int) -> None:
    class Taking(Base):
        def drop(self, text: str) -> None:
            self.items.pop("a", None)
            self.back(text)

        def definition(self) -> Section[Any]:
            def body(item: Item) -> Section[Any]:
                tried = Try(self.did("one"), Step("two", self.note, "two", undo=self.drop), Raise(ValueError()))
                return S(tried.Except(ValueError, self.did("caught", undo=False)).Finally(self.did("final", undo=False)))

            return S(ForEach("each", lambda: self.items, body, parallel=parallel), Return("end"))

    sim = run(Taking())
    assert sim.output == "end"
    assert sim.state.log.count("caught") == 1
    assert sim.state.log.count("final") == 1


def test_what_may_have_happened_is_undone_also_past_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNDO_ENTRIES", 2)

    class Many(Base):
        last: str = ""

        def definition(self) -> Section[Any]:
            lost = Step("lost", self.ask, "x", into="last", undo=self.back)
            return S(Try(self.did("1"), self.did("2"), lost).Except(Cancelled))

    sim = run(Many(), hold={"lost"})
    for _ in range(2):
        sim.held("lost").lapse()
    sim.cancel()
    assert sim.state.log == ["1", "2", "undo x", "undo 2", "undo 1"]


def test_a_step_that_would_pass_the_limit_of_undos_is_parked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNDO_ENTRIES", 1)

    class Many(Base):
        def definition(self) -> Section[Any]:
            return S(Try(self.did("1"), self.did("2")))

    sim = run(Many())
    assert sim.status == "Paused"
    assert sim.error is not None
    assert sim.error.type == "Full"


# -- faults ------------------------------------------------------------------------------------------------------------


class Faulty(Base):
    broken: bool = True

    def put(self, text: str) -> None:
        raise ValueError("a fault of the code")

    def definition(self) -> Section[Any]:
        step = Step("fault", self.ask, "x", then=self.put, undo=self.back)
        return S(Try(step).Finally(self.did("final", undo=False)))


def test_a_fault_under_a_cancel_does_not_swallow_the_cancel() -> None:
    sim = run(Faulty(), hold={"fault"})
    held = sim.held("fault")
    sim.cancel()
    held.finish()
    assert sim.status == "Cancelled"
    assert sim.state.log == ["undo x", "final"]


def test_a_step_parked_by_a_fault_has_taken_effect_and_is_undone_by_a_cancel() -> None:
    sim = run(Faulty())
    assert sim.status == "Paused"
    sim.cancel()
    assert sim.state.log == ["undo x", "final"]


# -- cancel ------------------------------------------------------------------------------------------------------------


class Shielded(Base):
    def definition(self) -> Section[Any]:
        final = Parallel(
            "final",
            S(WaitEvent("a"), self.did("after a", undo=False)),
            S(Try(WaitEvent("b")).Except(Cancelled, self.did("interrupted")), self.did("after b", undo=False)),
        )
        return S(Try(WaitEvent("x")).Finally(final), self.did("never"))


def test_branches_begun_in_a_finally_are_not_interrupted_by_a_cancel() -> None:
    sim = run(Shielded())
    sim.send("x")
    sim.cancel()
    assert sim.waiting == {"a", "b"}
    sim.send("b")
    sim.send("a")
    assert sim.status == "Cancelled"
    assert sim.state.log == ["after b", "after a"]


def test_an_error_cancels_the_other_branches_also_after_a_cancel() -> None:
    class After(Base):
        def definition(self) -> Section[Any]:
            failing = S(WaitEvent("a"), Raise(ValueError("of the Finally")))
            return S(Try(WaitEvent("x")).Finally(Parallel("p", failing, S(WaitEvent("b")))))

    sim = run(After())
    sim.cancel()
    sim.send("a")
    assert sim.status == "Failed"
    assert sim.error is not None
    assert sim.error.message == "of the Finally"


@pytest.mark.parametrize("where", ["finally", "fork", "undo"])
def test_a_cancel_is_not_lost_with_an_item_that_is_gone(where: str) -> None:
    class Losing(Base):
        def drop(self, text: str = "") -> None:
            self.items.pop("a", None)

        def body(self, item: Item) -> Section[Any]:
            if where == "finally":
                return S(Try(WaitEvent("go")).Finally(Step(self.drop), WaitEvent("more")))
            if where == "undo":
                return S(Try(Step("x", self.note, "x", undo=self.drop), WaitEvent("go")).Finally(WaitEvent("more")))
            return S(Parallel("p", Try(WaitEvent("go")).Finally(Step(self.drop), WaitEvent("more")), WaitEvent("other")))

        def definition(self) -> Section[Any]:
            return S(ForEach("each", lambda: self.items, self.body), Return("went on"))

    sim = run(Losing())
    sim.cancel()
    assert sim.status == "Cancelled"
    assert sim.threads == {}


def test_actions_have_their_grace_and_then_their_outcome_is_unknown() -> None:
    class Slow(Base):
        last: str = ""

        def definition(self) -> Section[Any]:
            slow = Step("slow", self.ask, "x", into="last", undo=self.back)
            return S(Try(slow, self.did("never")).Finally(self.did("final", undo=False)))

    sim = run(Slow(), hold={"slow"})
    zombie = sim.held("slow")
    sim.cancel()
    sim.advance(GRACE - timedelta(seconds=1))
    assert sim.status == "Running"
    sim.advance(timedelta(seconds=1))
    assert sim.status == "Cancelled"
    assert sim.state.log == ["undo x", "final"]
    before = sim.document
    zombie.finish()
    assert sim.document == before


@pytest.mark.filterwarnings("ignore::asyncflow.checks.DefinitionWarning")
def test_everything_at_once_undoes_and_cleans_up_once_in_every_way_of_crashing() -> None:
    class Everything(Base):
        def definition(self) -> Section[Any]:
            def body(item: Item) -> Section[Any]:
                return S(Try(self.did("item"), WaitEvent("x")).Finally(self.did("if")))

            caught = Try(self.did("p1"), WaitEvent("x")).Except(Cancelled, self.did("pc")).Finally(self.did("pf"))
            fork = Parallel("p", S(caught), S(ForEach("each", lambda: self.items, body, parallel=2)))
            return S(
                Go("g", self.did("g1"), Try(self.did("g2"), WaitEvent("x")).Finally(self.did("gf"))),
                Go("h", self.did("h1")),
                Try(self.did("m1"), fork).Except(Cancelled, Return("handled")).Finally(self.did("mf", undo=False)),
            )

    def outcome(simulate: Any) -> Any:
        sim = simulate(Everything())
        sim.cancel()
        return sim.status, sim.output, sim.state.log

    status, output, log = every_crash(outcome)
    assert (status, output) == ("Finished", "handled")
    done = [text for text in log if not text.startswith("undo")]
    undone = [text.removeprefix("undo ") for text in log if text.startswith("undo")]
    assert sorted(undone) == sorted(text for text in done if text != "mf")
