"""The audit sees what it is there to see: each fault is made by hand in what a short siege has left."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from tests.crash.audit import audit
from tests.crash.siege import besiege

Fault = Callable[[Path], None]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    figures = besiege(folder, seed=0, kills=2)
    assert figures.account.faults == []
    return folder


def in_database(sql: str) -> Fault:
    def fault(folder: Path) -> None:
        connection = apsw.Connection(str(folder / "store.db"))
        connection.execute(sql)
        assert connection.changes() > 0
        connection.close()

    return fault


ORDER = "workflow = 'Order' AND id = 'i0'"


def in_state(old: str, new: str) -> Fault:
    replaced = f"replace(CAST(state AS TEXT), '{old}', '{new}')"
    return in_database(f"UPDATE instances SET state = CAST({replaced} AS BLOB) WHERE {ORDER}")


def in_ledger(change: Callable[[dict[str, object]], dict[str, object] | None], what: str, name: str = "") -> Fault:
    """Add, after the first line of that kind, what *change* makes of it."""

    def fault(folder: Path) -> None:
        lines = [json.loads(text) for text in (folder / "ledger").read_text().splitlines() if text]
        place = next(n for n, line in enumerate(lines) if line["what"] == what and (not name or line["name"] == name))
        added = change(dict(lines[place]))
        if added is not None:
            lines.insert(place + 1, added)
        else:
            del lines[place]
        (folder / "ledger").write_text("".join(json.dumps(line) + "\n" for line in lines))

    return fault


FAULTS: dict[str, tuple[Fault, str]] = {
    "a lost start": (in_database(f"DELETE FROM instances WHERE {ORDER}"), "its start was acknowledged, and it is gone"),
    "a lost event": (
        in_state('"submit":1', '"x":1'),
        "'submit' never happened",
    ),
    "a step twice": (
        in_state('"notify":1', '"notify":2'),
        "'notify' happened 2 times",
    ),
    "no end": (in_database(f"UPDATE instances SET status = 'Running' WHERE {ORDER}"), "not come to its end"),
    "a lost history": (in_database("DELETE FROM history WHERE rowid = 1"), "its history"),
    "a second key": (
        in_ledger(lambda line: {**line, "key": "another", "attempt": 99}, "run"),
        "its attempts ran under 2 idempotency keys",
    ),
    "a key used again": (
        in_ledger(lambda line: {**line, "name": "something else"}, "run"),
        "was used again",
    ),
    "an attempt twice": (in_ledger(lambda line: line, "run"), "attempts began in the order [1, 1"),
    "a charge twice": (in_ledger(lambda line: {**line, "attempt": 2}, "run", "charge"), "it ran 2 times"),
    "a wrong answer": (in_ledger(lambda line: {**line, "value": "nonsense"}, "told"), "was answered with 'nonsense'"),
    "a stranger": (in_ledger(lambda line: None, "wants"), "nobody wanted it"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_seen(name: str, sound: Path, tmp_path: Path) -> None:
    fault, said = FAULTS[name]
    folder = tmp_path / "copy"
    shutil.copytree(sound, folder)
    fault(folder)
    faults = audit(folder).faults
    assert any(said in found for found in faults), faults
