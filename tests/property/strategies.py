"""Random programs and schedules for Hypothesis: bounded, without what registration refuses, all kinds."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from tests.property.naming import number
from tests.property.programs import (
    NEVER,
    Break,
    Cond,
    Continue,
    Each,
    Effect,
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
    every,
)

MAX_DEPTH = 5
MINUTES = (30, 60, 60, 90, 240, 0, NEVER)
ALWAYS = 99  # attempts that fail: also those that follow a lost one
WIDENING = (("Bang",), ("Boom",), ("Cancelled",), ("Boom", "TerminalError"), ("Exception",))
KEYS = ("a", "b", "c/1")


@dataclass(frozen=True)
class Features:
    """What a program may contain. *failing*: attempts that fail and are tried again, and with what is used up."""

    failing: bool = True
    parking: bool = False
    vanishing: bool = True


@dataclass(frozen=True)
class Around:
    """What encloses a statement, as far as it decides what may stand there."""

    depth: int = 0
    breaks: bool = False
    continues: bool = False
    returns: bool = True  # not in an item of a parallel ForEach
    item: bool = False
    caught: bool = False  # inside a Try: an error is worth while
    maybe: bool = False  # not on the way of every run: an end is worth while
    undo: bool = True
    looped: bool = False
    go: bool = False


class Grower:
    """Draws one program."""

    def __init__(self, draw: st.DrawFn, features: Features, size: int) -> None:
        self.draw, self.features, self.left = draw, features, size
        self.gos: list[Go] = []
        self.parallel_rows = False
        self.grows: list[Step | WaitCase] = []

    def chance(self, one_in: int) -> bool:
        return self.draw(st.integers(0, one_in - 1)) == one_in - 1

    def pick(self, options: tuple[str, ...]) -> str:
        return self.draw(st.sampled_from(options))

    def body(self, around: Around, least: int = 1, most: int = 3) -> list[Node]:
        count = self.draw(st.integers(least, most))
        return [self.statement(around) for n in range(count) if n < least or self.left > 0]

    def statement(self, around: Around) -> Node:
        self.left -= 1
        inner = replace(around, depth=around.depth + 1)
        if self.left <= 0 or around.depth >= MAX_DEPTH:
            return self.leaf(around)
        holding: list[Callable[[Around], Node]] = [self.attempt, self.attempt, self.fork, self.fork, self.go]
        holding += [self.each, self.loop]
        kinds = [*holding, self.step, self.step, self.step, self.select, self.wait, self.choice, self.section]
        if around.depth < 2 and self.chance(2):
            kinds = holding
        if around.depth and self.chance(5):
            return self.leaf(around)
        return self.draw(st.sampled_from(kinds))(inner)

    def leaf(self, around: Around) -> Node:
        kinds: list[Callable[[Around], Node]] = [self.step, self.step, self.step, self.wait, self.wait, self.wait]
        kinds += [self.throw] * (around.caught or self.chance(8))
        kinds += [self.join] * bool(self.gos)
        kinds += [lambda _: Continue()] * around.continues
        kinds += [lambda _: Break()] * around.breaks
        kinds += [self.end] * (around.returns and self.chance(2 if around.maybe else 8))
        return self.draw(st.sampled_from(kinds))(around)

    # -- small things --------------------------------------------------------------------------------------------------

    def cond(self, around: Around) -> Cond:
        kinds = ("flag", "flag", "noflag", "log", "log", "has") + ("odd",) * around.item
        kind = self.pick(kinds)
        if kind in ("flag", "noflag"):
            return (kind, self.pick(("0", "1", "2")))
        if kind == "log":
            return ("log", "3", self.pick(("0", "1", "2")))
        return ("has", self.pick(KEYS)) if kind == "has" else (kind,)

    def effects(self) -> tuple[Effect, ...]:
        kind = self.pick(("none", "on", "off", "on") + ("drop", "put", "grow") * self.features.vanishing)
        if kind in ("on", "off"):
            return ((kind, self.pick(("0", "1", "2"))),)
        if kind in ("drop", "put"):
            return ((kind, self.pick(KEYS)),)
        return () if kind == "none" else (("grow", ""),)

    def policy(self) -> Policy:
        exhausted = "pause" if self.features.parking and self.chance(3) else "raise"
        return Policy(
            max_attempts=self.draw(st.integers(1, 3)),
            delay=self.draw(st.sampled_from((30, 60, 45))),
            exhausted="pause" if exhausted == "pause" else "raise",
            on=self.pick(("Exception", "Exception", "Boom", "Bang")),
        )

    def step(self, around: Around) -> Node:
        node = Step(on_item=around.item and self.chance(2))
        node.style = self.draw(st.sampled_from(("plain", "plain", "then", "then", "into")))
        node.effects = self.effects()
        drops = any(kind == "drop" for kind, _ in node.effects)
        node.undo = around.undo and not drops and self.chance(2 if around.caught else 4)
        if self.chance(4 if around.caught else 24):
            node.error, node.fails = "TerminalError", ALWAYS
            if self.features.failing and self.chance(2):
                node.error = self.pick(("Boom", "Bang"))
                node.fails = self.draw(st.integers(1, 3))
                node.policy = self.policy()
            node.undo &= self.features.failing  # a lost attempt before the failure is undone (PROTOCOL 32), others are not
        self.note_growth(node)
        return node

    def note_growth(self, node: Step | WaitCase) -> None:
        if any(kind == "grow" for kind, _ in node.effects):
            self.grows.append(node)

    def throw(self, around: Around) -> Node:
        return Raise(self.pick(("Boom", "Bang", "TerminalError")))

    def end(self, around: Around) -> Node:
        return Return(self.draw(st.sampled_from((None, 1, 2))))

    def join(self, around: Around) -> Node:
        if self.chance(3) and not around.go:
            return Join()
        return Join([self.draw(st.sampled_from(self.gos))])

    def section(self, around: Around) -> Node:
        named = self.chance(2)
        policy = self.policy() if self.features.failing and self.chance(2) else None
        return Seq(self.body(around), named, policy)

    # -- waiting -------------------------------------------------------------------------------------------------------

    def on(self, around: Around, taken: set[str]) -> WaitCase | None:
        names = ("e0", "e1", "e2", "later", "ping", "x0") + ("poke",) * (2 * around.item)
        event = self.pick(names)
        if event in taken:
            return None
        taken.add(event)
        case = WaitCase(kind="on", event=event, handler=event == "x0", effects=self.effects() if event == "x0" else ())
        self.note_growth(case)
        return case

    def case(self, around: Around, taken: set[str]) -> WaitCase | None:
        kind = self.draw(st.sampled_from(("on", "on", "on", "after", "at", "when")))
        if kind == "on":
            return self.on(around, taken)
        handler = self.chance(2)
        case = WaitCase(
            kind="after" if kind == "after" else "at" if kind == "at" else "when",
            minutes=self.draw(st.sampled_from(MINUTES)),
            cond=self.cond(around) if kind == "when" else ("true",),
            handler=handler,
            effects=self.effects() if handler else (),
        )
        self.note_growth(case)
        return case

    def select(self, around: Around) -> Node:
        taken: set[str] = set()
        drawn = [self.case(around, taken) for _ in range(self.draw(st.integers(1, 3)))]
        cases = [case for case in drawn if case is not None]
        for case in cases:
            case.body = self.body(replace(around, maybe=True), 0, 2)
        return Select(cases)

    def wait(self, around: Around) -> Node:
        case = self.case(around, set())
        assert case is not None
        if case.kind == "at":
            case.kind = "after"
        if case.kind == "after":
            case.handler, case.effects = False, ()
        if self.chance(4):
            case.body = self.body(around, 1, 1)
        return Select([case], short=True)

    # -- bodies --------------------------------------------------------------------------------------------------------

    def choice(self, around: Around) -> Node:
        inner = replace(around, maybe=True)
        arms = [(self.cond(around), self.body(inner, 1, 2)) for _ in range(self.draw(st.integers(1, 2)))]
        rest = self.body(inner, 1, 2) if self.chance(2) else None
        if self.chance(3):
            return Switch(arms, rest, named=self.chance(2))
        return If(arms, rest)

    def loop(self, around: Around) -> Node:
        tick: Node = Step(style=self.draw(st.sampled_from(("plain", "then"))))
        if self.chance(3):
            tick = Select([WaitCase(kind="when", cond=("true",), handler=True)], short=True)
        inner = replace(around, breaks=True, continues=True, undo=False, looped=True)
        return For(tick, self.draw(st.integers(1, 3)), self.chance(2), self.body(inner, 1, 2))

    def each(self, around: Around) -> Node:
        over = self.draw(st.sampled_from(("items", "items", "rows")))
        parallel = self.draw(st.sampled_from((1, 1, 2, 3)))
        inner = replace(around, breaks=parallel == 1, continues=True, item=True)
        inner = replace(inner, returns=around.returns and parallel == 1)
        self.parallel_rows |= parallel > 1 and over == "rows"
        return Each("items" if over == "items" else "rows", self.body(inner, 1, 2), parallel)

    def attempt(self, around: Around) -> Node:
        node = Try(named=self.chance(2))
        node.body = self.body(replace(around, undo=True, caught=True), 2, 4)
        if self.chance(2):
            node.body.append(self.throw(around))
        after = replace(around, undo=around.undo and not around.looped)
        node.final = self.body(after, 1, 2) if self.chance(2) else None
        least = 0 if node.final and self.chance(3) else 1
        # An Except behind one that takes the same errors is refused: from the narrow to the wide.
        drawn = self.draw(st.lists(st.sampled_from(WIDENING), min_size=least, max_size=2, unique=True))
        for errors in sorted(drawn, key=WIDENING.index):
            node.handlers.append(Handler(errors, not self.chance(3), body=self.body(after, 0, 2)))
        return node

    def fork(self, around: Around) -> Node:
        inner = replace(around, breaks=False, continues=False)
        branches: list[Node] = [Seq(self.body(inner, 1, 3)) for _ in range(self.draw(st.integers(2, 3)))]
        return Parallel(branches)

    def go(self, around: Around) -> Node:
        inner = replace(around, breaks=False, continues=False, go=True, undo=around.undo and not around.looped)
        node = Go(dynamic=self.chance(2))
        if self.chance(3):
            node.key, node.dynamic = self.pick(KEYS), False
            inner = replace(inner, item=True)
        node.body = self.body(replace(inner, caught=False), 1, 3)
        self.gos.append(node)
        return node


def untangle(program: Program) -> None:
    """A thread never joins the Go it is begun by."""

    def clean(body: list[Node], inside: tuple[Go, ...]) -> None:
        for node in body:
            if isinstance(node, Join):
                node.targets = [go for go in node.targets if go not in inside]

    for node in every(program.body):
        if isinstance(node, Go):
            clean(list(every(node.body)), (node,))


def last_wait() -> Node:
    return Select([WaitCase(kind="on", event="later")], short=True)


# Most programs wait at their end, since the end of main is the end of all threads.
ENDINGS: tuple[Callable[[], list[Node]], ...] = (
    list,
    lambda: [Join()],
    lambda: [last_wait()],
    lambda: [Join(), last_wait()],
)


@st.composite
def programs(draw: st.DrawFn, features: Features | None = None, size: int = 30) -> Program:
    """A numbered program of about *size* statements at most."""
    grower = Grower(draw, features or Features(), draw(st.integers(8, size)))
    program = Program(grower.body(Around(), 2, 6), keys=draw(st.sampled_from((("a", "b", "c/1"), ("b",), ()))), rows=2)
    program.body += draw(st.sampled_from(ENDINGS))()
    if grower.parallel_rows:
        for grown in grower.grows:
            grown.effects = ()
    untangle(program)
    return number(program)


@dataclass(frozen=True)
class Move:
    """One thing from outside, made definite by `pick` against what the instance waits for then."""

    kind: str
    pick: int


def schedules(least: int = 3, most: int = 10) -> st.SearchStrategy[list[Move]]:
    """Events (mostly awaited ones), passing time, a cancel."""
    kinds = ("send",) * 7 + ("queue", "address", "advance", "advance", "advance", "stray", "cancel", "retry", "skip")
    return st.lists(st.builds(Move, st.sampled_from(kinds), st.integers(0, 23)), min_size=least, max_size=most)
