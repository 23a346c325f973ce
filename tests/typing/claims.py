"""Expense claims: a program with every statement, and with the types that checkers have to find by themselves.

Nothing here is run. `test_typing.py` lets mypy and pyright read it: no line may be refused.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal, assert_type

from pydantic import BaseModel

from asyncflow import (
    After,
    At,
    Atomic,
    Break,
    Call,
    Cancel,
    Cancelled,
    Case,
    Channel,
    Commit,
    Continue,
    Default,
    Failure,
    For,
    ForEach,
    Go,
    If,
    Join,
    On,
    Parallel,
    Promise,
    Raise,
    Rejected,
    Reply,
    Retry,
    Return,
    S,
    Section,
    Select,
    Send,
    Simulation,
    Status,
    Step,
    Switch,
    TerminalError,
    Try,
    Uncertain,
    WaitEvent,
    WaitFor,
    WaitOperations,
    WaitUntil,
    When,
    With,
    Workflow,
    event,
    query,
    simulate,
)


class Receipt(BaseModel):
    shop: str
    amount: Decimal
    checked: Literal["open", "fine", "odd"] = "open"
    note: str = ""

    @event(role="auditor")
    def accept(self) -> None:
        self.checked = "fine"

    @event(role={"auditor", "chief"})
    def doubt(self, why: str) -> int:
        self.checked, self.note = "odd", why
        return len(why)

    def large(self) -> bool:
        return self.amount > 100

    def read(self, text: str) -> None:
        self.note = text

    def unreadable(self, failure: Failure) -> None:
        self.note = f"{failure.type}: {failure.message}"


class Transfer(Workflow, labels=("account",)):
    """A payment by the bank, which another class of the same service makes."""

    account: str
    amount: Decimal

    @event
    def confirm(self, reference: str) -> None: ...

    @event("Give Up")
    def give_up(self) -> None: ...

    def definition(self) -> Section[str]:
        return S(
            WaitEvent("booked"),
            Select(
                "bank answers",
                On(self.confirm, Return(lambda: self.account)),
                On("Give Up", self.give_up, Raise(TerminalError("the bank says no", code=402))),
                On("too late"),
            ),
            Return("paid"),
        )


class Claim(Workflow, name="ExpenseClaim", labels=("person",)):
    """One person's claim, from the first receipt to the money."""

    person: str
    receipts: dict[str, Receipt] = {}
    extras: list[Receipt] = []
    newest: str = ""
    approvals: set[str] = set()
    due: datetime | None = None
    paid: Decimal = Decimal(0)

    @classmethod
    def start(cls, request: Receipt) -> "Claim":
        if not request.shop:
            raise Rejected("a receipt names its shop", code=422, details={"field": "shop"})
        return cls(person="", extras=[request])

    @event
    def add(self, receipt: Receipt) -> dict[str, Receipt]:
        self.newest = f"r{len(self.receipts)}"
        self.receipts[self.newest] = receipt
        return self.receipts

    @event("hand in", role="owner", queue=True)
    def hand_in(self) -> None: ...

    @event(schema={"type": "integer"})
    def approve(self, level: int) -> bool:
        self.approvals.add(str(level))
        return len(self.approvals) > 1

    @query
    def total(self) -> Decimal:
        return sum((receipt.amount for receipt in self.receipts.values()), Decimal(0))

    def approved(self) -> bool:
        return len(self.approvals) > 1

    def forget(self) -> None:
        self.approvals.clear()

    def failed(self, failure: Failure) -> None: ...

    def mail(self, to: str, urgent: bool = False) -> None: ...

    async def scan(self, receipt: Receipt) -> str:
        return receipt.shop

    async def shred(self, receipt: Receipt) -> None: ...

    async def balance(self) -> Decimal:
        return Decimal(1)

    def book(self, account: str, amount: Decimal) -> int:
        return len(account)

    def unbook(self, account: str, amount: Decimal) -> None: ...

    def booked(self, number: float) -> None:
        self.paid = Decimal(number)

    def transfer(self) -> Transfer:
        return Transfer(account=self.person, amount=self.total())

    def transferred(self, reference: str) -> None:
        self.newest = reference

    def one_receipt(self, receipt: Receipt) -> Section:
        return S(
            Try(Step(self.scan, receipt, then=receipt.read, undo=self.shred)).Except(Exception, receipt.unreadable),
            If(
                receipt.large,
                Select("audit", On(receipt.accept), On(receipt.doubt), After(timedelta(days=3), receipt.accept)),
            ),
        )

    def collecting(self) -> Section[Decimal | None]:
        return Section(
            "collecting",
            For(
                "receipts",
                True,
                Select(
                    "person",
                    On(self.add, Go("scan", lambda: self.receipts, self.one_receipt, id=lambda: self.newest)),
                    On(self.hand_in, Break()),
                    When("enough", lambda: len(self.receipts) > 50, Break()),
                    When(self.approved, Continue()),
                    When("odd", self.approved, self.forget, Step("warn", self.mail, "chief", True)),
                    After(lambda: timedelta(days=len(self.receipts)), Return(None)),
                    At(lambda: self.due, self.forget, Return(Decimal(0))),
                    At(datetime(2040, 1, 1, tzinfo=UTC), Return(self.total)),
                ),
            ),
            Join("scan"),
        )

    def deciding(self) -> Section:
        return S(
            Switch(
                "size",
                Case("small", lambda: self.total() < 50, Step("tell", self.mail, "clerk")),
                Case(self.approved, Step("tell again", self.mail, "clerk")),
                Default(Step("ask", self.mail, "chief")),
            ),
            Switch(Case("never", self.approved)),
            For(self.approved, Break()),
            Parallel("signatures", WaitEvent(self.approve), S(WaitEvent("signed"), Step("file", self.mail, "archive"))),
            WaitUntil(self.approved),
            WaitUntil("money", lambda: self.paid >= 0, self.forget),
            WaitFor("a night", timedelta(hours=12)),
            WaitFor("as long as it takes", lambda: None, Step("wake", self.mail, "clerk")),
            ForEach("extras", lambda: self.extras, self.one_receipt, parallel=10),
            ForEach(
                "again",
                lambda: self.receipts,
                lambda receipt: (
                    If("odd", lambda: receipt.checked == "odd", Continue())
                    .Elif(receipt.large, Step("look", self.scan, receipt))
                    .Elif("new", lambda: receipt.note == "", Break())
                    .Else(Step("shred", self.shred, receipt))
                ),
            ),
        )

    def paying(self) -> Section[Decimal]:
        patient = Retry(max_attempts=None, delay=timedelta(seconds=5), on=(OSError, TimeoutError), exhausted="raise")
        return S(
            Try(
                "money",
                With(retry=patient, timeout=timedelta(minutes=1))(
                    Step(self.balance, into="paid"),
                    Step("book", self.book, "travel", Decimal(1), then=self.booked, undo=self.unbook),
                ),
                Step("wire", self.book, "travel", Decimal(2), idempotent=False),
                With(persist="smart", idempotent=True)(Step(self.forget)),
            )
            .Except(Uncertain, Return(Decimal(-1)))
            .Except((ValueError, TerminalError), lambda failure: print(failure.code), Raise(ValueError("no money")))
            .Except(Cancelled, Return(lambda: self.paid))
            .Finally(Step("tidy", self.mail, "archive")),
            Raise(lambda: TerminalError("not reached")),
        )

    def closing(self) -> Section[None]:
        return S(
            Try(Step(self.balance)).Except(OSError, self.failed).Finally(Step(self.forget)),
            If(self.approved, Step(self.forget)).Elif("late", lambda: self.due is None).Else(Step(self.balance)),
        )

    def elsewhere(self) -> Section:
        return S(
            Atomic("papers", Step("print", self.mail, "printer"), Step("sign", self.mail, "chief")),
            Commit(replicas=1),
            Call("bank", self.transfer, then=self.transferred),
            Call("other bank", self.transfer, into="newest", id=lambda: self.person),
            Send("reference", Transfer.confirm, lambda: "42", to=lambda: self.person, delay=timedelta(minutes=1)),
            Send("enough", Transfer.give_up, to=lambda: self.person),
            Cancel("bank", Transfer, id=lambda: self.person),
            WaitOperations("exports", lambda: ["op-1"], poll=timedelta(seconds=30), on_error="collect"),
        )

    def definition(self) -> Section[Decimal | None]:
        return S(
            Go("reminders", For("ever", True, WaitFor("a week", timedelta(weeks=1)), Step("remind", self.mail, "self"))),
            self.collecting(),
            self.deciding(),
            If("nothing", lambda: not self.receipts, Return(None)).Else(self.elsewhere(), Return(Decimal(1))),
            self.paying(),
            Return(),
        )


class Counter(Workflow):
    """A queue and a promise, and a definition that says nothing of its output."""

    numbers: Channel[int]
    winner: Promise[str]
    last: int = 0

    @event
    def draw(self, number: int) -> None:
        self.numbers.send(number)

    def take(self) -> None:
        self.last = self.numbers.receive()

    def definition(self) -> Section:
        return S(
            Go("drawing", WaitUntil("a number", lambda: self.numbers.ready, self.take)),
            Select("first", On(self.draw, Reply("noted")), When("done", lambda: self.winner.done)),
            Return(lambda: self.winner.value),
        )


def types_of_parts(claim: Claim) -> None:
    assert_type(Return(1), Return[int])
    assert_type(Return(), Return[None])
    assert_type(Return(claim.total), Return[Decimal])
    assert_type(If("a", True, Return(1)).Elif("b", True, Return("x")), If[int | str])
    assert_type(claim.paying(), Section[Decimal])


def types_of_a_test(run: Simulation[Transfer]) -> None:
    sim = simulate(Claim(person="ann"), stubs={Claim.scan: len, "book": len}, hold={Claim.balance}, skip_backoff=False)
    assert_type(sim, Simulation[Claim])
    assert_type(sim.output, Decimal | None)
    assert_type(run.output, str | None)
    assert_type(sim.state, Claim)
    assert_type(sim.status, Status)
    assert_type(sim.error, Failure | None)
    assert_type(sim.send(Claim.add, Receipt(shop="x", amount=Decimal(1)), caller="ann"), dict[str, Receipt])
    assert_type(sim.send(Claim.approve, 1), bool)
    assert_type(sim.send(Receipt.doubt, "why", thread="scan/r0"), int)
    assert_type(sim.query(Claim.total), Decimal)
    assert_type(simulate(Claim, document=sim.document), Simulation[Claim])
    sim.send(Claim.hand_in, idempotency_key="k")
    sim.send("add", {"shop": "x", "amount": "1"})
    sim.advance(timedelta(days=3))
    sim.held(Claim.balance).finish(Decimal(3))
    sim.held("balance", thread="main").fail(OSError())
