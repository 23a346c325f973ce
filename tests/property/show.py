"""Programs as short text, for reading a counterexample."""

from collections.abc import Iterator

from tests.property.programs import (
    Each,
    For,
    Go,
    If,
    Join,
    Node,
    Program,
    Raise,
    Return,
    Select,
    Step,
    Switch,
    Try,
    children,
)


def detail(node: Node) -> str:
    """What a statement is besides its kind and name."""
    if isinstance(node, Step):
        fails = f" fails {node.fails} {node.error} {node.policy or ''}" if node.fails else ""
        return f"{node.style}{' undo' * node.undo}{' item' * node.on_item}{fails} {list(node.effects) or ''}"
    if isinstance(node, Select):
        cases = [
            f"{c.name}"
            + (f" {c.minutes}m" if c.kind in ("after", "at") else "")
            + (f" {c.cond}" if c.kind == "when" else "")
            + (f" h{list(c.effects)}" if c.handler else "")
            for c in node.cases
        ]
        return f"{'short ' * node.short}{cases}"
    if isinstance(node, If):
        return f"{[cond for cond, _ in node.arms]}"
    if isinstance(node, Switch):
        return f"{[cond for cond, _ in node.cases]} named={node.named}"
    if isinstance(node, For):
        return f"< {node.limit}{' leaves' * node.leaves}"
    if isinstance(node, Each):
        return f"{node.over} parallel={node.parallel}"
    if isinstance(node, Try):
        return f"{[(h.errors, h.noted) for h in node.handlers]} named={node.named}"
    if isinstance(node, Go):
        return f"dynamic={node.dynamic} key={node.key}"
    if isinstance(node, Join):
        return f"{[go.name for go in node.targets]}"
    if isinstance(node, Raise):
        return node.error
    return str(node.value) if isinstance(node, Return) else ""


def lines(body: list[Node], indent: str = "  ") -> Iterator[str]:
    for node in body:
        yield f"{indent}{type(node).__name__} {node.label} {detail(node)}".rstrip()
        inside = children(node)
        for n, inner in enumerate(inside):
            if len(inside) > 1:
                yield f"{indent} /{n}"
            yield from lines(inner, indent + "  ")


def show(program: Program) -> str:
    return "\n".join([f"keys {program.keys}, rows {program.rows}", *lines(program.body)])
