"""P1 to P15, P32 and P33: branches, loops, returns and threads go where the text of the definition says."""

from asyncflow import (
    Break,
    Case,
    Continue,
    For,
    Go,
    If,
    On,
    Return,
    S,
    Section,
    Select,
    Step,
    Switch,
    WaitEvent,
    event,
)
from tests.scenarios.drivers import Drive, scenario
from tests.scenarios.traced import Traced, trace


class Counting(Traced):
    i: int = 0
    j: int = 0

    def inc(self) -> None:
        self.i += 1
        self.mark("inc")

    def tail(self) -> Step:
        return Step("tail", self.mark, "tail")

    def end(self) -> Step:
        return Step("end", self.mark, "end")


class P01(Traced):
    def definition(self) -> Section[str]:
        return S(
            Switch(
                Case("first", lambda: False, Step("x", self.mark, "x")),
                Case("second", lambda: True, Step("y", self.mark, "y"), Step("z", self.mark, "z")),
            ),
            Return("ok"),
        )


@scenario()
def test_p01_a_step_in_the_second_case_is_found_again(drive: Drive) -> None:
    run = drive.start(P01())
    assert trace(run) == "y;z"
    assert run.output == "ok"


class P02(Traced):
    def definition(self) -> Section[str]:
        return S(
            Step("a", self.mark, "a"),
            If("never", lambda: False, Return("BAD")),
            Step("b", self.mark, "b"),
            Step("c", self.mark, "c"),
            Return("ok"),
        )


@scenario()
def test_p02_a_return_before_the_position_has_no_effect(drive: Drive) -> None:
    run = drive.start(P02())
    assert trace(run) == "a;b;c"
    assert run.output == "ok"


class P03(Counting):
    def definition(self) -> Section[None]:
        return S(
            For("counting", lambda: self.i < 5, If("too many", lambda: self.i > 100, Break()), Step(self.inc)),
            Return(),
        )


@scenario()
def test_p03_a_break_before_the_position_has_no_effect(drive: Drive) -> None:
    run = drive.start(P03())
    assert trace(run) == "inc;inc;inc;inc;inc"


class P04(Counting):
    def definition(self) -> Section[None]:
        return S(
            For(
                "counting",
                lambda: self.i < 3,
                Step(self.inc),
                If("enough", lambda: self.i >= 2, Break(), Step("afterbreak", self.mark, "afterbreak")),
                self.tail(),
            ),
            self.end(),
        )


@scenario()
def test_p04_a_break_leaves_at_once(drive: Drive) -> None:
    run = drive.start(P04())
    assert trace(run) == "inc;tail;inc;end"


class P05(Counting):
    def definition(self) -> Section[None]:
        return S(
            For("loop", True, If("always", lambda: True, Break()), Step("x", self.mark, "x")),
            self.end(),
        )


@scenario()
def test_p05_a_break_on_the_first_pass_leaves_before_any_step(drive: Drive) -> None:
    run = drive.start(P05())
    assert trace(run) == "end"


class P06(Counting):
    def definition(self) -> Section[None]:
        return S(For("loop", True, Break()), self.end())


@scenario()
def test_p06_a_loop_of_a_break_alone_is_left(drive: Drive) -> None:
    run = drive.start(P06())
    assert trace(run) == "end"


class P07(Counting):
    def outer(self) -> None:
        self.j += 1
        self.i = 0
        self.mark("o")

    def definition(self) -> Section[None]:
        return S(
            For(
                "outer loop",
                lambda: self.j < 3,
                Step("o", self.outer),
                For("inner loop", lambda: self.i < 1, Step(self.inc), If("enough", lambda: self.i >= 1, Break())),
                Step("after", self.mark, "after"),
            ),
            self.end(),
        )


@scenario()
def test_p07_break_does_not_leak_to_the_outer_loop(drive: Drive) -> None:
    run = drive.start(P07())
    assert trace(run) == "o;inc;after;o;inc;after;o;inc;after;end"


class P08(Counting):
    def definition(self) -> Section[None]:
        return S(
            For(
                "counting",
                lambda: self.i < 3,
                Step(self.inc),
                If("second", lambda: self.i == 2, Continue()),
                self.tail(),
            ),
            self.end(),
        )


@scenario()
def test_p08_continue_goes_on_with_the_next_pass(drive: Drive) -> None:
    run = drive.start(P08())
    assert trace(run) == "inc;tail;inc;inc;tail;end"


class P09(Traced):
    def definition(self) -> Section[None]:
        return S(Step("a", self.mark, "a"), Return(None))


@scenario()
def test_p09_none_can_be_returned(drive: Drive) -> None:
    run = drive.start(P09())
    assert trace(run) == "a"
    assert run.status == "Finished"
    assert run.output is None


class P10(Traced):
    def definition(self) -> Section[None]:
        return S(Step("a", self.mark, "a"))


@scenario()
def test_p10_running_off_the_end_finishes(drive: Drive) -> None:
    run = drive.start(P10())
    assert trace(run) == "a"
    assert run.status == "Finished"
    assert run.output is None


class P11(Traced):
    @event
    def never(self) -> None: ...

    def definition(self) -> Section[str]:
        return S(
            Go("child", Step("a", self.mark, "a"), Return("x")),
            Step("m", self.mark, "m"),
            WaitEvent(self.never),
            Return("ok"),
        )


@scenario()
def test_p11_a_return_in_a_thread_ends_that_thread_alone(drive: Drive) -> None:
    run = drive.start(P11())
    assert run.status == "Running"
    assert sorted(run.state.log) == ["a", "m"]
    assert run.threads == {"main": "never"}
    run.send(P11.never)
    assert run.output == "ok"


class P12(Traced):
    def definition(self) -> Section[str]:
        return S(
            Go("child", *(Step(name, self.mark, name) for name in ("a", "a2", "a3")), id=lambda: "t1"),
            Step("m", self.mark, "m"),
            Return("ok"),
        )


@scenario()
def test_p12_the_return_of_main_ends_the_other_threads_where_they_stand(drive: Drive) -> None:
    """docs/statements.md, Return; rules 10 and 12: main walks first, so its step is the one that stands there longest."""
    run = drive.start(P12())
    assert run.status == "Finished"
    assert run.output == "ok"
    assert run.threads == {}
    assert trace(run) == "m"


class P13(Counting):
    def definition(self) -> Section[None]:
        return S(
            Go("first", Step("a", self.mark, "a")),
            Go("second", Step("b", self.mark, "b")),
            Step("m", self.mark, "m"),
            For("three times", lambda: self.i < 3, Step(self.inc), Go("again", Step("c", self.mark, "c"))),
            WaitEvent("stop"),
        )


@scenario()
def test_p13_threads_without_an_id_all_run(drive: Drive) -> None:
    run = drive.start(P13())
    assert sorted(run.state.log) == ["a", "b", "c", "c", "c", "inc", "inc", "inc", "m"]
    assert run.threads == {"main": "stop"}


class P14(Counting):
    @event("ev")
    def on_ev(self) -> None:
        self.i = 7

    def definition(self) -> Section[None]:
        return S(
            Select("wait", On(self.on_ev)),
            If("seven", lambda: self.i == 7, Step("yes", self.mark, "yes")),
            If("zero", lambda: self.i == 0, Step("stale", self.mark, "stale")),
        )


@scenario()
def test_p14_conditions_after_an_event_see_what_its_handler_did(drive: Drive) -> None:
    run = drive.start(P14())
    run.send("ev")
    assert trace(run) == "yes"
    assert run.status == "Finished"


class P15(Counting):
    @event("ev")
    def on_ev(self) -> None:
        self.inc()

    def definition(self) -> Section[None]:
        return S(For("waiting", lambda: self.i < 1, Select("wait", On(self.on_ev))))


@scenario()
def test_p15_a_loop_ends_when_the_handler_made_its_condition_false(drive: Drive) -> None:
    run = drive.start(P15())
    run.send("ev")
    assert trace(run) == "inc"
    assert run.status == "Finished"


class P32(Counting):
    def definition(self) -> Section[None]:
        return S(
            If("zero", lambda: self.i == 0, Step("s1", self.inc), Step("s2", self.mark, "s2")).Elif(
                "one", lambda: self.i == 1, Step("bad", self.mark, "bad")
            ),
            self.end(),
        )


@scenario()
def test_p32_a_branch_is_finished_though_its_condition_has_changed(drive: Drive) -> None:
    run = drive.start(P32())
    assert trace(run) == "inc;s2;end"


class P33(Traced):
    @event
    def e1(self) -> None: ...

    @event
    def e2(self) -> None: ...

    @event
    def e3(self) -> None: ...

    def definition(self) -> Section[None]:
        return S(
            Select(
                "outer",
                On(self.e1, Step("x", self.mark, "x"), Select("inner", On(self.e2, Step("y", self.mark, "y")))),
                On(self.e3, Step("z", self.mark, "z")),
            )
        )


@scenario()
def test_p33_a_select_in_the_case_of_a_select(drive: Drive) -> None:
    run = drive.start(P33())
    assert run.waiting == {"e1", "e3"}
    run.send("e1")
    assert run.waiting == {"e2"}
    assert run.threads == {"main": "outer/e1/inner"}
    run.send("e2")
    assert trace(run) == "x;y"
    assert run.status == "Finished"
