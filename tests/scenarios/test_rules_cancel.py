"""Rules 29 and 30: cancel, kill, and what the end of main does to the others."""

from datetime import timedelta
from typing import Never

import pytest

from asyncflow import (
    Cancelled,
    Ended,
    Failure,
    Go,
    Join,
    Parallel,
    Raise,
    Retry,
    Return,
    S,
    Section,
    Step,
    TerminalError,
    Try,
    WaitEvent,
    WaitFor,
    event,
)
from tests.scenarios.drivers import evicted
from tests.scenarios.traced import Traced, trace


class Cancelling(Traced):
    def step(self, name: str) -> Step:
        return Step(name, self.mark, name)

    def note(self, failure: Failure) -> None:
        self.mark(f"caught {failure.type}")

    def call(self) -> None:
        self.mark("call")

    def fetch(self) -> int:
        return 1

    def fetched(self, number: int) -> None:
        self.mark(f"fetched {number}")


class AtAWait(Cancelling):
    def definition(self) -> Section[None]:
        return S(
            Try(WaitEvent("go on"), self.step("rest"))
            .Except(Exception, self.note, self.step("not here"))
            .Finally(self.step("finally")),
            self.step("not here either"),
        )


def test_a_cancel_is_raised_at_a_wait_and_passes_by_exception() -> None:
    run = evicted(AtAWait())
    run.cancel()
    assert run.status == "Cancelled"
    assert trace(run) == "finally"
    assert run.threads == {}
    assert run.output is None


def test_a_second_cancel_does_nothing_and_all_else_finds_the_end() -> None:
    run = evicted(AtAWait())
    run.cancel()
    before = run.document
    run.cancel()
    run.kill()
    assert run.document == before
    with pytest.raises(Ended):
        run.send("go on")
    with pytest.raises(Ended):
        run.pause()
    with pytest.raises(Ended):
        run.retry()


class Named(Cancelling):
    def definition(self) -> Section[int]:
        return S(
            Try(WaitEvent("go on"), Return(1)).Except(Cancelled, self.note, Return(0)).Finally(self.step("finally")),
        )


def test_an_except_that_names_cancelled_may_finish() -> None:
    run = evicted(Named())
    run.cancel()
    assert run.status == "Finished"
    assert run.output == 0
    assert trace(run) == "caught Cancelled;finally"


class RunsOn(Cancelling):
    def definition(self) -> Section[str]:
        return S(
            Try(WaitEvent("go on")).Except(Cancelled, self.note),
            WaitEvent("later"),
            Return("done"),
        )


def test_a_cancel_is_raised_once() -> None:
    """Rule 29: what main makes of it afterwards is its own affair."""
    run = evicted(RunsOn())
    run.cancel()
    assert run.threads == {"main": "later"}
    run.send("later")
    assert run.status == "Finished"
    assert run.output == "done"


class AtAStep(Cancelling):
    def definition(self) -> Section[None]:
        policy = Retry(delay=timedelta(hours=1), max_attempts=2, jitter=0)
        return S(Try(Step(self.call, retry=policy), self.step("rest")).Finally(self.step("finally")))


def fails() -> None:
    raise ConnectionError("no route")


def test_a_cancel_is_raised_in_a_backoff() -> None:
    run = evicted(AtAStep(), stubs={Cancelling.call: fails}, skip_backoff=False)
    run.cancel()
    assert run.status == "Cancelled"
    assert trace(run) == "finally"
    assert run.steps == ["call", "finally"]


def test_a_cancel_is_raised_where_a_thread_is_parked() -> None:
    run = evicted(AtAStep(), stubs={Cancelling.call: fails})
    assert run.status == "Paused"
    run.cancel()
    assert run.status == "Cancelled"
    assert trace(run) == "finally"


def test_a_cancel_waits_for_a_plain_step_whose_result_counts() -> None:
    run = evicted(AtAStep(), hold={Cancelling.call})
    run.cancel()
    assert run.status == "Running"
    run.held(Cancelling.call).finish()
    assert trace(run) == "call;finally"
    assert run.status == "Cancelled"


class AtAThenStep(Cancelling):
    def definition(self) -> Section[None]:
        return S(Try(Step(self.fetch, then=self.fetched), self.step("rest")).Finally(self.step("finally")))


def test_a_cancel_waits_for_a_then_step_whose_result_counts() -> None:
    run = evicted(AtAThenStep(), hold={Cancelling.fetch})
    run.cancel()
    assert run.status == "Running"
    run.held(Cancelling.fetch).finish(7)
    assert trace(run) == "fetched 7;finally"
    assert run.status == "Cancelled"


def test_an_attempt_that_fails_after_a_cancel_is_not_tried_again() -> None:
    run = evicted(AtAThenStep(), hold={Cancelling.fetch})
    run.cancel()
    run.held(Cancelling.fetch).fail(ConnectionError("no route"))
    assert run.status == "Cancelled"
    assert run.steps == ["fetch", "finally"]


def test_after_the_grace_what_still_runs_is_given_up() -> None:
    """Rule 29, docs/limits.md: five minutes from the write that handles the cancel; a later end changes nothing."""
    run = evicted(AtAThenStep(), hold={Cancelling.fetch})
    held = run.held(Cancelling.fetch)
    run.cancel()
    run.advance(timedelta(minutes=4))
    assert run.status == "Running"
    run.advance(timedelta(minutes=1))
    assert run.status == "Cancelled"
    held.finish(7)
    assert trace(run) == "finally"


class InFinally(Cancelling):
    def definition(self) -> Section[str]:
        return S(
            Try(self.step("body")).Finally(WaitEvent("go on"), self.step("cleaned")),
            self.step("rest"),
            Return("end"),
        )


def test_a_cancel_does_not_interrupt_finally_and_becomes_what_follows_it() -> None:
    run = evicted(InFinally())
    run.cancel()
    assert run.status == "Running"
    assert run.threads == {"main": "finally/go on"}
    run.send("go on")
    assert trace(run) == "body;cleaned"
    assert run.status == "Cancelled"


class FinallyDecides(Cancelling):
    def definition(self) -> Section[str]:
        return S(Try(WaitEvent("go on")).Finally(self.step("cleaned"), Return("own end")))


def test_a_finally_that_ends_with_a_return_of_its_own_finishes() -> None:
    run = evicted(FinallyDecides())
    run.cancel()
    assert run.status == "Finished"
    assert run.output == "own end"


class FinallyFails(Cancelling):
    def definition(self) -> Section[None]:
        return S(Try(WaitEvent("go on")).Finally(Raise(TerminalError("cannot clean up"))))


def test_a_finally_that_raises_fails_the_cancelled_instance() -> None:
    run = evicted(FinallyFails())
    run.cancel()
    assert run.status == "Failed"
    assert run.error is not None
    assert run.error.message == "cannot clean up"


BROKEN: set[str] = set()
"""What cannot be undone just now."""


class InUndo(Cancelling):
    def undo(self) -> None:
        if BROKEN:
            raise ConnectionError("no route")
        self.mark("undone")

    def definition(self) -> Section[None]:
        policy = Retry(delay=timedelta(hours=1), jitter=0)
        return S(
            Try(
                Step("first", self.call, undo=self.undo, retry=policy),
                Step("second", self.call, undo=self.undo, retry=policy),
                Raise(TerminalError("full")),
            ).Finally(self.step("finally")),
            self.step("not here"),
        )


def test_a_cancel_does_not_interrupt_an_undo() -> None:
    """Rule 29: it becomes what follows."""
    BROKEN.add("all")
    run = evicted(InUndo(), skip_backoff=False)
    assert run.threads == {"main": "second/undo"}
    run.cancel()
    assert run.threads == {"main": "second/undo"}
    BROKEN.clear()
    run.advance(timedelta(hours=1))
    assert run.steps[-3:] == ["undo second", "undo first", "finally"]
    assert run.status == "Cancelled"


class Others(Cancelling):
    def thread(self, name: str) -> Section[Never]:
        return S(Try(WaitEvent("go on")).Finally(WaitEvent(f"clean {name}"), self.step(name)))

    def definition(self) -> Section[str]:
        return S(Go("a", self.thread("a")), Try(WaitEvent("go on")).Except(Cancelled, Return("mine")))


def test_the_end_waits_for_the_cleanup_of_all_threads_and_is_what_main_made_of_it() -> None:
    run = evicted(Others())
    run.cancel()
    assert run.status == "Running"
    assert run.threads["a"] == "a/finally/clean a"
    run.send("clean a")
    assert trace(run) == "a"
    assert run.status == "Finished"
    assert run.output == "mine"


class Branches(Cancelling):
    def branch(self, name: str) -> Section[Never]:
        return Section(name, Try(WaitEvent(f"{name} goes on")).Finally(self.step(name)))

    def definition(self) -> Section[None]:
        return S(
            Try(Parallel("both", self.branch("left"), self.branch("right"))).Finally(self.step("finally")),
            self.step("not here"),
        )


def test_a_thread_that_waits_for_branches_is_cancelled_when_they_have_ended() -> None:
    run = evicted(Branches())
    run.cancel()
    assert trace(run) == "left;right;finally"
    assert run.status == "Cancelled"


def test_a_cancel_lifts_a_pause() -> None:
    run = evicted(AtAWait())
    run.pause()
    run.cancel()
    assert run.status == "Cancelled"
    assert trace(run) == "finally"


def test_kill_ends_at_once_without_cleanup() -> None:
    run = evicted(AtAWait())
    run.kill()
    assert run.status == "Cancelled"
    assert trace(run) == ""
    assert run.threads == {}
    with pytest.raises(Ended):
        run.send("go on")


def test_kill_does_not_wait_for_a_running_step() -> None:
    """Rule 9: only kill acts at once."""
    run = evicted(AtAStep(), hold={Cancelling.call})
    held = run.held(Cancelling.call)
    run.kill()
    assert run.status == "Cancelled"
    before = run.document
    held.finish()
    assert run.document == before


def test_kill_cuts_short_a_cancel_under_way() -> None:
    run = evicted(InFinally())
    run.cancel()
    run.kill()
    assert run.status == "Cancelled"
    assert trace(run) == "body"


class MainEnds(Cancelling):
    @event
    def end_it(self) -> None: ...

    def definition(self) -> Section[str]:
        return S(
            Go(
                "child",
                Try(Step("c", self.mark, "c", undo=self.mark), WaitFor("nap", timedelta(hours=1))).Finally(self.step("not here")),
            ),
            WaitEvent(self.end_it),
            Return("done"),
        )


def test_when_main_returns_the_others_end_without_cleanup() -> None:
    """Rule 30."""
    run = evicted(MainEnds())
    run.send(MainEnds.end_it)
    assert run.output == "done"
    assert trace(run) == "c"
    run.advance(timedelta(hours=2))
    assert trace(run) == "c"


class Joins(Cancelling):
    def definition(self) -> Section[None]:
        return S(Go("child", WaitEvent("go on")), Try(Join(), self.step("not here")).Finally(self.step("finally")))


def test_a_cancel_is_raised_at_a_join() -> None:
    run = evicted(Joins())
    run.cancel()
    assert trace(run) == "finally"
    assert run.status == "Cancelled"
