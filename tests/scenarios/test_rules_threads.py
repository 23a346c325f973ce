"""Rule 2, docs/statements.md: Go, Join and Parallel, and the names of threads."""

from typing import Never

from asyncflow import (
    For,
    Go,
    Join,
    On,
    Parallel,
    Return,
    S,
    Section,
    Select,
    Step,
    WaitEvent,
    event,
)
from tests.scenarios.drivers import evicted
from tests.scenarios.traced import Traced, trace


class Begins(Traced):
    """Begins a thread for each `begin`, and joins when told to."""

    number: str = "0"
    open: bool = True

    @event
    def begin(self, number: str) -> None:
        self.number = number

    @event
    def close(self) -> None:
        self.open = False

    @event
    def finish(self) -> str:
        self.mark(self.context.thread)
        return self.context.thread

    def loop(self, go: Go) -> Section[Never]:
        return S(For("beginning", lambda: self.open, Select("next", On(self.begin, go), On(self.close))))


class WithIds(Begins):
    def definition(self) -> Section[None]:
        return S(
            self.loop(Go("job", WaitEvent(self.finish), id=lambda: self.number)),
            Join("job"),
            Step("end", self.mark, "end"),
        )


def test_a_thread_has_the_id_that_was_made_when_it_began() -> None:
    run = evicted(WithIds())
    run.send(Begins.begin, "7")
    run.send(Begins.begin, "8")
    assert set(run.threads) == {"main", "job/7", "job/8"}
    assert run.threads["job/7"] == "beginning/next/begin/job/finish"
    assert run.send(Begins.finish, thread="job/8") == "job/8"


def test_a_number_is_added_only_where_the_id_is_alive() -> None:
    run = evicted(WithIds())
    for _ in range(3):
        run.send(Begins.begin, "7")
    assert set(run.threads) == {"main", "job/7", "job/7#2", "job/7#3"}
    run.send(Begins.finish, thread="job/7")
    run.send(Begins.begin, "7")
    assert set(run.threads) == {"main", "job/7", "job/7#2", "job/7#3"}


def test_join_waits_for_all_threads_of_the_name_whatever_their_ids() -> None:
    run = evicted(WithIds())
    run.send(Begins.begin, "7")
    run.send(Begins.begin, "7")
    run.send(Begins.begin, "8")
    run.send(Begins.close)
    assert run.threads["main"] == "join"
    for _ in range(3):
        assert run.status == "Running"
        run.send(Begins.finish)
    assert run.status == "Finished"
    assert run.state.log[-1] == "end"


def test_join_of_nothing_goes_on_at_once() -> None:
    run = evicted(WithIds())
    run.send(Begins.close)
    assert trace(run) == "end"


class WithoutIds(Begins):
    def definition(self) -> Section[None]:
        return S(self.loop(Go("job", WaitEvent(self.finish))), Join())


def test_a_thread_without_an_id_is_called_by_its_name() -> None:
    run = evicted(WithoutIds())
    run.send(Begins.begin, "7")
    run.send(Begins.begin, "8")
    assert set(run.threads) == {"main", "job", "job#2"}


class BegunMeanwhile(Traced):
    """A thread that begins another of the same name while main waits for all of that name."""

    def definition(self) -> Section[None]:
        return S(
            Go("first", WaitEvent("one"), Go("inner", WaitEvent("two"))),
            Join(),
            Step("end", self.mark, "end"),
        )


def test_join_waits_for_threads_that_were_begun_meanwhile() -> None:
    run = evicted(BegunMeanwhile())
    run.send("one")
    assert run.threads == {"main": "join", "first/inner": "first/inner/two"}
    run.send("two")
    assert trace(run) == "end"


class JoinsInside(Traced):
    def definition(self) -> Section[None]:
        return S(
            Go("worker", WaitEvent("one")),
            Go("boss", Join(), Step("joined", self.mark, "joined")),
            WaitEvent("stop"),
        )


def test_a_join_in_a_thread_does_not_wait_for_that_thread() -> None:
    run = evicted(JoinsInside())
    assert run.threads["boss"] == "boss/join"
    run.send("one")
    assert trace(run) == "joined"
    assert run.threads == {"main": "stop"}


class TwoPlaces(Traced):
    def definition(self) -> Section[None]:
        return S(
            Section("left", Go("job", WaitEvent("one"))),
            Section("right", Go("job", WaitEvent("two"))),
            Join("left/job"),
            Step("end", self.mark, "end"),
        )


def test_a_name_in_two_places_is_joined_by_its_path() -> None:
    run = evicted(TwoPlaces())
    run.send("one")
    assert trace(run) == "end"
    assert run.status == "Finished"


class InParallel(Traced):
    def note(self) -> None:
        self.mark(self.context.thread)

    def definition(self) -> Section[None]:
        return S(
            Parallel(
                "both",
                Section("left", Step("l", self.note), WaitEvent("left done"), Return("only mine")),
                Parallel("right", Section("up", WaitEvent("up done")), Section("down", Step("d", self.note))),
                Step("last", self.note),
            ),
            Step("end", self.note),
        )


def test_branches_are_threads_named_after_their_statement() -> None:
    run = evicted(InParallel())
    assert run.threads == {
        "main": "both",
        "both/left": "both/left/left done",
        "both/right": "both/right",
        "both/right/right/up": "both/right/up/up done",
    }


def test_a_return_in_a_branch_ends_that_branch_alone() -> None:
    run = evicted(InParallel())
    run.send("left done")
    assert set(run.threads) == {"main", "both/right", "both/right/right/up"}
    run.send("up done")
    assert run.status == "Finished"
    assert run.output is None
    assert run.state.log[-1] == "main"


class Beginning(Traced):
    def definition(self) -> Section[None]:
        return S(
            Parallel("both", Section("a", Go("child", WaitEvent("child done"))), Section("b", WaitEvent("b done"))),
            Step("end", self.mark, "end"),
            Join(),
        )


def test_a_branch_does_not_wait_for_the_go_threads_it_began() -> None:
    """docs/statements.md: a Go thread is waited for by a Join alone."""
    run = evicted(Beginning())
    assert run.threads == {"main": "both", "both/b": "both/b/b done", "both/a/child": "both/a/child/child done"}
    run.send("b done")
    assert trace(run) == "end"
    assert run.threads["main"] == "join"
    run.send("child done")
    assert run.status == "Finished"


class RunsOff(Traced):
    def definition(self) -> Section[None]:
        return S(Go("child", WaitEvent("never")), Step("a", self.mark, "a"))


def test_main_that_runs_off_its_end_ends_the_others_too() -> None:
    run = evicted(RunsOff())
    assert run.status == "Finished"
    assert run.output is None
    assert run.threads == {}
