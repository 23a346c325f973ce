"""Money neither vanishes nor doubles, whatever the line to the bank and the process do."""

from collections.abc import Callable

import pytest

from asyncflow import Status, TerminalError, simulate
from asyncflow.testing import Simulate, every_crash
from examples import transfer
from examples.transfer import Bank, Outcome, Transfer

TO_BOB = Transfer(payer="ann", payee="bob", cents=3000)
TO_EVE = Transfer(payer="ann", payee="eve", cents=3000)


@pytest.fixture
def new_bank(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Bank]:
    """Open the bank anew, with the same accounts."""

    def open_bank() -> Bank:
        bank = Bank({"ann": 10_000, "bob": 0, "eve": 0}, closed=frozenset({"eve"}))
        monkeypatch.setattr(transfer, "bank", bank)
        return bank

    return open_bank


def test_money_arrives_once_though_each_call_is_made_three_times(new_bank: Callable[[], Bank]) -> None:
    bank = new_bank()
    sim = simulate(TO_BOB)
    assert sim.output == Outcome(status="arrived")
    assert sim.steps == ["withdraw"] * 3 + ["deposit"] * 3
    assert bank.accounts == {"ann": 7000, "bob": 3000, "eve": 0}
    assert len(bank.calls) == 2  # one key for each step, whatever the number of attempts


def test_money_that_cannot_arrive_comes_back(new_bank: Callable[[], Bank]) -> None:
    bank = new_bank()
    sim = simulate(TO_EVE)
    assert sim.output == Outcome(status="returned", reason="the account of eve is closed")
    assert sim.steps == ["withdraw"] * 3 + ["deposit"] * 2 + ["undo withdraw"] * 3
    assert bank.accounts == {"ann": 10_000, "bob": 0, "eve": 0}


def test_nothing_is_undone_that_was_not_done(new_bank: Callable[[], Bank]) -> None:
    new_bank()
    sim = simulate(Transfer(payer="eve", payee="bob", cents=1))
    assert sim.steps == ["withdraw", "withdraw"]
    assert sim.output == Outcome(status="returned", reason="the account of eve is closed")


def test_a_policy_that_is_used_up_parks_the_transfer_until_somebody_looks(new_bank: Callable[[], Bank]) -> None:
    bank = new_bank()
    down = True

    def book(account: str, cents: int, key: str) -> None:
        if down:
            raise ConnectionError("the bank is closed today")
        Bank.book(bank, account, cents, key)

    bank.book = book  # type: ignore[method-assign]
    sim = simulate(TO_BOB)
    assert sim.status is Status.Paused
    assert sim.steps == ["withdraw"] * 8
    assert sim.error is not None
    assert sim.error.message == "the bank is closed today"
    down = False
    sim.retry()
    assert sim.output == Outcome(status="arrived")
    assert bank.accounts["bob"] == 3000


def test_another_error_than_the_expected_one_gives_the_money_back_and_fails(new_bank: Callable[[], Bank]) -> None:
    bank = new_bank()

    def deposit() -> None:
        raise TerminalError("no such currency", code=422)

    sim = simulate(TO_BOB, stubs={Transfer.deposit: deposit})
    assert sim.status is Status.Failed
    assert sim.error is not None
    assert (sim.error.message, sim.error.code) == ("no such currency", 422)
    assert bank.accounts["ann"] == 10_000


def test_a_cancel_in_the_middle_gives_the_money_back(new_bank: Callable[[], Bank]) -> None:
    bank = new_bank()
    sim = simulate(TO_BOB, hold={Transfer.deposit})
    assert bank.accounts["ann"] == 7000
    sim.cancel()
    sim.held(Transfer.deposit).fail(ConnectionError("the line was dead"))
    assert sim.status is Status.Cancelled
    assert bank.accounts == {"ann": 10_000, "bob": 0, "eve": 0}


@pytest.mark.parametrize("start_with", [TO_BOB, TO_EVE], ids=["arrives", "comes back"])
def test_it_ends_the_same_whenever_the_process_dies(new_bank: Callable[[], Bank], start_with: Transfer) -> None:
    def run(start: Simulate) -> tuple[Outcome | None, dict[str, int]]:
        bank = new_bank()
        sim = start(start_with)
        return sim.output, bank.accounts

    _, accounts = every_crash(run)
    assert sum(accounts.values()) == 10_000
