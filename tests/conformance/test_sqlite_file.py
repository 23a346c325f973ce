"""What may lie at a store's path, and what happens when several processes come to it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Thread

import apsw
import pytest

from asyncflow.errors import AlreadyExists, Malformed, Unavailable
from runner.stores import open_store, sqlite_file
from runner.stores.base import Failed, Saved, Write
from runner.stores.filters import parse_filter
from runner.stores.memory import MemoryStore
from runner.stores.sqlite import SqliteStore
from runner.stores.sqlite_checks import refuse_network, refuse_unsound_library
from runner.stores.sqlite_schema import MIGRATIONS, ColumnValue, migrate
from runner.stores.sqlite_search import page_query
from tests.conformance.records import (
    NOW,
    ORDER,
    TRIP,
    create,
    entries,
    failed,
    listed,
    numbers,
    read,
    record,
    revision,
    save,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(path, busy_seconds=0.1)
    yield opened
    opened.close()


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    """Start another process that runs *program* with these arguments; `say(text)` there is a line here."""
    prologue = (
        "import os, signal, sys, time\n"
        "from runner.stores.sqlite import SqliteStore\n"
        "from tests.conformance.records import *\n"
        "def say(text):\n    print(text, flush=True)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", prologue + program, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    if process.stdin is not None:
        process.stdin.close()
    if process.stdout is not None:
        process.stdout.close()
    process.wait()


# -- what lies there ---------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    path.write_bytes(b"a letter to my aunt\n" * 500)
    with pytest.raises(Unavailable, match="no SQLite database, and was left as it is"):
        SqliteStore(path)
    assert path.read_bytes() == b"a letter to my aunt\n" * 500


def test_the_database_of_another_program_is_left_alone(path: Path) -> None:
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE letters (text)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(Unavailable, match="the database of another program"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_corrupt_file_is_refused_and_left_as_it_is(path: Path) -> None:
    store = SqliteStore(path)
    store.commit([Write(record(f"o-{number}", document=b"d" * 500), None, entries(1)) for number in range(200)])
    store.close()
    content = bytearray(path.read_bytes())
    for page in range(4, len(content) // 4_096):
        content[page * 4_096 : page * 4_096 + 100] = b"\xee" * 100
    path.write_bytes(content)
    with pytest.raises(Unavailable, match="corrupt and was left as it is"):
        SqliteStore(path)
    assert path.read_bytes() == bytes(content)


def test_a_large_file_is_checked_beside_the_work_and_then_written_no_more(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(path)
    at = create(store, record(document=b"d" * 100_000))
    store.close()
    monkeypatch.setattr(sqlite_file, "CHECK_AT_ONCE_BYTES", 0)
    sound = SqliteStore(path)
    checker = sound._file._checker
    assert isinstance(checker, Thread)
    checker.join()
    at = save(sound, record(document=b"d" * 100_000), at)
    sound.close()
    connection = apsw.Connection(str(path))
    # One index entry less than rows: every read still works, and only a check can tell.
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("DELETE FROM sqlite_schema WHERE name = 'history_age'")
    connection.close()
    broken = SqliteStore(path)
    checker = broken._file._checker
    assert isinstance(checker, Thread)
    checker.join()
    assert "corrupt" in failed(broken.commit([Write(record(rev=2), at)])[0]).message
    assert read(broken).rev == 1
    broken.close()


def test_a_check_under_way_does_not_hold_up_a_close(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SqliteStore(path).close()
    monkeypatch.setattr(sqlite_file, "CHECK_AT_ONCE_BYTES", 0)
    for _ in range(20):
        store = SqliteStore(path)
        store.close()
        assert store._file._checker is not None
        assert not store._file._checker.is_alive()


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does the folder exist"):
        SqliteStore(tmp_path / "nowhere" / "store.db")


def test_a_network_file_system_is_refused(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    folder = tmp_path / "my disk"
    folder.mkdir()
    point = str(folder.resolve()).replace(" ", "\\040")
    for kind, refused in (("nfs4", True), ("fuse.sshfs", True), ("cifs", True), ("ext4", False), ("tmpfs", False)):
        mounts.write_text(f"/dev/vda / ext4 rw 0 0\nhost:/x {point} {kind} rw 0 0\nproc /proc proc rw 0 0\n")
        refuse_network(tmp_path / "store.db", mounts)
        if refused:
            with pytest.raises(Unavailable, match=rf"network file system \({kind}\)"):
                refuse_network(folder / "store.db", mounts)
        else:
            refuse_network(folder / "store.db", mounts)
    mounts.write_text("host:/ / nfs rw 0 0\n/dev/vda / ext4 rw 0 0\n")
    refuse_network(folder / "store.db", mounts)
    refuse_network(folder / "store.db", tmp_path / "no such table")


@pytest.mark.parametrize("version", ["3.51.3", "3.52.0", "3.50.7", "3.44.6", "4.0.0"])
def test_a_sound_library_is_taken(version: str) -> None:
    refuse_unsound_library(version)


@pytest.mark.parametrize("version", ["3.51.2", "3.50.6", "3.44.5", "3.45.9", "3.40.1", "3.7.0"])
def test_a_library_that_may_lose_commits_is_refused(version: str) -> None:
    with pytest.raises(Unavailable, match=r"apsw 3\.51\.3"):
        refuse_unsound_library(version)


# -- forms of the file -------------------------------------------------------------------------------------------------


def test_an_older_file_becomes_a_newer_one_and_keeps_its_content(path: Path, store: SqliteStore) -> None:
    create(store, record(), entries(1))
    store.close()
    connection = apsw.Connection(str(path))
    migrate(connection, "x.db", (*MIGRATIONS, "ALTER TABLE instances ADD COLUMN more TEXT"))
    assert connection.pragma("user_version") == len(MIGRATIONS) + 1
    assert connection.execute("SELECT id, more FROM instances").fetchall() == [("o-1", None)]
    migrate(connection, "x.db", (*MIGRATIONS, "ALTER TABLE instances ADD COLUMN more TEXT"))
    connection.close()


def test_a_migration_that_fails_changes_nothing(path: Path, store: SqliteStore) -> None:
    create(store, record())
    store.close()
    connection = apsw.Connection(str(path))
    with pytest.raises(apsw.SQLError):
        migrate(connection, "x.db", (*MIGRATIONS, "CREATE TABLE more (x); CREATE TABLE instances (x)"))
    connection.close()
    again = SqliteStore(path)
    assert read(again) == record()
    again.close()


def test_a_file_of_a_newer_asyncflow_is_left_alone(path: Path, store: SqliteStore) -> None:
    store.close()
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", len(MIGRATIONS) + 6)
    connection.close()
    with pytest.raises(Unavailable, match=f"newer asyncflow .form {len(MIGRATIONS) + 6}, this one knows"):
        SqliteStore(path)


# -- queries -----------------------------------------------------------------------------------------------------------


def test_every_query_goes_through_an_index(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    create(store, record(due_at=NOW, expires_at=NOW, labels={"customer": "ann"}), entries(1))
    asked: list[str] = []
    read_rows = store._file.read

    def explain(sql: str, bindings: Sequence[ColumnValue] = ()) -> list[object]:
        asked.extend(row[3] for row in read_rows("EXPLAIN QUERY PLAN " + sql, bindings))
        return read_rows(sql, bindings)

    monkeypatch.setattr(store._file, "read", explain)
    store.get(ORDER, "o-1")
    store.next_due([ORDER, TRIP])
    store.due([ORDER], now=NOW, limit=9)
    store.unfit([ORDER])
    store.held_by("host-1")
    store.expired([ORDER], now=NOW, limit=9)
    store.history(ORDER, "o-1")
    for token in (None, "next"):
        for text in ("", "created_at > 2026-01-31T09:00:00Z", "labels.customer = ann AND state.x = 1"):
            for status in (None, "Running"):
                after = None if token is None else (1, "o-1", ORDER)
                query = page_query(ORDER, status, parse_filter(text, store.filterable, "SQLite"), after, 9)
                store._file.read(query.sql, query.bindings)
    assert [line for line in asked if "SCAN" in line or "TEMP B-TREE" in line] == []
    assert sum("instances_status (workflow=? AND status=?" in line for line in asked) >= 3
    assert sum("SEARCH" in line for line in asked) >= 19


def test_what_only_sqlite_refuses_stops_no_other_write(store: SqliteStore) -> None:
    bad = [record("bad", rev=2**63), record("bad", document="text"), record("\ud800"), record("bad", uid=None)]
    writes = [write for number, one in enumerate(bad) for write in (record(f"o-{number}"), one)]
    outcomes = store.commit([Write(one, None, entries(1)) for one in writes])
    assert [type(outcome) for outcome in outcomes] == [Saved, Failed] * len(bad)
    assert all(isinstance(failed(outcome), Malformed) for outcome in outcomes[1::2])
    assert sorted(listed(store)) == [f"o-{number}" for number in range(len(bad))]


def test_what_is_deleted_or_changed_leaves_no_row_behind(store: SqliteStore) -> None:
    holders = frozenset(("host-1", "host-2"))
    at = create(store, record(labels={"a": 1, "b": True, "c": None}, holders=holders), entries(1))
    at = save(store, record(labels={"a": 2, "b": 1}, holders=frozenset(("host-2",))), at, entries(2))
    rows = {"instances": 1, "labels": 2, "holders": 1, "history": 2}
    assert {table: store._file.read(f"SELECT count(*) FROM {table}")[0][0] for table in rows} == rows
    assert store.delete(ORDER, "o-1", at)
    assert [store._file.read(f"SELECT * FROM {table}") for table in rows] == [[]] * 4


# -- other processes ---------------------------------------------------------------------------------------------------


def test_a_lock_of_another_program_is_waited_for_and_then_said(path: Path, store: SqliteStore) -> None:
    at = create(store, record(due_at=NOW))
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    error = failed(store.commit([Write(record(rev=2), at)])[0])
    assert isinstance(error, Unavailable)
    assert "locked" in error.message
    for call in (
        lambda: store.due([ORDER], now=NOW, limit=1),
        lambda: store.delete(ORDER, "o-1", at),
        lambda: store.park(ORDER, "o-1", at, "why"),
    ):
        with pytest.raises(Unavailable, match="locked"):
            call()
    assert read(store).rev == 1
    other.execute("ROLLBACK")
    other.close()
    save(store, record(rev=2, due_at=NOW), at)
    assert store.due([ORDER], now=NOW, limit=1)


@pytest.mark.slow
def test_processes_that_make_the_same_new_file_all_succeed(path: Path) -> None:
    program = """
say("ready")
sys.stdin.readline()
store = SqliteStore(sys.argv[1])
for number in range(20):
    create(store, record(f"{sys.argv[2]}-{number}"), entries(1))
store.close()
"""
    processes = [start(program, path, name) for name in "abc"]
    try:
        assert [line_of(process) for process in processes] == ["ready"] * 3
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            process.communicate()
            assert process.returncode == 0
    finally:
        for process in processes:
            end(process)
    store = SqliteStore(path)
    assert sorted(listed(store)) == sorted(f"{name}-{number}" for name in "abc" for number in range(20))
    store.close()


@pytest.mark.slow
def test_a_killed_process_is_dead_at_once_and_its_work_is_found(path: Path, store: SqliteStore) -> None:
    program = """
store = SqliteStore(sys.argv[1])
store.enter("host-1")
create(store, record("leased", holders=frozenset(["host-1"])))
create(store, record("handed out", due_at=NOW))
store.due([ORDER], now=NOW, limit=1, process="host-1")
say("ready")
sys.stdin.readline()
"""
    process = start(program, path)
    try:
        assert line_of(process) == "ready"
        assert store.dead({"host-1", "host-2"}) == {"host-2"}
        with pytest.raises(AlreadyExists):
            store.enter("host-1")
        process.send_signal(signal.SIGSTOP)
        assert store.dead({"host-1"}) == set()
        process.send_signal(signal.SIGCONT)
    finally:
        end(process)
    assert store.dead({"host-1"}) == {"host-1"}
    assert store.processes() == {"host-1"}
    assert sorted(key.id for key in store.held_by("host-1")) == ["handed out", "leased"]
    store.enter("host-1")
    assert store.dead({"host-1"}) == set()
    assert [file.name for file in (path.parent / "store.db-locks").iterdir()].count("host-1") == 1


@pytest.mark.slow
def test_a_child_made_by_fork_neither_keeps_the_parents_name_nor_its_connections(path: Path) -> None:
    program = """
store = SqliteStore(sys.argv[1])
store.enter("host-1")
create(store, record("parent"), entries(1))
store.get(ORDER, "parent")
store.changed()
parents = [store._file._writer, store._file._watcher, *store._file._idle]
back, forth = os.pipe()
child = os.fork()
if child == 0:
    create(store, record("child"), entries(1))
    save(store, record("parent", rev=2), revision(store, "parent"), entries(2))
    own = [store._file._writer, *store._file._idle]
    assert len(parents) == 3 and len(own) == 2 and not any(one is other for one in own for other in parents)
    os.write(forth, b"x")
    sys.stdin.readline()
    sys.exit(0)
os.close(forth)
assert os.read(back, 1) == b"x"
save(store, record("parent", rev=3), revision(store, "parent"), entries(3))
say(child)
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = start(program, path)
    try:
        child = int(line_of(process))
        process.wait()
        store = SqliteStore(path)
        os.kill(child, 0)  # it lives, and has copies of its parent's files
        assert store.dead({"host-1"}) == {"host-1"}
        assert sorted(listed(store)) == ["child", "parent"]
        assert numbers(store, "parent") == [1, 2, 3]
        assert read(store, "parent").rev == 3
        store.close()
    finally:
        end(process)  # closes the child's input, which ends it
    again = SqliteStore(path)
    assert numbers(again, "parent") == [1, 2, 3]
    again.close()


def test_dead_names_are_tidied_away_when_another_enters(path: Path, store: SqliteStore) -> None:
    folder = path.parent / "store.db-locks"
    folder.mkdir()
    for name in ("host-1", "host-2", ".half-made"):
        (folder / name).touch()
    store.enter("host-3")
    assert sorted(file.name for file in folder.iterdir()) == [".guard", "host-3"]
    store.close()
    assert sorted(file.name for file in folder.iterdir()) == [".guard"]


def test_a_lock_folder_that_cannot_be_made_is_said(path: Path, store: SqliteStore) -> None:
    (path.parent / "store.db-locks").write_text("in the way")
    with pytest.raises(Unavailable, match="cannot keep the lock"):
        store.enter("host-1")


def test_a_copy_of_the_file_is_a_store_of_its_own(path: Path, store: SqliteStore, tmp_path: Path) -> None:
    create(store, record())
    store.enter("host-1")
    store.close()
    shutil.copy(path, tmp_path / "copy.db")
    copy = SqliteStore(tmp_path / "copy.db")
    save(copy, record(rev=2), revision(copy))
    assert copy.dead({"host-1"}) == {"host-1"}
    copy.close()


# -- URLs --------------------------------------------------------------------------------------------------------------


def test_a_url_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    relative = open_store("sqlite:///store.db")
    absolute = open_store(f"sqlite:///{tmp_path}/store.db")
    create(relative, record())
    monkeypatch.chdir("/")
    assert read(absolute) == read(relative)
    absolute.close()
    relative.close()
    memory = open_store("memory://", clock=lambda: NOW)
    assert isinstance(memory, MemoryStore)
    assert memory.now() == NOW
    assert open_store("memory://").list().items == ()


@pytest.mark.parametrize(
    "url, says",
    [
        ("mysql://ann:secret@db/x", "or sqlite:///relative.db or sqlite:////absolute.db, not mysql:"),
        ("store.db", "not something without a scheme"),
        ("", "not something without a scheme"),
        ("sqlite://store.db", "sqlite:///relative.db"),
        ("sqlite:///", "sqlite:///relative.db"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:///x.db?mode=ro", "sqlite:///relative.db"),
        ("postgresql:ann:secret@db/x", "postgresql://USER@HOST/DATABASE"),
        ("memory://x", "memory://"),
    ],
)
def test_another_url_is_refused_without_its_secrets(url: str, says: str) -> None:
    with pytest.raises(Malformed, match=says) as refused:
        open_store(url)
    assert "secret" not in refused.value.message


def test_only_the_driver_asked_for_is_imported() -> None:
    program = "import sys\nfrom runner.stores import open_store\nopen_store('memory://')\nassert 'apsw' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
