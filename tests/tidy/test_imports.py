"""`asyncflow` decides and imports nothing that does; inside `runner`, drivers and HTTP keep apart; no cycles."""

import pytest

from tests.tidy.imports import cycle_in
from tests.tidy.layers import crossings
from tests.tidy.purity import impurities
from tests.tidy.sources import Source, read_sources


def sources_of(package: str) -> list[Source]:
    found = read_sources(package)
    assert found, f"{package}/ has no Python file: the rule would hold of nothing"
    return found


def test_asyncflow_is_pure() -> None:
    assert [fault for source in sources_of("asyncflow") for fault in impurities(source)] == []


def test_runner_keeps_its_layers() -> None:
    assert [fault for source in sources_of("runner") for fault in crossings(source)] == []


@pytest.mark.parametrize("package", ["asyncflow", "runner"])
def test_no_import_cycle(package: str) -> None:
    cycle = cycle_in(sources_of(package))
    assert cycle is None, " imports ".join(cycle or [])


# -- the checks themselves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "import time",
        "from time import monotonic",
        "import os.path",
        "from os import environ",
        "import threading",
        "import asyncio",
        "from concurrent.futures import Future",
        "import socket",
        "import sqlite3",
        "import apsw",
        "import flask",
        "import runner",
        "from runner.stores import base",
        "from pathlib import Path",
        "from urllib.request import urlopen",
        "import logging.handlers",
        "from logging import handlers",
        "import secrets",
        "import random",
        "from random import random",
        "from random import SystemRandom",
        "import uuid",
        "from uuid import uuid4",
        "from uuid import uuid1 as make",
        "def f():\n    import time",
        "if TYPE_CHECKING:\n    import asyncio",
        "datetime.now(UTC)",
        "datetime.datetime.utcnow()",
        "date.today()",
        "clock.now()",
        "field(default_factory=datetime.now)",
        "Random()",
        "print('x')",
        "open('x')",
        "__import__('time')",
    ],
)
def test_impurity_is_seen(line: str) -> None:
    assert len(list(impurities(Source("asyncflow/engine.py", line)))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "from __future__ import annotations",
        "import collections.abc",
        "from datetime import UTC, datetime, timedelta",
        "from random import Random\nRandom(f'{uid}/{visit}')",
        "from urllib.parse import quote",
        "from urllib import parse",
        "from uuid import UUID, uuid5",
        "import pydantic_core",
        "from pydantic import BaseModel",
        "from jsonschema.validators import Draft202012Validator",
        "from asyncflow import errors",
        "from asyncflow.errors import Rejected",
        "from . import errors",
        "def f(now): return now + context.now",
    ],
)
def test_purity_is_left_alone(line: str) -> None:
    assert list(impurities(Source("asyncflow/engine.py", line))) == []


def test_one_more_import_is_allowed_in_one_file_only() -> None:
    assert list(impurities(Source("asyncflow/simulation.py", "import asyncio"))) == []
    assert list(impurities(Source("asyncflow/pytest_plugin.py", "import pytest"))) == []
    assert list(impurities(Source("asyncflow/simulation.py", "import time"))) != []
    assert list(impurities(Source("asyncflow/workflow.py", "import pytest"))) != []


@pytest.mark.parametrize(
    "path, line",
    [
        ("runner/stores/sqlite.py", "from runner.stores.memory import MemoryStore"),
        ("runner/stores/sqlite_writer.py", "from runner.stores import postgres"),
        ("runner/stores/memory.py", "def f():\n    import runner.schedulers.local"),
        ("runner/schedulers/local.py", "from runner.schedulers.cloud_tasks import CloudTasks"),
        ("runner/schedulers/local.py", "from . import cloud_tasks"),
        ("runner/http/app.py", "from runner.stores.sqlite import SqliteStore"),
        ("runner/http/__init__.py", "from runner.stores import memory"),
        ("runner/stores/sqlite.py", "import psycopg"),
        ("runner/stores/firestore.py", "from psycopg_pool import ConnectionPool"),
        ("runner/stores/postgres.py", "from google.cloud import firestore"),
        ("runner/work/worker.py", "def f():\n    import google.api_core"),
    ],
)
def test_crossing_is_seen(path: str, line: str) -> None:
    assert len(list(crossings(Source(path, line)))) == 1


@pytest.mark.parametrize(
    "path, line",
    [
        ("runner/stores/sqlite.py", "from runner.stores.base import Store"),
        ("runner/stores/sqlite.py", "from runner.stores.sqlite_writer import Writer"),
        ("runner/stores/__init__.py", "def open_store(url):\n    from runner.stores.sqlite import SqliteStore"),
        ("runner/http/app.py", "from runner.stores.base import Store"),
        ("runner/stores/postgres.py", "import psycopg\nimport psycopg_pool"),
        ("runner/stores/firestore.py", "from google.cloud import firestore"),
        ("runner/schedulers/cloud_tasks.py", "from google.cloud import tasks_v2"),
    ],
)
def test_what_crosses_no_line_is_left_alone(path: str, line: str) -> None:
    assert list(crossings(Source(path, line))) == []


def test_cycles_are_seen() -> None:
    tree = Source("asyncflow/tree.py", "from asyncflow import workflow")
    assert cycle_in([tree, Source("asyncflow/workflow.py", "")]) is None
    for back in ("import asyncflow.tree", "from .tree import link", "def f():\n    from asyncflow.tree import link"):
        cycle = cycle_in([tree, Source("asyncflow/workflow.py", back)])
        assert cycle is not None
        assert set(cycle) == {"asyncflow.tree", "asyncflow.workflow"}
    for_types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from asyncflow.tree import Tree"
    assert cycle_in([tree, Source("asyncflow/workflow.py", for_types)]) is None


def test_a_package_that_a_part_of_it_imports_is_a_cycle() -> None:
    package = Source("asyncflow/__init__.py", "from asyncflow.engine import advance")
    assert cycle_in([package, Source("asyncflow/engine.py", "from asyncflow import advance")]) is not None
