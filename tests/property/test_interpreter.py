"""The interpreter against traces written by hand: scenarios of the seed, and rules of the protocol one by one."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings

from tests.property.machine import Machine
from tests.property.naming import number
from tests.property.programs import (
    START,
    Break,
    Continue,
    Each,
    For,
    Go,
    Handler,
    If,
    Join,
    Node,
    Parallel,
    Policy,
    Program,
    Raise,
    Return,
    Select,
    Seq,
    Step,
    Switch,
    Try,
    WaitCase,
)
from tests.property.strategies import Move, programs, schedules

HOUR = timedelta(hours=1)


def run(*body: Node) -> Machine:
    return Machine(number(Program(list(body))))


def trace(machine: Machine) -> str:
    """The log in one line, without the numbers that make labels unique."""
    return " ".join(entry.split(".")[0] for entry in machine.state.log)


def steps(machine: Machine) -> str:
    return " ".join(machine.steps)


def threads(machine: Machine) -> dict[str, str]:
    return dict(machine.look().threads)


def s(name: str) -> Step:
    return Step(name=name)


def undoable(name: str) -> Step:
    return Step(name=name, undo=True)


def beside(name: str) -> Step:
    return Step(name=name, style="then")


def sets(name: str, flag: str) -> Step:
    return Step(name=name, effects=(("on", flag),))


def fails(name: str, error: str, policy: Policy | None = None, times: int = 9) -> Step:
    return Step(name=name, fails=times, error=error, policy=policy)


def wait(event: str = "e0", *body: Node) -> Select:
    return Select([WaitCase(event=event, body=list(body))], short=True)


def after(minutes: int, *body: Node) -> WaitCase:
    return WaitCase(kind="after", minutes=minutes, body=list(body))


def when(flag: str, *body: Node) -> WaitCase:
    return WaitCase(kind="when", cond=("flag", flag), body=list(body))


def tick() -> Select:
    return Select([WaitCase(name="tick", kind="when", handler=True)], short=True)


def attempt(*body: Node, handler: Handler | None = None, final: list[Node] | None = None) -> Try:
    return Try(list(body), [handler] if handler else [], final, name="try")


# -- flow --------------------------------------------------------------------------------------------------------------


def test_t1_an_empty_definition_finishes() -> None:
    machine = run()
    assert (machine.status, machine.output, threads(machine)) == ("Finished", None, {})


def test_t4_loops_with_a_wait_inside() -> None:
    machine = run(For(s("l"), 5), For(tick(), 2, body=[wait(), s("a")], name="loop"))
    assert trace(machine) == "l l l l l tick"
    assert threads(machine) == {"main": "loop/e0"}
    assert machine.send("e0") == ("ok", 7)
    assert trace(machine) == "l l l l l tick e0 a tick"
    machine.send("e0")
    assert trace(machine) == "l l l l l tick e0 a tick e0 a"
    assert machine.status == "Finished"


def test_t6_what_has_been_chosen_stays_chosen() -> None:
    choice = If([(("noflag", "0"), [sets("a", "0"), s("b")]), (("flag", "0"), [Return(9)])], [Return(8)])
    machine = run(choice, Switch([(("noflag", "0"), [Return(7)]), (("flag", "0"), [s("c")])]))
    assert (steps(machine), machine.output) == ("a b c", None)


def test_t7_threads_run_in_order_of_creation_after_main() -> None:
    machine = run(Go([s("a"), s("b")]), Go([s("c")]), s("m"), Join())
    assert (steps(machine), machine.status) == ("m a c b", "Finished")


def test_p4_break_leaves_at_once() -> None:
    machine = run(For(s("inc"), 3, body=[If([(("log", "4", "3"), [Break(), s("x")])]), s("tail")]), s("end"))
    assert steps(machine) == "inc tail inc end"


def test_p7_an_inner_break_does_not_reach_the_outer_loop() -> None:
    machine = run(For(s("o"), 3, body=[For(s("inc"), 1, leaves=True), s("after")]), s("end"))
    assert steps(machine) == "o inc after " * 3 + "end"


def test_p8_continue_goes_on_at_once() -> None:
    machine = run(For(s("inc"), 3, body=[If([(("log", "5", "3"), [Continue()])]), s("tail")]), s("end"))
    assert steps(machine) == "inc tail inc inc tail end"


def test_p15_a_loop_looks_at_its_condition_after_the_event() -> None:
    machine = run(For(Select([WaitCase(event="x0", handler=True)]), 1))
    machine.send("x0")
    assert machine.status == "Finished"


def test_return_in_a_go_thread_ends_that_thread_alone() -> None:
    machine = run(Go([s("a"), Return(5), s("b")]), wait())
    assert (steps(machine), threads(machine)) == ("a", {"main": "e0"})


def test_the_end_of_main_ends_all_threads_without_cleanup() -> None:
    machine = run(Go([attempt(wait("e1"), final=[s("f")])]), wait(), Return(3))
    machine.send("e0")
    assert (machine.status, machine.output, machine.steps) == ("Finished", 3, [])


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_p17_each_timer_has_its_own_deadline() -> None:
    machine = run(Select([after(60, Return(1)), after(30, Return(2))]))
    machine.advance(HOUR)
    assert machine.output == 2


def test_a_passed_instant_goes_before_a_condition_and_a_later_one_after() -> None:
    passed = WaitCase(kind="at", minutes=0, body=[s("at")])
    machine = run(sets("a", "0"), Select([when("0", s("when")), passed]), Select([when("0", s("cond")), after(1)]))
    assert steps(machine) == "a at cond"


def test_a_condition_is_looked_at_when_nobody_walks_in_order_of_threads() -> None:
    machine = run(Go([Select([when("0", s("b"))])]), Go([Select([when("0", s("c"))])]), sets("a", "0"), wait())
    assert steps(machine) == "a b c"


def test_an_event_nobody_awaits_is_refused_and_a_queued_one_waits() -> None:
    machine = run(wait("e0"), wait("later"))
    assert machine.send("e1") == ("NotFound", None)
    assert machine.send("later") == ("Pending", None)
    machine.send("e0")
    assert (machine.status, trace(machine)) == ("Finished", "e0 later")
    assert machine.send("e0") == ("Ended", None)


def test_a_refusing_handler_changes_nothing() -> None:
    machine = run(sets("a", "0"), wait("e2"))
    assert machine.send("e2") == ("Rejected", None)
    assert threads(machine) == {"main": "e2"}


def test_an_addressed_event_goes_there_and_another_to_the_first() -> None:
    machine = run(Go([wait()], name="x"), Go([wait()], name="y"), wait("ping"))
    machine.send("e0", thread="y")
    assert threads(machine) == {"main": "ping", "x": "x/e0"}
    machine.send("e0")
    assert threads(machine) == {"main": "ping"}


def test_a_name_in_use_gets_a_number() -> None:
    machine = run(For(s("t"), 2, body=[Go([wait()], name="x")]), wait("ping"))
    assert list(threads(machine)) == ["main", "x", "x#2"]


# -- steps -------------------------------------------------------------------------------------------------------------


def test_plain_steps_go_by_arrival_and_then_steps_beside_them() -> None:
    machine = run(Go([beside("t"), s("b")]), Go([s("c")]), s("a"), wait())
    assert (steps(machine), trace(machine)) == ("a t c b", "a t c b")


def test_p20_a_failing_step_is_tried_again_and_time_passes() -> None:
    machine = run(fails("a", "Boom", Policy(max_attempts=5, delay=60), times=2))
    assert steps(machine) == "a a a"
    assert machine.now - START == 3 * HOUR


def test_a_timer_on_the_way_fires_before_the_next_attempt() -> None:
    machine = run(Go([Select([after(30, s("t"))])]), fails("a", "Boom", Policy(delay=60), times=1), wait())
    assert steps(machine) == "a t a"


def test_p21_a_policy_used_up_parks_or_raises() -> None:
    machine = run(fails("a", "Boom", Policy(2, 60, "pause")))
    assert (machine.look().status, machine.look().error) == ("Paused", ("Boom", "a.1"))
    machine = run(fails("a", "Boom", Policy(2, 60, "raise")))
    assert (machine.look().status, steps(machine)) == ("Failed", "a a")


def test_what_the_policy_does_not_name_is_raised_at_once() -> None:
    machine = run(fails("a", "Boom", Policy(3, 60, on="Bang")))
    assert (machine.look().status, steps(machine)) == ("Failed", "a")


# -- errors ------------------------------------------------------------------------------------------------------------


def test_an_error_undoes_then_except_then_finally() -> None:
    caught = Handler(("Boom",), body=[s("e")])
    machine = run(attempt(undoable("a"), undoable("b"), Raise("Bang"), handler=caught, final=[s("f")]), Return(4))
    assert trace(machine) == "a b undo b undo a caught Bang raise e f"
    assert (steps(machine), machine.output) == ("a b undo b undo a e f", 4)


def test_entries_of_a_try_that_ends_well_go_to_the_next_one() -> None:
    inner = attempt(undoable("a"), final=[s("f")])
    machine = run(attempt(inner, Raise(), handler=Handler()))
    assert (steps(machine), machine.status) == ("a f undo a", "Finished")


def test_finally_replaces_what_was_under_way() -> None:
    assert run(attempt(Return(1), final=[Return(2)])).output == 2
    machine = run(For(s("t"), 2, body=[attempt(Raise(), final=[Break()])]), Return(3))
    assert (machine.output, steps(machine)) == (3, "t")


def test_an_error_of_main_undoes_everything_and_fails() -> None:
    machine = run(Go([undoable("b"), wait()]), undoable("a"), wait("e1"), Raise("Boom"))
    machine.send("e1", "0")
    assert (machine.status, steps(machine)) == ("Failed", "a b undo b undo a")


def test_an_error_of_a_branch_stops_the_others_and_goes_on() -> None:
    other = Seq([attempt(undoable("a"), wait(), final=[s("f")])])
    machine = run(attempt(Parallel([other, Seq([wait("e1"), Raise()])], name="p"), handler=Handler()))
    assert threads(machine)["main"] == "try/p"
    machine.send("e1", "0")
    assert (machine.status, steps(machine)) == ("Finished", "a undo a f")


def test_a_second_error_of_the_branches_is_dropped() -> None:
    bad: list[Node] = [Seq([wait("e1"), Raise("Bang")]), Seq([attempt(wait(), final=[Raise("Boom")])])]
    machine = run(attempt(Parallel(bad), handler=Handler()))
    machine.send("e1", "0")
    assert trace(machine) == "e1:0 caught Bang raise"


# -- cancel ------------------------------------------------------------------------------------------------------------


def test_a_cancel_undoes_and_passes_by_except_exception() -> None:
    caught = Handler(("Exception",), body=[Return(1)])
    machine = run(attempt(undoable("a"), wait(), handler=caught, final=[s("f")]))
    machine.cancel()
    assert (machine.status, steps(machine)) == ("Cancelled", "a undo a f")


def test_a_caught_cancel_finishes_but_waits_for_the_others() -> None:
    other = Go([attempt(wait(), final=[wait("e1")])], name="x")
    machine = run(other, attempt(wait(), handler=Handler(("Cancelled",), body=[Return(5)])))
    machine.cancel()
    assert threads(machine) == {"x": "x/try/finally/e1"}
    machine.send("e1", "0")
    assert (machine.status, machine.output) == ("Finished", 5)


def test_a_cancel_waits_for_the_end_of_a_finally() -> None:
    machine = run(attempt(Return(1), final=[wait()]), s("a"))
    machine.cancel()
    assert machine.look().status == "Running"
    machine.send("e0")
    assert (machine.status, machine.output) == ("Cancelled", None)


def test_a_cancel_undoes_what_ended_go_threads_left() -> None:
    machine = run(Go([undoable("a")]), wait())
    machine.cancel()
    assert (machine.status, steps(machine)) == ("Cancelled", "a undo a")


def test_a_cancelled_wait_for_branches_is_raised_when_they_have_ended() -> None:
    branches: list[Node] = [Seq([attempt(wait(), final=[s("f"), wait("e1")])]), Seq([wait()])]
    machine = run(attempt(Parallel(branches, name="p"), handler=Handler(("Cancelled",), body=[s("c")])))
    machine.cancel()
    assert (steps(machine), threads(machine)["main"]) == ("f", "try/p")
    machine.send("e1", "0")
    assert (steps(machine), machine.status) == ("f c", "Finished")


# -- items -------------------------------------------------------------------------------------------------------------


def test_parallel_items_begin_as_others_end() -> None:
    machine = run(Each("items", [wait("poke")], 2, name="x"))
    assert threads(machine) == {"main": "x", "x/a": "x/poke", "x/b": "x/poke"}
    machine.send("poke", thread="x/b")
    assert list(threads(machine)) == ["main", "x/a", "x/c%2F1"]


def test_a_list_is_seen_to_grow() -> None:
    grow = If([(("log", "9", "1"), [Step(name="grow", effects=(("grow", ""),))])])
    machine = run(Each("rows", [s("a"), grow]))
    assert steps(machine) == "a grow a a"


def test_a_deleted_key_is_passed_over() -> None:
    machine = run(Each("items", [Step(name="a", effects=(("drop", "b"),))]))
    assert steps(machine) == "a a"


def test_an_item_that_vanishes_ends_its_thread_without_finally() -> None:
    undo = replace(undoable("u"), on_item=True)
    inside = attempt(undo, wait(), final=[s("f")])
    loop = attempt(Each("items", [inside], 3, name="x"), Raise(), handler=Handler())
    machine = run(Go([wait("e1"), Step(effects=(("drop", "a"),), name="drop")]), loop)
    machine.send("e1", "0")
    assert list(threads(machine)) == ["main", "x/b", "x/c%2F1"]
    assert steps(machine) == "u u u drop"
    machine.send("e0")
    machine.send("e0")
    assert steps(machine) == "u u u drop f f undo u undo u undo u"


def test_an_item_that_vanishes_in_order_makes_the_loop_go_on() -> None:
    body: list[Node] = [attempt(s("a"), wait(), final=[s("f")])]
    machine = run(Go([wait("e1"), Step(effects=(("drop", "a"),), name="drop")]), Each("items", body, name="x"))
    machine.send("e1", "0")
    assert steps(machine) == "a drop a"
    assert threads(machine) == {"main": "x/try/e0"}


# -- every program -----------------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(programs(), schedules())
def test_every_program_comes_to_rest(program: Program, moves: list[Move]) -> None:
    machine = Machine(program)
    for move in moves:
        waiting = sorted(machine.look().waiting)
        if move.kind == "advance":
            machine.advance(HOUR * move.pick)
        elif move.kind == "cancel":
            machine.cancel()
        elif waiting:
            event = waiting[move.pick % len(waiting)]
            machine.send(event, "1" if event == "e1" else None)
    assert len(machine.steps) < 1_000
