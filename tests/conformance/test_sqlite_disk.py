"""SQLite on disks that fill up, fail and lose power: nothing acknowledged is lost, and what failed is said."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from asyncflow.errors import Unavailable
from runner.stores import sqlite_file
from runner.stores.base import Conflict, Failed, Outcome, Record, Revision, Saved, Store, Write
from runner.stores.sqlite import SqliteStore
from tests.conformance.disks import FaultyDisk
from tests.conformance.records import (
    HOUR,
    NOW,
    ORDER,
    create,
    entries,
    listed,
    numbers,
    read,
    record,
    revision,
    save,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def disk(tmp_path: Path) -> FaultyDisk:
    return FaultyDisk(f"faulty {tmp_path}", tmp_path / "flushed")


def opened_after_power_loss(disk: FaultyDisk, tmp_path: Path) -> Store:
    """Open a store on what had been flushed."""
    assert disk.flushed is not None
    left = tmp_path / "left"
    shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(disk.flushed, left)
    return SqliteStore(left / "store.db")


# -- flushing ----------------------------------------------------------------------------------------------------------


def test_the_answer_comes_after_one_flush_for_the_whole_batch(path: Path, disk: FaultyDisk) -> None:
    store = SqliteStore(path, vfs=disk.name)
    disk.calls.clear()
    outcomes = store.commit([Write(record(f"o-{number}"), None, entries(1)) for number in range(50)])
    assert all(isinstance(outcome, Saved) for outcome in outcomes)
    assert disk.calls[-1] == "flush store.db-wal"
    assert [call for call in disk.calls if call.startswith("flush")] == ["flush store.db-wal"]
    store.close()


def test_handing_out_due_work_flushes_nothing_and_the_next_save_does_again(path: Path, disk: FaultyDisk) -> None:
    store = SqliteStore(path, vfs=disk.name)
    at = create(store, record(due_at=NOW))
    for _ in range(3):
        disk.calls.clear()
        assert store.due([ORDER], now=NOW, limit=1, process="host-1")
        assert disk.calls
        assert set(disk.calls) == {"write store.db-wal"}
        at = save(store, record(due_at=NOW), at)
        assert disk.calls[-1] == "flush store.db-wal"
    store.close()


def lose_power_at_every_commit(path: Path, disk: FaultyDisk, tmp_path: Path) -> None:
    store = SqliteStore(path, vfs=disk.name)
    at: Revision | None = None
    for number in range(1, 12):
        (outcome,) = store.commit([Write(record(rev=number), at, entries(number))])
        assert isinstance(outcome, Saved)
        at = outcome.revision
        after = opened_after_power_loss(disk, tmp_path)
        assert read(after).rev == number
        assert numbers(after) == list(range(1, number + 1))
        after.close()
    store.close()


def test_a_loss_of_power_takes_nothing_acknowledged(path: Path, disk: FaultyDisk, tmp_path: Path) -> None:
    lose_power_at_every_commit(path, disk, tmp_path)


@pytest.mark.xfail(strict=True, raises=(AssertionError, Unavailable))
def test_a_loss_of_power_is_noticed_without_flushes(
    path: Path, disk: FaultyDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = sqlite_file._flush_commits
    monkeypatch.setattr(sqlite_file, "_flush_commits", lambda connection, _: flush(connection, False))
    lose_power_at_every_commit(path, disk, tmp_path)


# -- failing -----------------------------------------------------------------------------------------------------------


class Ledger:
    """What a run was told: of each instance the last acknowledged record, and those whose save is in doubt."""

    def __init__(self) -> None:
        self.sure: dict[str, Record] = {}
        self.doubtful: dict[str, list[Record]] = {}

    def commit(self, store: Store, writes: Sequence[Write]) -> list[Outcome]:
        outcomes = store.commit(writes)
        for write, outcome in zip(writes, outcomes, strict=True):
            id_ = write.record.id
            if isinstance(outcome, Saved):
                self.sure[id_], self.doubtful[id_] = write.record, []
            elif isinstance(outcome, Failed) and outcome.in_doubt:
                self.doubtful.setdefault(id_, []).append(write.record)
        return outcomes

    def check(self, store: Store) -> None:
        """Compare with what is there after all."""
        for id_ in self.sure.keys() | self.doubtful.keys():
            stored = store.get(ORDER, id_)
            possible: list[Record | None] = [self.sure.get(id_), *self.doubtful.get(id_, [])]
            found = None if stored is None else stored.record
            assert found in possible, f"{id_}: {found}"
            assert len(numbers(store, id_)) == (0 if found is None else found.rev)


def run_once(path: Path, disk: FaultyDisk, ledger: Ledger) -> None:
    """Do a bit of everything, going on after each failure as a worker does: load, and decide again."""
    store = None
    with suppress(Unavailable):
        store = SqliteStore(path, vfs=disk.name)
    if store is None:
        return
    for rev in (1, 2, 3):
        writes = []
        for id_ in ("o-1", "o-2", "o-3"):
            with suppress(Unavailable):
                stored = store.get(ORDER, id_)
                next_rev = 1 if stored is None else stored.record.rev + 1
                changed = record(id_, rev=next_rev, due_at=NOW, labels={"rev": rev}, document=b"d" * 3_000)
                writes.append(Write(changed, None if stored is None else stored.revision, entries(next_rev)))
        assert Conflict() not in ledger.commit(store, writes)
        with suppress(Unavailable):
            store.due([ORDER], now=NOW, limit=2, process="host-1")
    disk.heal()
    store.close()


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 1_000_000], ids=["once", "for ever"])
@pytest.mark.parametrize("error", [apsw.IOError, apsw.FullError], ids=["failing", "full"])
def test_a_failure_of_any_call_loses_nothing(error: type[apsw.Error], times: int, tmp_path: Path) -> None:
    failures = 0
    for call in range(1, 1_000):
        folder = tmp_path / str(call)
        folder.mkdir()
        disk = FaultyDisk(f"faulty {folder}", really=False)
        disk.fail(error, call, times)
        ledger = Ledger()
        run_once(folder / "store.db", disk, ledger)
        if len(disk.calls) < call:
            break
        failures += 1
        disk.heal()
        after = SqliteStore(folder / "store.db", vfs=disk.name)
        ledger.check(after)
        current = after.get(ORDER, "o-1")
        changed = record(rev=1 if current is None else current.record.rev + 1)
        after_fault = ledger.commit(after, [Write(changed, None if current is None else current.revision, entries(99))])
        assert isinstance(after_fault[0], Saved)
        after.close()
        shutil.rmtree(folder)
    assert failures > 50


def test_a_full_disk_refuses_saves_and_goes_on_when_there_is_room(path: Path, disk: FaultyDisk) -> None:
    store = SqliteStore(path, vfs=disk.name)
    at = create(store, record(due_at=NOW), entries(1))
    disk.fail(apsw.FullError)
    outcomes = store.commit([Write(record(rev=2), at, entries(2)), Write(record("o-2"), None)])
    for outcome in outcomes:
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, Unavailable)
        assert "the disk is full" in outcome.error.message
    with pytest.raises(Unavailable, match="the disk is full"):
        store.due([ORDER], now=NOW, limit=1)
    assert read(store) == record(due_at=NOW)
    disk.heal()
    save(store, record(rev=2), at, entries(2))
    assert numbers(store) == [1, 2]
    assert listed(store) == ["o-1"]
    store.close()


def test_a_failed_flush_leaves_the_save_in_doubt(path: Path, disk: FaultyDisk) -> None:
    store = SqliteStore(path, vfs=disk.name)
    at = create(store, record())
    disk.calls.clear()
    save(store, record(rev=2), at)
    until_flush = len(disk.calls)
    assert disk.calls[-1].startswith("flush")
    at = revision(store)
    disk.fail(apsw.IOError, until_flush, times=1)
    (outcome,) = store.commit([Write(record(rev=3), at)])
    assert disk.failed
    assert isinstance(outcome, Failed)
    assert outcome.in_doubt
    assert "the disk failed" in outcome.error.message
    disk.heal()
    stored = store.get(ORDER, "o-1")
    assert stored is not None
    assert stored.record.rev in (2, 3)
    save(store, replace(stored.record, rev=4), stored.revision)
    store.close()


def test_a_file_found_corrupt_is_written_no_more(path: Path, disk: FaultyDisk) -> None:
    store = SqliteStore(path, vfs=disk.name)
    at = create(store, record())
    disk.fail(apsw.CorruptError, times=1)
    for _ in range(2):
        (outcome,) = store.commit([Write(record(rev=2), at)])
        assert isinstance(outcome, Failed)
        assert "corrupt and was left as it is" in outcome.error.message
        disk.heal()
    calls = len(disk.calls)
    with pytest.raises(Unavailable, match="corrupt"):
        store.delete(ORDER, "o-1", at)
    assert len(disk.calls) == calls
    assert read(store) == record()
    store.close()


def test_a_read_only_disk_is_refused_at_once(path: Path, disk: FaultyDisk) -> None:
    SqliteStore(path).close()
    disk.read_only = True
    with pytest.raises(Unavailable, match="read-only: let this user write"):
        SqliteStore(path, vfs=disk.name)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]).returncode != 0:
        pytest.skip("only root may make a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_small_disk_that_is_really_full(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 400_000)
    store = SqliteStore(small_disk / "store.db")
    kept: list[str] = []
    full = None
    while full is None and len(kept) < 100:
        name = f"o-{len(kept):03}"
        (outcome,) = store.commit([Write(record(name, document=b"d" * 20_000), None, entries(1))])
        if isinstance(outcome, Saved):
            kept.append(name)
        else:
            full = outcome
    assert isinstance(full, Failed)
    assert "the disk is full" in full.error.message
    assert len(kept) > 5
    assert listed(store) == sorted(kept, reverse=True)
    store.close()
    again = SqliteStore(small_disk / "store.db")
    assert listed(again) == sorted(kept, reverse=True)
    ballast.unlink()
    create(again, record("o-last", created_at=NOW + HOUR, document=b"d" * 20_000))
    assert listed(again) == ["o-last", *sorted(kept, reverse=True)]
    again.close()
