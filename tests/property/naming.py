"""Tags and names of the statements of an abstract program."""

from tests.property.programs import (
    Break,
    Continue,
    Each,
    Effect,
    For,
    Go,
    If,
    Join,
    Node,
    Parallel,
    Program,
    Raise,
    Return,
    Select,
    Seq,
    Step,
    Switch,
    Try,
)


class Scope:
    """Names given so far among the statements that share a prefix."""

    def __init__(self) -> None:
        self.count = 0
        self.kinds: dict[str, int] = {}

    def next(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def kind(self, kind: str) -> str:
        """The name of what has none: its kind, a second one with its number."""
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        return kind if self.kinds[kind] == 1 else f"{kind} {self.kinds[kind]}"

    def first(self, kind: str) -> bool:
        """Whether *kind* comes for the first time; it takes the bare name then."""
        return self.kind(f"bare {kind}") == f"bare {kind}"


STEMS = {
    Step: "s",
    Seq: "q",
    If: "if",
    Switch: "sw",
    For: "for",
    Each: "each",
    Try: "t",
    Parallel: "p",
    Go: "g",
    Select: "w",
}


class Numbering:
    """Gives every node its tag and its name; a second transparent Try or Switch in one scope becomes a named one."""

    def __init__(self) -> None:
        self.tag = 0
        self.loops: list[list[str]] = []

    def body(self, body: list[Node], scope: Scope) -> None:
        for node in body:
            self.node(node, scope)

    def node(self, node: Node, scope: Scope, *, branch: bool = False) -> None:
        self.tag += 1
        node.tag = self.tag
        if isinstance(node, Break | Continue | Return | Raise | Join):
            node.name = scope.kind(type(node).__name__.lower())
            return
        node.name = node.name or scope.next(STEMS[type(node)])
        if isinstance(node, Select) and node.short and node.cases[0].kind == "on":
            event = node.cases[0].event
            node.short = scope.first(event)
            node.name = event if node.short else node.name
        if isinstance(node, Seq | Try | Switch):
            if branch or (not isinstance(node, Seq) and not node.named and not scope.first(type(node).__name__)):
                node.named = True
            inner = Scope() if node.named else scope
        else:
            inner = Scope()
        if isinstance(node, Try) and node.final is not None:
            inner.first("Try")  # one without a name directly inside would have a second `finally` in one scope
        if isinstance(node, Go):
            node.name = f"go{self.tag}" if node.name.startswith("g") else node.name
        self.inside(node, inner)

    def inside(self, node: Node, inner: Scope) -> None:
        if isinstance(node, Select):
            for case in node.cases:
                self.tag += 1
                case.tag = self.tag
                case.name = case.name or (case.event if case.kind == "on" else inner.kind(case.kind))
                self.body(case.body, Scope())
        elif isinstance(node, If):
            for n, (_, body) in enumerate(node.arms):
                self.body(body, inner if n == 0 else Scope())
            self.body(node.orelse or [], Scope())
        elif isinstance(node, Switch):
            for _, body in node.cases:
                self.body(body, Scope())
            self.body(node.default or [], Scope())
        elif isinstance(node, For):
            self.loop(node, inner)
        elif isinstance(node, Parallel):
            for branch in node.branches:
                self.node(branch, inner, branch=True)
        elif isinstance(node, Try):
            self.body(node.body, inner)
            for handler in node.handlers:
                handler.name = inner.kind(f"except {'|'.join(handler.errors)}")
                self.body(handler.body, Scope())
            node.final_name = inner.kind("finally") if node.final is not None else ""
            self.body(node.final or [], Scope())
        elif isinstance(node, Seq | Each | Go):
            self.body(node.body, inner)

    def loop(self, node: For, inner: Scope) -> None:
        """The tick counts this loop and sets the counters of the loops inside it to zero, so that they run again."""
        self.loops.append([])
        self.node(node.tick, inner)
        self.body(node.body, inner)
        nested = self.loops.pop()
        effects: tuple[Effect, ...] = (("count", str(node.tag)), *(("zero", tag) for tag in nested))
        if isinstance(node.tick, Step):
            node.tick.effects = effects
        elif isinstance(node.tick, Select):
            node.tick.cases[0].effects = effects
        for outer in self.loops[-1:]:
            outer += [str(node.tag), *nested]


def number(program: Program) -> Program:
    """Give tags and names to all nodes of *program*, in place."""
    Numbering().body(program.body, Scope())
    return program
