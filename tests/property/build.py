"""Turns an abstract program into a class of asyncflow, with the public interface alone."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar

from pydantic import BaseModel

from asyncflow import (
    After,
    At,
    Break,
    Cancelled,
    Case,
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
    Raise,
    Rejected,
    Retry,
    Return,
    S,
    Section,
    Select,
    Statement,
    Step,
    Switch,
    TerminalError,
    Try,
    WaitEvent,
    WaitFor,
    WaitUntil,
    When,
    With,
    Workflow,
    event,
)
from tests.property import programs as p
from tests.property.machine import GROWTH


class Boom(Exception):
    pass


class Bang(Boom):
    pass


ERRORS: dict[str, type[BaseException]] = {
    "Boom": Boom,
    "Bang": Bang,
    "TerminalError": TerminalError,
    "Exception": Exception,
    "Cancelled": Cancelled,
}


def error(kind: str, label: str) -> Exception:
    made = ERRORS[kind](label)
    assert isinstance(made, Exception)
    return made


class Row(BaseModel):
    key: str
    n: int = 0

    @event
    def poke(self) -> int:
        return int(p.handle(None, "poke", None, self))

    def took(self, label: str) -> None:
        self.n += 10


def make(key: str) -> Row:
    return Row(key=key)


class Built(Workflow):
    """The fields of `State`, and actions that look up in *table* what their label means."""

    table: ClassVar[dict[str, p.Step]] = {}

    log: list[str] = []
    counts: dict[str, int] = {}
    flags: dict[str, bool] = {"0": False, "1": False, "2": False}
    last: str = ""
    items: dict[str, Row] = {}
    rows: list[Row] = []

    @event
    def e0(self) -> int:
        return self.got("e0")

    @event
    def e1(self, flag: str) -> int:
        return self.got("e1", flag)

    @event
    def e2(self) -> int:
        return self.got("e2")

    @event(queue=True)
    def later(self) -> int:
        return self.got("later")

    def got(self, name: str, value: object = None) -> int:
        try:
            return int(p.handle(self, name, value, None))
        except p.Refusal:
            raise Rejected("not now") from None

    def act(self, label: str) -> str:
        step = self.table[label]
        if self.context.attempt <= step.fails:
            raise error(step.error, label)
        if step.style == "plain":
            p.note(self, label, step.effects, make)
        return label

    async def act_async(self, label: str) -> str:
        return self.act(label)

    def act_on(self, item: Row, label: str) -> str:
        step = self.table[label]
        if self.context.attempt <= step.fails:
            raise error(step.error, label)
        if step.style == "plain":
            item.n += 1
            p.note(self, f"{label}[{item.key}]{item.n}", step.effects, make)
        return label

    def took(self, label: str) -> None:
        p.note(self, label, self.table[label].effects, make)

    def revert(self, label: str) -> None:
        p.note(self, f"undo {label}", (), make)

    def revert_on(self, item: Row, label: str) -> None:
        p.note(self, f"undo {label}[{item.key}]{item.n}", (), make)

    def caught(self, failure: Failure) -> None:
        message = "" if failure.type == "Cancelled" else failure.message
        p.note(self, f"caught {failure.type} {message}", (), make)


def build(program: p.Program) -> Built:
    """Make the class of *program* (after `number`) and an object of it to start from."""

    def definition(self: Built) -> Section[Any]:
        return S(*Tree(self).body(program.body))

    table = {node.label: node for node in p.every(program.body) if isinstance(node, p.Step)}
    made = type("Program", (Built,), {"definition": definition, "table": table, "__module__": __name__})
    start: Built = made(items={key: make(key) for key in program.keys}, rows=[make(f"r{n}") for n in range(program.rows)])
    return start


def minutes(n: int) -> timedelta:
    return timedelta(minutes=n)


def retry(policy: p.Policy | None) -> Retry | None:
    if policy is None:
        return None
    on = ERRORS[policy.on]
    assert issubclass(on, Exception)
    return Retry(
        max_attempts=policy.max_attempts,
        delay=minutes(policy.delay),
        max_delay=minutes(policy.delay * GROWTH),
        on=on,
        exhausted=policy.exhausted,
    )


class Tree:
    """Builds the statements of one blank; *item*: the innermost item."""

    def __init__(self, flow: Built, item: Row | None = None) -> None:
        self.flow, self.item = flow, item

    def body(self, body: list[p.Node]) -> list[Statement[Any]]:
        return [getattr(self, f"make_{type(node).__name__.lower()}")(node) for node in body]

    def cond(self, cond: p.Cond) -> Any:
        if cond == ("true",):
            return True
        return lambda: p.holds(self.flow, cond, self.item)

    def noted(self, case: p.WaitCase) -> Callable[[], object]:
        return lambda: p.note(self.flow, case.label, case.effects, make)

    def make_step(self, node: p.Step) -> Statement[Any]:
        flow, item = self.flow, self.item if node.on_item else None
        options: dict[str, Any] = {"retry": retry(node.policy)}
        if node.style == "into":
            options["into"] = "last"
        if node.style == "then":
            options["then"] = flow.took if item is None else item.took
        if item is not None:
            undo = flow.revert_on if node.undo else None
            return Step(node.name, flow.act_on, item, node.label, undo=undo, **options)
        undo_plain = flow.revert if node.undo else None
        if node.tag % 3 == 0:
            return Step(node.name, flow.act_async, node.label, undo=undo_plain, **options)
        return Step(node.name, flow.act, node.label, undo=undo_plain, **options)

    def make_seq(self, node: p.Seq) -> Statement[Any]:
        body = self.body(node.body)
        if node.policy is not None:
            within = With(retry=retry(node.policy))(*body)
            return Section(node.name, within) if node.named else within
        return Section(node.name, *body) if node.named else S(*body)

    def make_select(self, node: p.Select) -> Statement[Any]:
        case = node.cases[0]
        if not node.short:
            return Select(node.name, *map(self.case, node.cases))
        body = self.body(case.body)
        if case.kind == "on":
            return WaitEvent(*self.event_of(case), *body)
        if case.kind == "after":
            return WaitFor(node.name, self.delay(case), *body)
        if case.handler:
            return WaitUntil(node.name, self.cond(case.cond), self.noted(case), *body)
        return WaitUntil(node.name, self.cond(case.cond), *body)

    def event_of(self, case: p.WaitCase) -> tuple[Any, ...]:
        if case.event == "ping":
            return ("ping",)
        if case.event == "x0":
            return ("x0", self.noted(case))
        if case.event == "poke":
            assert self.item is not None
            return (self.item.poke,)
        return (getattr(self.flow, case.event),)

    def delay(self, case: p.WaitCase) -> Any:
        if case.minutes == p.NEVER:
            return lambda: None
        return minutes(case.minutes) if case.tag % 2 else (lambda: minutes(case.minutes))

    def case(self, case: p.WaitCase) -> Any:
        body = self.body(case.body)
        more: list[Any] = [*([self.noted(case)] if case.handler else []), *body]
        if case.kind == "on":
            return On(*self.event_of(case), *body)
        if case.kind == "after":
            return After(self.delay(case), *more)
        if case.kind == "at":
            return At(lambda: None if case.minutes == p.NEVER else p.START + minutes(case.minutes), *more)
        return When(case.name, self.cond(case.cond), *more)

    def make_if(self, node: p.If) -> Statement[Any]:
        (cond, body), *arms = node.arms
        made: Any = If(node.name, self.cond(cond), *self.body(body))
        for n, (other, arm) in enumerate(arms, 1):
            made = made.Elif(f"or{n}", self.cond(other), *self.body(arm))
        whole: Statement[Any] = made if node.orelse is None else made.Else(*self.body(node.orelse))
        return whole

    def make_switch(self, node: p.Switch) -> Statement[Any]:
        cases = [Case(f"case{n}", self.cond(cond), *self.body(body)) for n, (cond, body) in enumerate(node.cases)]
        default = [] if node.default is None else [Default(*self.body(node.default))]
        return Switch(node.name, *cases, *default) if node.named else Switch(*cases, *default)

    def make_for(self, node: p.For) -> Statement[Any]:
        more = self.cond(("below", str(node.tag), str(node.limit)))
        tick, body = self.body([node.tick]), self.body(node.body)
        if node.leaves:
            return For(node.name, True, *tick, If("over", lambda: not more(), Break()), *body)
        return For(node.name, more, *tick, *body)

    def make_each(self, node: p.Each) -> Statement[Any]:
        flow = self.flow
        items: Any = (lambda: flow.items) if node.over == "items" else (lambda: flow.rows)

        def one(item: Row) -> Statement[Any]:
            return S(*Tree(flow, item).body(node.body))

        return ForEach(node.name, items, one, parallel=node.parallel)

    def make_break(self, node: p.Break) -> Statement[Any]:
        return Break()

    def make_continue(self, node: p.Continue) -> Statement[Any]:
        return Continue()

    def make_return(self, node: p.Return) -> Statement[Any]:
        return Return(lambda: len(self.flow.log)) if node.value is None else Return(node.value)

    def make_raise(self, node: p.Raise) -> Statement[Any]:
        if node.tag % 2:
            return Raise(error(node.error, node.label))
        return Raise(lambda: error(node.error, node.label))

    def make_try(self, node: p.Try) -> Statement[Any]:
        made: Any = Try(node.name, *self.body(node.body)) if node.named else Try(*self.body(node.body))
        for handler in node.handlers:
            kinds = tuple(ERRORS[kind] for kind in handler.errors)
            noted = [self.flow.caught] if handler.noted else []
            made = made.Except(kinds if len(kinds) > 1 else kinds[0], *noted, *self.body(handler.body))
        whole: Statement[Any] = made if node.final is None else made.Finally(*self.body(node.final))
        return whole

    def make_parallel(self, node: p.Parallel) -> Statement[Any]:
        return Parallel(node.name, *self.body(node.branches))

    def make_go(self, node: p.Go) -> Statement[Any]:
        flow, key = self.flow, node.key
        if key is not None:

            def one(item: Row) -> Statement[Any]:
                return S(*Tree(flow, item).body(node.body))

            go = Go(node.name, lambda: flow.items, one, id=lambda: key)
            return If(f"guard{node.tag}", lambda: key in flow.items, go)
        if node.dynamic:
            return Go(node.name, *self.body(node.body), id=lambda: str(len(flow.log)))
        return Go(node.name, *self.body(node.body))

    def make_join(self, node: p.Join) -> Statement[Any]:
        return Join(*(go.name for go in node.targets))
