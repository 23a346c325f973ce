"""Rule 31: pause, resume, retry and skip."""

from datetime import timedelta

import pytest

from asyncflow import (
    After,
    Ended,
    For,
    Go,
    NotApplicable,
    On,
    Pending,
    Retry,
    S,
    Section,
    Select,
    Step,
    WaitEvent,
    WaitUntil,
    event,
)
from tests.scenarios.drivers import START, evicted
from tests.scenarios.traced import Traced, trace

HOUR = timedelta(hours=1)


class Operated(Traced):
    """A clock, an ear and a condition beside a step."""

    n: int = 0

    @event
    def poke(self) -> int:
        self.n += 1
        self.mark("poke")
        return self.n

    def tick(self) -> None:
        self.mark("tick")

    def fetch(self) -> int:
        return 1

    def fetched(self, number: int) -> None:
        self.mark(f"fetched {number}")

    def work(self) -> None:
        self.mark("work")

    def definition(self) -> Section[None]:
        return S(
            Go("clock", Select("nap", After(HOUR, self.tick))),
            Go("ear", For("listening", lambda: self.n < 9, Select("next", On(self.poke)))),
            Go("fetching", Step(self.fetch, then=self.fetched)),
            Step(self.work),
            WaitUntil("poked", lambda: self.n > 0),
            Step("end", self.mark, "end"),
            WaitEvent("stop"),
        )


def test_while_paused_no_event_and_no_timer_is_handled() -> None:
    run = evicted(Operated(), now=START)
    before = trace(run)
    run.pause()
    assert run.status == "Paused"
    with pytest.raises(Pending) as pending:
        run.send(Operated.poke)
    run.advance(2 * HOUR)
    assert trace(run) == before
    assert run.status == "Paused"
    run.resume()
    assert run.status == "Running"
    assert trace(run) == f"{before};poke;tick;end"
    assert run.send(Operated.poke, idempotency_key=pending.value.idempotency_key) == 1


def test_what_runs_may_finish_into_the_inbox_of_a_paused_instance() -> None:
    run = evicted(Operated(), hold={Operated.fetch})
    run.pause()
    run.held(Operated.fetch).finish(5)
    assert "fetched 5" not in run.state.log
    run.resume()
    assert "fetched 5" in run.state.log
    assert run.steps.count("fetch") == 1


def test_a_pause_during_a_plain_step_counts_from_its_end_and_shows_at_once() -> None:
    run = evicted(Operated(), hold={Operated.work})
    run.pause()
    assert run.status == "Paused"
    run.held(Operated.work).finish()
    assert "work" in run.state.log
    with pytest.raises(Pending):
        run.send(Operated.poke)
    run.resume()
    assert trace(run).endswith("poke;end")


def test_nothing_is_taken_while_paused() -> None:
    """A pause in front of a step: what was on its way stays there."""
    run = evicted(Operated(), hold={Operated.work})
    run.pause()
    run.held(Operated.work).fail(ConnectionError("no route"))
    run.advance(HOUR)
    assert run.running == set()
    run.resume()
    assert run.running == {"work"}


class TwoThreads(Traced):
    """One thread that parks, one that goes on."""

    def call(self) -> None:
        KEYS.append(self.context.idempotency_key)
        if BROKEN:
            raise ConnectionError(f"attempt {self.context.attempt}")
        self.mark(f"called {self.context.attempt}")

    @event
    def poke(self) -> None:
        self.mark("poke")

    def definition(self) -> Section[None]:
        policy = Retry(max_attempts=2, delay=HOUR, factor=1, jitter=0)
        return S(
            Go("calling", Step(self.call, retry=policy), Step("after", self.mark, "after")),
            For("listening", True, Select("next", On(self.poke), After(24 * HOUR))),
        )


BROKEN: set[str] = set()
KEYS: list[str] = []


@pytest.fixture(autouse=True)
def _service_is_down() -> None:
    KEYS.clear()
    BROKEN.add("down")


def test_a_parked_thread_stops_itself_alone() -> None:
    run = evicted(TwoThreads())
    assert run.status == "Paused"
    assert run.threads == {"main": "listening/next", "calling": "calling/call"}
    run.send(TwoThreads.poke)
    assert trace(run) == "poke"
    assert run.status == "Paused"
    assert run.error is not None
    assert run.error.message == "attempt 2"


def test_resume_retries_nothing() -> None:
    run = evicted(TwoThreads())
    run.pause()
    run.resume()
    assert run.status == "Paused"
    assert run.steps == ["call", "call"]


def test_retry_of_a_parked_step_has_a_fresh_count_and_the_same_key() -> None:
    """Rules 3 and 31."""
    run = evicted(TwoThreads())
    run.retry("calling")
    assert run.status == "Paused"
    assert run.steps == ["call"] * 4
    assert run.error is not None
    assert run.error.message == "attempt 2"
    BROKEN.clear()
    run.retry("calling")
    assert trace(run) == "called 1;after"
    assert run.status == "Running"
    assert len(set(KEYS)) == 1


def test_retry_in_a_backoff_is_now_with_the_count_as_it_is() -> None:
    run = evicted(TwoThreads(), skip_backoff=False, now=START)
    assert run.status == "Running"
    run.retry("calling")
    assert run.steps == ["call", "call"]
    assert run.status == "Paused"
    assert run.now == START


def test_skip_goes_on_behind_the_statement() -> None:
    run = evicted(TwoThreads())
    run.skip("calling")
    assert trace(run) == "after"
    assert run.status == "Running"
    assert set(run.threads) == {"main"}


def test_skip_in_a_backoff_gives_up_the_step() -> None:
    run = evicted(TwoThreads(), skip_backoff=False)
    run.skip("calling")
    run.advance(2 * HOUR)
    assert trace(run) == "after"
    assert run.steps == ["call", "after"]


def test_verbs_that_do_not_fit_are_refused() -> None:
    """docs/http.md: a thread that is neither parked nor in backoff."""
    run = evicted(TwoThreads())
    before = run.document
    with pytest.raises(NotApplicable):
        run.retry("main")
    with pytest.raises(NotApplicable):
        run.skip("main")
    assert run.document["threads"] == before["threads"]


class SkipsThen(Traced):
    total: int = 0

    def fetch(self) -> int:
        raise ConnectionError("no route")

    def fetched(self, number: int) -> None:
        self.total = number

    def definition(self) -> Section[None]:
        return S(
            Step(self.fetch, then=self.fetched, retry=Retry(max_attempts=1)),
            Step("end", self.mark, "end"),
        )


def test_skip_with_a_value_stands_in_for_the_result() -> None:
    run = evicted(SkipsThen())
    run.skip(value=7)
    assert run.state.total == 7
    assert trace(run) == "end"


def test_skip_without_a_value_leaves_then_out() -> None:
    """Rule 31, the plain reading: nothing came, so there is nothing for `then`."""
    run = evicted(SkipsThen())
    run.skip()
    assert run.state.total == 0
    assert trace(run) == "end"


class BadCondition(Traced):
    n: int = 0

    @event
    def set_n(self, n: int) -> None:
        self.n = n

    def definition(self) -> Section[None]:
        return S(
            Go("desk", For("open", True, Select("next", On(self.set_n)))),
            WaitUntil("positive", lambda: 10 // self.n > 0),
            Step("end", self.mark, "end"),
        )


def test_retry_of_a_condition_looks_at_it_again() -> None:
    run = evicted(BadCondition())
    assert run.status == "Paused"
    assert run.threads["main"] == "positive"
    run.send(BadCondition.set_n, 5)
    run.retry()
    assert trace(run) == "end"
    assert run.status == "Finished"


def test_skip_of_a_condition_takes_the_value_for_it() -> None:
    run = evicted(BadCondition())
    run.skip(value=True)
    assert trace(run) == "end"


def test_an_ended_instance_takes_no_verb() -> None:
    run = evicted(BadCondition())
    run.skip(value=True)
    for verb in (run.pause, run.resume, run.retry, run.skip):
        with pytest.raises(Ended):
            verb()
