"""An assistant that plans with a model, runs its tools side by side, and asks a person before it spends money.

What to notice:

- The model is behind one function, `model`. The one here is a few lines of rules, so that the example runs offline and
  gives the same each time; put a call to yours in its place.
- Each tool call is an item of the state with events of its own: `call.approve` is sent to the thread of that call,
  `calls/2` for instance, and it may come days later. A call that needs no approval does not wait for one that does.
- An answer of the model is stored before anything is done with it: after a crash the model is not asked again for a
  turn that is over, and an approval that was given stays given.

    python -m examples.agent
"""

from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from pydantic import BaseModel

from asyncflow import After, For, ForEach, If, On, Return, S, Section, Select, Step, Workflow, event
from runner import Runner

SHOP = {"cake": 24, "balloons": 6, "pony": 900}
TIME_TO_ANSWER = timedelta(hours=12)


class Call(BaseModel):
    """One call of a tool that the model wants."""

    tool: Literal["price", "buy"]
    thing: str
    allowed: bool | None = None
    result: str = ""

    @event(role="owner")
    def approve(self) -> None:
        """Let it happen."""
        self.allowed = True

    @event(role="owner")
    def refuse(self, reason: str) -> None:
        """Keep it from happening; the model is told why."""
        self.allowed, self.result = False, f"refused: {reason}"

    def nobody_answered(self) -> None:
        self.allowed, self.result = False, "refused: nobody answered in time"

    def spends(self) -> bool:
        return self.tool == "buy"

    def may_run(self) -> bool:
        return self.allowed is not False

    def done(self, result: str) -> None:
        self.result = result


class Turn(BaseModel):
    """What the model says: a thought, and the calls it wants; without any, the thought is the answer."""

    thought: str
    calls: list[Call] = []


def model(wishes: list[str], seen: list[str]) -> Turn:
    """Decide on the next turn from the wishes and from what has been seen so far."""
    if not seen:
        return Turn(thought="What would it cost?", calls=[Call(tool="price", thing=wish) for wish in wishes])
    if not any(line.startswith("buy ") for line in seen):
        known = [wish for wish in wishes if wish in SHOP]
        return Turn(thought="Then I shall buy it.", calls=[Call(tool="buy", thing=wish) for wish in known])
    return Turn(thought="; ".join(line for line in seen if line.startswith("buy ")))


class Assistant(Workflow):
    """Get things for a party."""

    wishes: list[str]
    seen: list[str] = []
    calls: dict[str, Call] = {}
    answer: str | None = None

    def think(self) -> Turn:
        return model(self.wishes, self.seen)

    def plan(self, turn: Turn) -> None:
        self.calls = {str(number): call for number, call in enumerate(turn.calls, 1)}
        if not self.calls:
            self.answer = turn.thought

    async def run_tool(self, call: Call) -> str:
        if call.thing not in SHOP:
            return "not in the shop"
        return f"{SHOP[call.thing]} coins" if call.tool == "price" else f"paid {SHOP[call.thing]} coins"

    def remember(self) -> None:
        self.seen += [f"{call.tool} {call.thing}: {call.result}" for call in self.calls.values()]

    def one_call(self, call: Call) -> Section:
        return S(
            If(
                call.spends,
                Select(
                    "permission",
                    On(call.approve),
                    On(call.refuse),
                    After(TIME_TO_ANSWER, call.nobody_answered),
                ),
            ),
            If(call.may_run, Step(self.run_tool, call, then=call.done)),
        )

    def definition(self) -> Section[str | None]:
        return S(
            For(
                "turns",
                lambda: self.answer is None,
                Step(self.think, then=self.plan, timeout=timedelta(minutes=2)),
                ForEach("calls", lambda: self.calls, self.one_call, parallel=10),
                Step(self.remember),
            ),
            Return(lambda: self.answer),
        )


def main() -> None:
    """Plan a party on a SQLite file; the owner agrees to the cake and not to the pony."""
    with (
        TemporaryDirectory() as folder,
        Runner([Assistant], store=f"sqlite:///{Path(folder) / 'assistant.db'}") as runner,
    ):
        party = runner.start(Assistant(wishes=["cake", "pony", "unicorn"]), id="party")
        # These may come early: while a thread is on its way to its next wait, an event lies in the inbox until then.
        party.send(Call.refuse, "where would it sleep?", thread="calls/2")
        party.send(Call.approve, thread="calls/1")
        print("answer:", party.result(timeout=10))
        print(*party.state.seen, sep="\n")


if __name__ == "__main__":
    main()
