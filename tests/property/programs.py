"""Abstract programs: a workflow as plain data, read by the interpreter and turned into a class by the builder.

Nothing here knows the engine. What a step or a handler does to the state is a list of effects, applied by `note` to
anything that has the fields of `State`, so that both sides share the meaning of an effect and nothing else.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

START = datetime(2030, 1, 1, tzinfo=UTC)  # where the virtual clock of every run begins
MAX_ROWS = 4  # where a list stops growing, since a loop over it that makes it grow would never end
NEVER = -1  # a delay in minutes that stands for "no timer"

Effect = tuple[str, str]  # ("on", flag) ("off", flag) ("count", loop) ("zero", loop) ("drop", key) ("put", key) ("grow", "")
Cond = tuple[str, ...]  # ("true",) ("flag", f) ("noflag", f) ("log", modulus, rest) ("below", loop, n) ("has", key) ("odd",)


@dataclass(kw_only=True)
class Node:
    """A statement. `number` gives *tag* (unique) and, unless it has one, *name* (unique in its scope)."""

    tag: int = 0
    name: str = ""

    @property
    def label(self) -> str:
        return f"{self.name}.{self.tag}"


@dataclass(frozen=True)
class Policy:
    """A retry policy; *delay* in minutes, doubled after each failure. *on* names the error that is retried."""

    max_attempts: int = 3
    delay: int = 60
    exhausted: Literal["pause", "raise"] = "raise"
    on: str = "Exception"


@dataclass
class Step(Node):
    """*fails*: how many attempts of a visit fail, with *error*. *on_item*: its argument is the innermost item."""

    style: Literal["plain", "then", "into"] = "plain"
    effects: tuple[Effect, ...] = ()
    fails: int = 0
    error: str = "Boom"
    policy: Policy | None = None
    undo: bool = False
    on_item: bool = False


@dataclass
class Seq(Node):
    """A named section, or (plain, with a default policy) one that is transparent to paths."""

    body: list[Node] = field(default_factory=list)
    named: bool = True
    policy: Policy | None = None


@dataclass
class WaitCase(Node):
    """*handler*: it has one (an event's own method has always). *minutes*: after entering, or after START for "at"."""

    kind: Literal["on", "after", "at", "when"] = "on"
    event: str = "e0"
    minutes: int = 0
    cond: Cond = ("true",)
    handler: bool = False
    effects: tuple[Effect, ...] = ()
    body: list[Node] = field(default_factory=list)


@dataclass
class Select(Node):
    """*short*: written as WaitEvent, WaitFor or WaitUntil; then it has one case, which is no "at" and adds no name."""

    cases: list[WaitCase] = field(default_factory=list)
    short: bool = False


@dataclass
class If(Node):
    arms: list[tuple[Cond, list[Node]]] = field(default_factory=list)
    orelse: list[Node] | None = None


@dataclass
class Switch(Node):
    cases: list[tuple[Cond, list[Node]]] = field(default_factory=list)
    default: list[Node] | None = None
    named: bool = True


@dataclass
class For(Node):
    """Runs while its counter is below *limit*; *tick*, first in the body, counts. *leaves*: by a Break instead."""

    tick: Node = field(default_factory=Step)
    limit: int = 2
    leaves: bool = False
    body: list[Node] = field(default_factory=list)


@dataclass
class Each(Node):
    over: Literal["items", "rows"] = "items"
    body: list[Node] = field(default_factory=list)
    parallel: int = 1


@dataclass
class Break(Node):
    pass


@dataclass
class Continue(Node):
    pass


@dataclass
class Return(Node):
    """*value* None: the length of the log, asked for when the walk comes by."""

    value: int | None = 0


@dataclass
class Raise(Node):
    error: str = "Boom"


@dataclass
class Handler:
    """`Except(errors, …)`: names of error classes; *noted*: with a handler that writes the error into the log."""

    errors: tuple[str, ...] = ("Boom",)
    noted: bool = True
    name: str = ""
    body: list[Node] = field(default_factory=list)


@dataclass
class Try(Node):
    body: list[Node] = field(default_factory=list)
    handlers: list[Handler] = field(default_factory=list)
    final: list[Node] | None = None
    named: bool = True
    final_name: str = "finally"


@dataclass
class Parallel(Node):
    branches: list[Node] = field(default_factory=list)


@dataclass
class Go(Node):
    """*key*: an item of the dict (the second form of Go). *dynamic*: the id is made of the length of the log."""

    body: list[Node] = field(default_factory=list)
    dynamic: bool = False
    key: str | None = None


@dataclass
class Join(Node):
    """*targets*: Go nodes, empty for every Go thread."""

    targets: list[Go] = field(default_factory=list)


@dataclass
class Program:
    body: list[Node]
    keys: tuple[str, ...] = ("a", "b", "c/1")
    rows: int = 2


# -- the state ---------------------------------------------------------------------------------------------------------


@dataclass
class Item:
    key: str
    n: int = 0


@dataclass
class State:
    """The interpreter's state: the fields that the workflow class has too."""

    log: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    flags: dict[str, bool] = field(default_factory=lambda: {"0": False, "1": False, "2": False})
    last: str = ""
    items: dict[str, Item] = field(default_factory=dict)
    rows: list[Item] = field(default_factory=list)


def note(state: Any, label: str, effects: tuple[Effect, ...], make: Callable[[str], Any]) -> None:
    """Write *label* into the log and apply *effects*; *make* makes an item of its key."""
    state.log.append(label)
    for kind, key in effects:
        if kind in ("on", "off"):
            state.flags[key] = kind == "on"
        elif kind == "count":
            state.counts[key] = state.counts.get(key, 0) + 1
        elif kind == "zero":
            state.counts[key] = 0
        elif kind == "drop":
            state.items.pop(key, None)
        elif kind == "put":
            state.items[key] = make(key)
        elif len(state.rows) < MAX_ROWS:
            state.rows.append(make(f"r{len(state.rows)}"))


def holds(state: Any, cond: Cond, item: Any = None) -> bool:
    """Whether *cond* is true of *state* (and of the innermost item)."""
    kind, *rest = cond
    if kind == "true":
        return True
    if kind in ("flag", "noflag"):
        return bool(state.flags[rest[0]]) == (kind == "flag")
    if kind == "log":
        return bool(len(state.log) % int(rest[0]) == int(rest[1]))
    if kind == "below":
        return bool(state.counts.get(rest[0], 0) < int(rest[1]))
    if kind == "has":
        return rest[0] in state.items
    return bool(item.n % 2 == 1)


class Refusal(Exception):
    """A handler refuses its event."""


EVENTS = ("e0", "e1", "e2", "later", "ping", "x0")  # "poke" is an event of items


def handle(state: Any, event: str, value: Any, item: Any) -> Any:
    """What the handler of *event* does to *state*, and its answer. "ping" and "x0" have no method of their own."""
    if event == "poke":
        item.n += 1
        return item.n
    if event == "e2" and state.flags["0"]:
        raise Refusal
    if event == "e1":
        state.flags[str(value)] = not state.flags[str(value)]
    state.log.append(event if event != "e1" else f"e1:{value}")
    return len(state.log)


# -- looking -----------------------------------------------------------------------------------------------------------


def children(node: Node) -> list[list[Node]]:
    """The bodies inside *node*, in order."""
    if isinstance(node, Seq | Each | Go):
        return [node.body]
    if isinstance(node, Select):
        return [case.body for case in node.cases]
    if isinstance(node, If):
        return [body for _, body in node.arms] + [node.orelse or []]
    if isinstance(node, Switch):
        return [body for _, body in node.cases] + [node.default or []]
    if isinstance(node, For):
        return [[node.tick, *node.body]]
    if isinstance(node, Parallel):
        return [node.branches]
    if isinstance(node, Try):
        return [node.body, *(handler.body for handler in node.handlers), node.final or []]
    return []


def every(body: list[Node]) -> Iterator[Node]:
    """All nodes of *body* and inside it, outer ones first."""
    for node in body:
        yield node
        for inner in children(node):
            yield from every(inner)


def events_of(program: Program) -> set[str]:
    """Names of the events that the tree knows."""
    return {case.event for node in every(program.body) if isinstance(node, Select) for case in node.cases if case.kind == "on"}
