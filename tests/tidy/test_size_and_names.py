"""Functions that can be read in one go, files with one job, and no drawer for what has no place."""

import ast
import re
from collections.abc import Callable, Iterator

import pytest

from tests.tidy.sources import SOURCE_FOLDERS, Source, read_sources

FUNCTION_LINES_MAX = 70  # one screen; h11's longest has 64, and TigerBeetle holds the same bound
SOURCE_LINES_MAX = 600  # beyond it a file has two jobs; h11's longest is 659
TEST_LINES_MAX = 800  # rows of a table are easier read on than apart
DRAWERS = frozenset(("common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"))

ALL = read_sources(*SOURCE_FOLDERS, "tests")


def long_functions(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines >= FUNCTION_LINES_MAX:
                allowed = FUNCTION_LINES_MAX - 1
                yield f"{source.path}:{node.lineno}: {node.name} has {lines} lines, allowed are {allowed}"


def long_file(source: Source) -> Iterator[str]:
    most = TEST_LINES_MAX if source.path.startswith("tests/") else SOURCE_LINES_MAX
    lines = len(source.text.splitlines())
    if lines >= most:
        yield f"{source.path}: {lines} lines, allowed are {most - 1}"


def drawer(source: Source) -> Iterator[str]:
    for part in source.module.split("."):
        if DRAWERS & set(re.split(r"_+|\d+", part)):
            yield f"{source.path}: {part!r} says nothing about what is in it"


@pytest.mark.parametrize("check", [long_functions, long_file, drawer])
def test_all_files(check: Callable[[Source], Iterator[str]]) -> None:
    assert ALL
    assert [fault for source in ALL for fault in check(source)] == []


# -- the checks themselves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["def f():", "async def f():", "class C:\n  def f(self):"])
def test_a_long_function_is_seen(head: str) -> None:
    statements = "\n    pass" * (FUNCTION_LINES_MAX - 1)
    assert len(list(long_functions(Source("asyncflow/x.py", head + statements)))) == 1
    assert list(long_functions(Source("asyncflow/x.py", head + statements.removesuffix("\n    pass")))) == []


@pytest.mark.parametrize("folder, most", [("runner", SOURCE_LINES_MAX), ("tests/unit", TEST_LINES_MAX)])
def test_a_long_file_is_seen(folder: str, most: int) -> None:
    assert len(list(long_file(Source(f"{folder}/x.py", "pass\n" * most)))) == 1
    assert list(long_file(Source(f"{folder}/x.py", "pass\n" * (most - 1)))) == []


@pytest.mark.parametrize("path", ["runner/utils.py", "runner/common/__init__.py", "tests/unit/store_helper.py"])
def test_a_drawer_is_seen(path: str) -> None:
    assert len(list(drawer(Source(path, "")))) == 1


@pytest.mark.parametrize("path", ["runner/utilisation.py", "asyncflow/__init__.py"])
def test_a_name_that_only_looks_like_a_drawer_is_left_alone(path: str) -> None:
    assert list(drawer(Source(path, ""))) == []
