"""What a file imports, and which imports make a cycle."""

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from tests.tidy.sources import Source


@dataclass(frozen=True)
class Import:
    """`from module import name`, or `import module` with an empty name."""

    module: str
    name: str
    line: int
    for_types: bool

    @property
    def top(self) -> str:
        """The distribution's package or the part of the standard library that this comes from."""
        return self.module.partition(".")[0]

    def target(self, known: Collection[str]) -> str:
        """Return the module that this import loads: *name* may be a module of its own if it is *known* as one."""
        inner = f"{self.module}.{self.name}"
        return inner if inner in known else self.module


def imports_of(source: Source) -> Iterator[Import]:
    """Give every import of *source*, also those inside functions."""
    yield from _imports_below(source.tree, source, for_types=False)


def _imports_below(node: ast.AST, source: Source, *, for_types: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, "", node.lineno, for_types)
    elif isinstance(node, ast.ImportFrom):
        module = _absolute(node, source)
        for alias in node.names:
            yield Import(module, alias.name, node.lineno, for_types)
    elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for statement in node.body:
            yield from _imports_below(statement, source, for_types=True)
        for statement in node.orelse:
            yield from _imports_below(statement, source, for_types=for_types)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _imports_below(child, source, for_types=for_types)


def _absolute(node: ast.ImportFrom, source: Source) -> str:
    if node.level == 0:
        return node.module or ""
    parts = source.module.split(".")
    up = node.level - source.path.endswith("/__init__.py")
    return ".".join(parts[: len(parts) - up] + ([node.module] if node.module else []))


def cycle_in(sources: Collection[Source]) -> list[str] | None:
    """Return the modules of an import cycle among *sources*, or None; what only type checkers import does not count."""
    known = {source.module for source in sources}
    graph: Mapping[str, set[str]] = {source.module: set() for source in sources}
    for source in sources:
        for imported in imports_of(source):
            target = imported.target(known)
            if target in known and not imported.for_types:
                graph[source.module].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle[::-1]
    return None
