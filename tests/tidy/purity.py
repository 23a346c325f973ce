"""The line around `asyncflow`: it decides, so it may compute, and nothing else."""

import ast
from collections.abc import Iterator

from tests.tidy.imports import imports_of
from tests.tidy.sources import Source

# The standard library as far as it only computes. What is missing here reads a clock, a file, a socket or the system's
# randomness, or runs something beside us. `sys`, `logging` and `linecache` are on the edge: the engine reads versions
# and source lines with them, and hands the caller's logger on.
# fmt: off
PURE_STDLIB = frozenset((
    "__future__", "abc", "ast", "base64", "binascii", "bisect", "builtins", "collections", "contextlib", "contextvars",
    "copy", "dataclasses", "datetime", "decimal", "difflib", "enum", "fractions", "functools", "graphlib", "hashlib",
    "heapq", "hmac", "html", "inspect", "itertools", "json", "keyword", "linecache", "logging", "math", "numbers",
    "operator", "pprint", "random", "re", "reprlib", "statistics", "string", "struct", "sys", "textwrap", "traceback",
    "types", "typing", "unicodedata", "uuid", "warnings", "weakref", "zlib",
))
# fmt: on
THIRD_PARTY = frozenset(("jsonschema", "pydantic", "pydantic_core", "referencing", "typing_extensions"))
PURE_SUBMODULES = frozenset(("collections.abc", "urllib.parse"))
IMPURE_SUBMODULES = frozenset(("logging.config", "logging.handlers"))

# Modules with one more import than the rest, each with its reason.
ALSO_ALLOWED = {
    "asyncflow.simulation": "asyncio",  # the test kit runs async actions itself
    "asyncflow.pytest_plugin": "pytest",  # gives pytest the fixture
}

# From these, only what does not reach for the system's randomness.
ALLOWED_NAMES = {
    "random": frozenset(("Random",)),
    "uuid": frozenset(("UUID", "NAMESPACE_DNS", "NAMESPACE_OID", "NAMESPACE_URL", "uuid3", "uuid5")),
}
CLOCK_METHODS = frozenset(("now", "today", "utcnow"))
IMPURE_BUILTINS = frozenset(("__import__", "breakpoint", "input", "open", "print"))


def impurities(source: Source) -> Iterator[str]:
    """Give each fault of *source*, as `path:line: what is wrong`."""
    faults = {*_impure_imports(source), *_impure_expressions(source)}
    for line, fault in sorted(faults):
        yield f"{source.path}:{line}: {fault}"


def _impure_imports(source: Source) -> Iterator[tuple[int, str]]:
    for found in imports_of(source):
        named = f"{found.module}.{found.name}" if found.name else found.module
        allowed = ALLOWED_NAMES.get(found.top)
        if found.top in ("asyncflow", ALSO_ALLOWED.get(source.module)) or found.top in THIRD_PARTY:
            continue
        if found.module in PURE_SUBMODULES or named in PURE_SUBMODULES:
            continue
        if found.top not in PURE_STDLIB or found.module in IMPURE_SUBMODULES or named in IMPURE_SUBMODULES:
            yield found.line, f"asyncflow may not import {named}"
        elif allowed is not None and found.name not in allowed:
            yield found.line, f"asyncflow may import only {', '.join(sorted(allowed))} from {found.top}, not {named}"


def _impure_expressions(source: Source) -> Iterator[tuple[int, str]]:
    for node in ast.walk(source.tree):
        match node:
            case ast.Call(func=ast.Attribute() as called) if called.attr in CLOCK_METHODS:
                yield node.lineno, f"{ast.unparse(called)} reads a clock; `now` is an argument"
            case ast.Attribute(value=ast.Name(id="datetime" | "date") | ast.Attribute(attr="datetime" | "date")) if (
                node.attr in CLOCK_METHODS  # also where it is only handed on
            ):
                yield node.lineno, f"{ast.unparse(node)} reads a clock; `now` is an argument"
            case ast.Call(func=ast.Name(id="Random"), args=[], keywords=[]):
                yield node.lineno, "Random() without a seed takes one from the system"
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_BUILTINS:
                yield node.lineno, f"{name}() is I/O"
            case _:
                pass
