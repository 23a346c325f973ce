"""Money goes from one account to another through a bank whose line is bad, and comes back when it cannot arrive.

What to notice:

- A step happens at least once: the bank may have booked and the answer may be lost. The idempotency key is the same for
  every attempt of one step, and the bank books each key once. That pair is what makes it happen once.
- `Retry` is a policy, not a loop: the delays are in the document and cost nothing while they last.
- `undo` is called when an error leaves the `Try`, after a reload as well; it is a step like any other, with a key and
  retries of its own.
- `AccountClosed` is a `TerminalError`, which no retry helps, so it goes into the tree at once and meets the `Except`.

    python -m examples.transfer
"""

from collections import Counter
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from pydantic import BaseModel, PositiveInt

from asyncflow import Failure, Retry, Return, S, Section, Step, TerminalError, Try, Workflow
from runner import Runner

PATIENT = Retry(max_attempts=8, delay=timedelta(milliseconds=20))


class AccountClosed(TerminalError):
    """The bank says no, and will go on saying so."""


class Bank:
    """The world outside. Of the calls with one key the first is lost on the way there, the second on the way back."""

    def __init__(self, accounts: dict[str, int], closed: frozenset[str] = frozenset()) -> None:
        self.accounts = accounts
        self.closed = closed
        self.calls: Counter[str] = Counter()
        self.booked: set[str] = set()

    def book(self, account: str, cents: int, key: str) -> None:
        self.calls[key] += 1
        if self.calls[key] == 1:
            raise ConnectionError("the line was dead")
        if account in self.closed:
            raise AccountClosed(f"the account of {account} is closed", code=409)
        if key not in self.booked:
            self.booked.add(key)
            self.accounts[account] += cents
        if self.calls[key] == 2:
            raise ConnectionError("booked, but the answer was lost")


bank = Bank({"ann": 100_00, "bob": 0, "eve": 0}, closed=frozenset({"eve"}))


class Outcome(BaseModel):
    """Whether the money has arrived, and why not."""

    status: Literal["arrived", "returned"]
    reason: str = ""


class Transfer(Workflow, labels=("payer", "payee")):
    """Move an amount, all of it or nothing."""

    payer: str
    payee: str
    cents: PositiveInt
    outcome: Outcome = Outcome(status="arrived")

    def withdraw(self) -> None:
        bank.book(self.payer, -self.cents, self.context.idempotency_key)

    def give_back(self) -> None:
        bank.book(self.payer, self.cents, self.context.idempotency_key)

    def deposit(self) -> None:
        bank.book(self.payee, self.cents, self.context.idempotency_key)

    def returned(self, failure: Failure) -> None:
        self.outcome = Outcome(status="returned", reason=failure.message)

    def definition(self) -> Section[Outcome]:
        return S(
            Try(
                Step(self.withdraw, undo=self.give_back, retry=PATIENT),
                Step(self.deposit, retry=PATIENT),
            ).Except(AccountClosed, self.returned),
            Return(lambda: self.outcome),
        )


def main() -> None:
    """Make two transfers, one of which cannot arrive, on a SQLite file."""
    with (
        TemporaryDirectory() as folder,
        Runner([Transfer], store=f"sqlite:///{Path(folder) / 'transfers.db'}") as runner,
    ):
        for payee in ("bob", "eve"):
            transfer = runner.start(Transfer(payer="ann", payee=payee, cents=30_00), id=f"ann-to-{payee}")
            print(f"to {payee}:", transfer.result(timeout=30))
            for entry in transfer.history():
                if entry["kind"] in ("step", "failed"):
                    error = entry.get("error")
                    print(
                        f"  {entry['kind']:6} {entry['path']:20} attempt {entry['attempt']}",
                        error["message"] if error else "",
                    )
        print("accounts:", bank.accounts, "in all", sum(bank.accounts.values()))


if __name__ == "__main__":
    main()
