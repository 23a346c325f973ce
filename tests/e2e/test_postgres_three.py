"""Three processes at work at all examples on one Postgres store, one of which is killed in the middle of a step."""

import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from examples import fan_out
from examples.agent import Assistant, Call
from examples.approval import Approval
from examples.fan_out import Survey
from examples.pizza import Pizza, PizzaOrder
from examples.transfer import Transfer
from runner import Runner
from tests.crash import ledger
from tests.e2e.hands import STEPS, SharedBank
from tests.e2e.waiting import until
from tests.runner.conftest import Open, opened
from tests.runner.gates import PATIENCE
from tests.servers.postgres import postgres, postgres_url

__all__ = ["opened", "postgres", "postgres_url"]

pytestmark = [pytest.mark.server("postgres"), pytest.mark.slow]

ROOT: Final = Path(__file__).parents[2]
EACH: Final = 4
"""Instances of each example."""
SENSORS: Final = 40
LEASE_SECONDS: Final = 330.0
SHORT_SECONDS: Final = 3.0
"""What a test waits for the attempts of a process that was killed."""

Begin = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def begin(postgres_url: str, tmp_path: Path) -> Iterator[Begin]:
    with ExitStack() as stack:

        def begun(lease: float, *dies_at: int) -> subprocess.Popen[str]:
            hand = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.hands", postgres_url, str(tmp_path), str(lease), *map(str, dies_at)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(hand.communicate)
            stack.callback(hand.kill)
            return hand

        yield begun


def wait_ready(*hands: "subprocess.Popen[str]") -> None:
    for hand in hands:
        assert hand.stdout is not None
        assert hand.stdout.readline().strip() == "ready"


# -- one instance of each, to its end ----------------------------------------------------------------------------------


def pizza(runner: Runner, number: int) -> None:
    order = runner.start(PizzaOrder(customer="ann"), id=f"pizza-{number}")
    order.send(PizzaOrder.add, Pizza(name="Margherita"))
    order.send(PizzaOrder.submit)
    order.send(PizzaOrder.confirm)
    until(lambda: "cooked" in order.waiting)
    order.send(PizzaOrder.cooked)
    order.send(PizzaOrder.take)
    order.send(PizzaOrder.pay, Decimal("7.50"))
    order.send(PizzaOrder.deliver)
    bill = order.result(PATIENCE)
    assert bill is not None
    assert bill.payments == [Decimal("7.50")]


def approval(runner: Runner, number: int) -> None:
    paper = runner.start(Approval(author="ann", title="Budget", line=["bob"]), id=f"paper-{number}")
    until(lambda: "approve" in paper.waiting)
    paper.send(Approval.approve, caller="bob")
    assert paper.result(PATIENCE).by == "bob"


def survey(runner: Runner, number: int) -> None:
    asked = runner.start(Survey(sensors=fan_out.sensors(SENSORS)), id=f"survey-{number}")
    report = asked.result(PATIENCE)
    assert report.answered + len(report.offline) == SENSORS


def assistant(runner: Runner, number: int) -> None:
    party = runner.start(Assistant(wishes=["cake", "pony"]), id=f"party-{number}")
    until(lambda: {"calls/1", "calls/2"} <= party.threads.keys() and "approve" in party.waiting)
    party.send(Call.refuse, "where would it sleep?", thread="calls/2")
    party.send(Call.approve, thread="calls/1")
    assert party.result(PATIENCE) == "buy cake: paid 24 coins; buy pony: refused: where would it sleep?"


def transfers(runner: Runner, number: int) -> None:
    there = runner.start(Transfer(payer="ann", payee="bob", cents=10_00), id=f"bob-{number}")
    back = runner.start(Transfer(payer="ann", payee="eve", cents=10_00), id=f"eve-{number}")
    assert there.result(PATIENCE).status == "arrived"
    assert back.result(PATIENCE).status == "returned"


STORIES: Final = (pizza, approval, survey, assistant, transfers)


def play(runner: Runner) -> None:
    """See all of them to their ends, at once."""
    with ThreadPoolExecutor(8) as pool:
        told = [pool.submit(story, runner, number) for number in range(EACH) for story in STORIES]
        for one in told:
            one.result()


# -- what was done -----------------------------------------------------------------------------------------------------


def attempts_in(folder: Path) -> dict[str, list[ledger.Line]]:
    """Give the attempts that were begun, by idempotency key."""
    found: dict[str, list[ledger.Line]] = defaultdict(list)
    for line in ledger.read(folder / "ledger"):
        found[line.key].append(line)
    return found


def recorded(runner: Runner, lines: dict[str, list[ledger.Line]]) -> Counter[str]:
    """Count the ends of attempts in the histories of all instances, by id."""
    ids = {line.id for some in lines.values() for line in some}
    counts: Counter[str] = Counter()
    for workflow in STEPS:
        for one in runner.store.list([workflow.__name__], page_size=100).items:
            assert one.id in ids
            handle: Any = runner.get(workflow, one.id)
            counts[one.id] += sum(entry["kind"] in ("step", "failed") for entry in handle.history())
    return counts


def test_three_processes_bring_all_examples_to_their_ends(begin: Begin, opened: Open, postgres_url: str, tmp_path: Path) -> None:
    runner = opened(*STEPS, store=postgres_url)
    hands = [begin(LEASE_SECONDS) for _ in range(3)]
    wait_ready(*hands)
    play(runner)
    found = attempts_in(tmp_path)
    lines = [line for some in found.values() for line in some]
    assert {Counter(line.attempt for line in some).most_common(1)[0][1] for some in found.values()} == {1}, "once per attempt"
    assert len({line.who for line in lines}) == 3, "all three have worked"
    assert recorded(runner, found) == Counter(line.id for line in lines)
    bank = SharedBank(tmp_path / "bank")
    with bank.opened():
        assert bank.accounts == {"ann": 1_000_00 - EACH * 10_00, "bob": EACH * 10_00, "eve": 0}


def test_what_a_killed_process_had_begun_is_ended_by_the_others(
    begin: Begin, opened: Open, postgres_url: str, tmp_path: Path
) -> None:
    runner = opened(*STEPS, store=postgres_url)
    victim, *others = hands = [begin(SHORT_SECONDS, 15), begin(SHORT_SECONDS), begin(SHORT_SECONDS)]
    wait_ready(*hands)
    play(runner)
    assert victim.wait(PATIENCE) == -9
    assert [other.poll() for other in others] == [None, None]
    found = attempts_in(tmp_path)
    for some in found.values():
        numbers = [line.attempt for line in some]
        assert len(numbers) == len(set(numbers)), "once per attempt"
    again = [some for some in found.values() if any(line.who == str(victim.pid) for line in some) and len(some) > 1]
    assert again, "what it was in the middle of was run again"
    bank = SharedBank(tmp_path / "bank")
    with bank.opened():
        assert bank.accounts == {"ann": 1_000_00 - EACH * 10_00, "bob": EACH * 10_00, "eve": 0}
