"""A document is approved, rejected, sent back or forgotten; reminders and escalations come on their days."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from asyncflow import Rejected, Simulation, Status, simulate
from asyncflow.testing import Simulate, every_crash
from examples.approval import PATIENCE, TIME_TO_REVISE, Approval, Decision

DAY = timedelta(days=1)


def asked(start: Callable[..., Simulation[Approval]] = simulate, line: tuple[str, ...] = ("bob", "carol")) -> Simulation[Approval]:
    return start(Approval(author="ann", title="Budget", line=list(line)))


def mails(sim: Simulation[Approval]) -> list[str]:
    """Who was written to, in order."""
    return [text.partition(":")[0] for text in sim.state.sent]


def test_the_first_in_line_approves() -> None:
    sim = asked()
    sim.send(Approval.approve, caller="bob")
    assert sim.output == Decision(outcome="approved", by="bob")
    assert mails(sim) == ["bob"]


def test_a_rejection_ends_it() -> None:
    sim = asked()
    sim.send(Approval.reject, "too dear", caller="bob")
    assert sim.output == Decision(outcome="rejected", by="bob", why="too dear")


@pytest.mark.parametrize("days, written", [
    (2, ["bob"]),
    (3, ["bob", "bob"]),
    (9, ["bob"] * 4),
    (10, ["bob"] * 4 + ["carol"]),
    (13, ["bob"] * 4 + ["carol"] * 2),
    (20, ["bob"] * 4 + ["carol"] * 4),
])  # fmt: skip
@pytest.mark.parametrize("pieces", [1, 5])
def test_reminders_and_escalation_come_on_their_days(days: int, written: list[str], pieces: int) -> None:
    sim = asked()
    for _ in range(pieces):
        sim.advance(days * DAY / pieces)
    assert mails(sim) == written


def test_nobody_answers_at_all() -> None:
    sim = asked()
    sim.advance(2 * PATIENCE)
    assert sim.output == Decision(outcome="lapsed")
    assert sim.status is Status.Finished


def test_an_answer_at_the_very_instant_of_the_escalation_wins() -> None:
    sim = asked(line=("bob",))
    sim.advance(PATIENCE - timedelta(microseconds=1))
    sim.send(Approval.approve, caller="bob")
    assert sim.output == Decision(outcome="approved", by="bob")


@pytest.mark.parametrize("caller", ["carol", "ann", None])
def test_only_the_one_who_was_asked_may_answer(caller: str | None) -> None:
    sim = asked()
    with pytest.raises(Rejected) as refused:
        sim.send(Approval.approve, caller=caller)
    assert refused.value.code == 403
    sim.advance(PATIENCE)
    with pytest.raises(Rejected, match="carol was asked, not bob"):
        sim.send(Approval.approve, caller="bob")
    sim.send(Approval.approve, caller="carol")
    assert sim.status is Status.Finished


def test_the_clock_of_the_escalation_stands_still_while_the_author_revises() -> None:
    sim = asked()
    sim.advance(9 * DAY)
    sim.send(Approval.send_back, "no figures", caller="bob")
    sim.advance(20 * DAY)
    assert sim.waiting == {"revise"}
    assert sim.send(Approval.revise) == 2
    sim.advance(PATIENCE - DAY)
    assert sim.query(Approval.in_charge) == "bob"
    sim.advance(DAY)
    assert sim.query(Approval.in_charge) == "carol"


def test_an_author_who_never_revises_lets_it_lapse() -> None:
    sim = asked()
    sim.send(Approval.send_back, "no figures", caller="bob")
    sim.advance(TIME_TO_REVISE)
    assert sim.output == Decision(outcome="lapsed")


def test_it_ends_the_same_whenever_the_process_dies() -> None:
    def weeks(start: Simulate) -> tuple[Decision | None, list[str]]:
        sim = asked(start)
        sim.advance(11 * DAY)
        sim.send(Approval.send_back, "no figures", caller="carol")
        sim.send(Approval.revise, caller="ann")
        sim.advance(4 * DAY)
        sim.send(Approval.approve, caller="carol")
        return sim.output, mails(sim)

    end = every_crash(weeks)
    assert end == (Decision(outcome="approved", by="carol"), ["bob"] * 4 + ["carol", "ann", "carol"])
