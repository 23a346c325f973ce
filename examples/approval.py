"""A document that waits for its approval for weeks, with reminders, and with an escalation when nobody answers.

What to notice:

- Two clocks in one `Select`: the reminder counts from each pass of the loop (`After`), the escalation is an instant of
  the state (`At`), so that reminders do not move it.
- `Break` leaves the inner loop only: the outer one goes round and asks the next in line.
- A handler sees who sent the event (`self.context.caller`) and refuses all but the one who was asked.
- The three weeks below take milliseconds: `simulate` has a clock of its own, and nothing sleeps.

    python -m examples.approval
"""

from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel

from asyncflow import (
    After,
    At,
    Break,
    For,
    On,
    Rejected,
    Return,
    S,
    Section,
    Select,
    Step,
    Workflow,
    event,
    query,
    simulate,
)

REMINDER = timedelta(days=3)
PATIENCE = timedelta(days=10)
TIME_TO_REVISE = timedelta(weeks=4)


class Decision(BaseModel):
    """What became of the document, and who said so (None: nobody did in time)."""

    outcome: Literal["approved", "rejected", "lapsed"]
    by: str | None = None
    why: str = ""


class Approval(Workflow, labels=("author",)):
    """A document looks for an approval, from one in line to the next."""

    author: str
    title: str
    line: list[str]
    asked: int = -1
    escalates_at: datetime | None = None
    revision: int = 1
    decision: Decision | None = None
    sent: list[str] = []

    @event
    def approve(self) -> None:
        self.decision = Decision(outcome="approved", by=self.the_one_asked())

    @event
    def reject(self, why: str) -> None:
        self.decision = Decision(outcome="rejected", by=self.the_one_asked(), why=why)

    @event
    def send_back(self, why: str) -> None:
        """Ask the author for changes; the clock of the escalation stands still meanwhile."""
        self.sent.append(f"{self.author}: please change {self.title!r}, says {self.the_one_asked()}: {why}")
        self.escalates_at = None

    @event
    def revise(self) -> int:
        """Hand in a new revision; the answer is its number."""
        self.revision += 1
        self.escalates_at = self.context.now + PATIENCE
        return self.revision

    @query
    def in_charge(self) -> str:
        """Whose turn it is."""
        return self.line[self.asked]

    def the_one_asked(self) -> str:
        caller = self.context.caller
        if caller != self.in_charge():
            raise Rejected(f"{self.in_charge()} was asked, not {caller or 'you'}", code=403)
        return self.in_charge()

    def ask(self) -> None:
        """Turn to the next in line. The list stands for the mails that a real step would send."""
        self.asked += 1
        self.escalates_at = self.context.now + PATIENCE
        self.sent.append(f"{self.in_charge()}: please look at {self.title!r}")

    def remind(self) -> None:
        self.sent.append(f"{self.in_charge()}: {self.title!r} still waits for you")

    def give_up(self) -> None:
        if self.asked == len(self.line) - 1:
            self.lapse()

    def lapse(self) -> None:
        self.decision = Decision(outcome="lapsed")

    def undecided(self) -> bool:
        return self.decision is None

    def outcome(self) -> Decision:
        assert self.decision is not None, "the loops end with a decision"
        return self.decision

    def definition(self) -> Section[Decision]:
        return S(
            For(
                "line",
                self.undecided,
                Step(self.ask),
                For(
                    "patience",
                    self.undecided,
                    Select(
                        "review",
                        On(self.approve),
                        On(self.reject),
                        On(self.send_back, Select("changes", On(self.revise), After(TIME_TO_REVISE, self.lapse))),
                        After(REMINDER, Step(self.remind)),
                        At(lambda: self.escalates_at, self.give_up, Break()),
                    ),
                ),
            ),
            Return(self.outcome),
        )


def main() -> None:
    """Live through three weeks of waiting."""
    sim = simulate(Approval(author="ann", title="Budget", line=["bob", "carol"]))
    for _ in range(17):
        sim.advance(timedelta(days=1))
    print(f"day 17: {sim.query(Approval.in_charge)} is in charge, main stands at {sim.threads['main']!r}")
    try:
        sim.send(Approval.approve, caller="bob")
    except Rejected as refusal:
        print("refused:", refusal)
    sim.send(Approval.send_back, "the figures of May are missing", caller="carol")
    sim.advance(timedelta(days=4))
    print("revision:", sim.send(Approval.revise, caller="ann"))
    sim.send(Approval.approve, caller="carol")
    print(*sim.state.sent, sep="\n")
    print("outcome:", sim.output)


if __name__ == "__main__":
    main()
