"""Workers on a Postgres store: several processes, a network that loses words, a server that goes and comes back."""

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from asyncflow import For, Return, S, Section, Step, WaitEvent, Workflow, event
from asyncflow.errors import Unavailable
from runner import Runner
from runner.stores.base import Failed, Outcomes, Saved, Write
from runner.work import activity, asking, worker
from tests.conformance.records import record
from tests.crash.test_fork import PROGRAM
from tests.runner.conftest import Open, wait_for
from tests.runner.elsewhere import Later, Stamp
from tests.runner.gates import PATIENCE, Gate
from tests.runner.postgres_life import Parcel, Stuck
from tests.runner.test_elsewhere import Elsewhere
from tests.servers.postgres import PostgresCluster, postgres, postgres_url, running_cluster
from tests.servers.proxy import Cut, Proxy

__all__ = ["postgres", "postgres_url"]

pytestmark = pytest.mark.server("postgres")
ROOT = Path(__file__).parents[2]
GATE = Gate()
RUNS: list[str] = []


class Order(Workflow):
    """Events and steps in turn; everything is counted."""

    wanted: int = 1
    added: int = 0
    packed: int = 0

    @event
    def add(self) -> int:
        self.added += 1
        return self.added

    async def pack(self) -> None:
        RUNS.append(self.context.idempotency_key)
        self.packed += 1

    def definition(self) -> Section[tuple[int, int]]:
        return S(
            For("more", lambda: self.added < self.wanted, WaitEvent(self.add), Step(self.pack)),
            Return(lambda: (self.added, self.packed)),
        )


class Tally(Workflow):
    """Takes events until it has enough of them."""

    wanted: int
    added: int = 0

    @event
    def add(self) -> int:
        self.added += 1
        return self.added

    def definition(self) -> Section[int]:
        return S(For("more", lambda: self.added < self.wanted, WaitEvent(self.add)), Return(lambda: self.added))


class Held(Workflow):
    """One step at the gate."""

    packed: int = 0

    async def pack(self) -> None:
        RUNS.append(self.context.id)
        await GATE.hold_async()
        self.packed += 1

    def definition(self) -> Section[int]:
        return S(Step(self.pack), Return(lambda: self.packed))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    RUNS.clear()
    monkeypatch.setattr(activity, "RETRY_SAVE_SECONDS", 0.01)
    monkeypatch.setattr(activity, "RETRY_SAVE_SECONDS_MAX", 0.1)
    monkeypatch.setattr(worker, "STORE_AWAY_SECONDS", 0.05)
    monkeypatch.setattr(asking, "STORE_AWAY_SECONDS", 0.05)


class Life:
    """A process of tests/runner/postgres_life.py."""

    def __init__(self, url: str, marks: Path, lease: float = 330.0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.runner.postgres_life", url, str(marks), str(lease)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_ready(self) -> "Life":
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == "ready"
        return self

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> None:
        self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0


@pytest.fixture
def live(postgres_url: str, tmp_path: Path) -> Iterator[Callable[..., Life]]:
    with ExitStack() as stack:

        def begin(lease: float = 330.0) -> Life:
            life = Life(postgres_url, tmp_path / "marks", lease)
            stack.callback(life.kill)
            return life

        yield begin


def marks_in(folder: Path) -> list[list[str]]:
    file = folder / "marks"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


# -- several workers ---------------------------------------------------------------------------------------------------


def test_an_instance_runs_to_its_end(working: Open, postgres_url: str) -> None:
    runner = working(Order, store=postgres_url)
    handle = runner.start(Order(wanted=3))
    for number in range(1, 4):
        wait_for(runner, handle, lambda: handle.waiting == {"add"})
        assert handle.send(Order.add) == number
    assert handle.result(PATIENCE) == (3, 3)
    assert [entry["n"] for entry in handle.history()] == sorted({entry["n"] for entry in handle.history()})


@pytest.mark.slow
def test_processes_share_the_work_and_each_step_runs_once(
    live: Callable[..., Life], opened: Open, postgres_url: str, tmp_path: Path
) -> None:
    runner = opened(Parcel, store=postgres_url)
    handles = [runner.start(Parcel(), id=f"p-{number}") for number in range(40)]
    lives = [live() for _ in range(3)]
    for life in lives:
        life.wait_ready()
    handles += [runner.start(Parcel(), id=f"q-{number}") for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda handle: handle.result(PATIENCE), handles)) == [3] * 80
    for life in lives:
        life.end()
    steps = Counter((id_, step) for _, id_, step, _ in marks_in(tmp_path))
    assert set(steps.values()) == {1}
    assert len(steps) == 80 * 5
    assert len({process for *_, process in marks_in(tmp_path)}) == 3


def test_runners_in_one_process_share_the_work_and_each_step_runs_once(working: Open, postgres_url: str) -> None:
    runners = [working(Order, store=postgres_url, concurrency=4) for _ in range(3)]
    with ThreadPoolExecutor(12) as pool:
        handles = list(pool.map(lambda number: runners[number % 3].start(Order(), id=f"o-{number}"), range(60)))
        assert list(pool.map(lambda handle: handle.send(Order.add), handles)) == [1] * 60
        assert list(pool.map(lambda handle: handle.result(PATIENCE), handles)) == [(1, 1)] * 60
    assert len(RUNS) == len(set(RUNS)) == 60


def test_a_killed_processs_step_goes_on_elsewhere_after_its_lease(
    live: Callable[..., Life], working: Open, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [*sys.argv[:1], postgres_url, str(tmp_path / "marks")])
    first = live(lease=2.0).wait_ready()
    runner = working(store=postgres_url)
    starter = working(Stuck, store=postgres_url, concurrency=1, lease=timedelta(seconds=2))
    starter.drain()
    handle = starter.start(Stuck(), id="s-1")
    while not marks_in(tmp_path):
        threading.Event().wait(0.01)
    first.kill()
    with Runner([Stuck], store=postgres_url, lease=timedelta(seconds=2)) as second:
        assert second.get(Stuck, handle.id).result(PATIENCE) == 2
    assert [words[:3] for words in marks_in(tmp_path)] == [["began", "s-1", "1"], ["began", "s-1", "2"]]
    runner.drain()


def test_writers_at_one_instance_lose_nothing(working: Open, opened: Open, postgres_url: str) -> None:
    working(Tally, store=postgres_url)
    senders = [opened(Tally, store=postgres_url) for _ in range(4)]
    handle = senders[0].start(Tally(wanted=80), id="t-1")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: senders[number % 4].get(Tally, "t-1").send(Tally.add, timeout=PATIENCE), range(80)))
    assert sorted(answers) == list(range(1, 81))
    assert handle.result(PATIENCE) == 80


def test_what_another_process_makes_due_wakes_an_idle_one(opened: Open, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By LISTEN and NOTIFY alone: a worker that slept until its next sweep would take ten minutes here."""
    monkeypatch.setattr(worker, "RECOVER_SECONDS", 600.0)
    other, starter = opened(Stamp, Later, store=postgres_url), opened(Stamp, Later, store=postgres_url)
    with other:
        assert other.wait_idle(PATIENCE)
        handles = [starter.start(Stamp()), starter.start(Later())]
        assert [handle.result(PATIENCE) for handle in handles] == [None, None]


def test_another_process_does_what_is_due(postgres_url: str, opened: Open) -> None:
    elsewhere = Elsewhere(postgres_url)
    try:
        runner = opened(Stamp, store=postgres_url)
        handle = runner.start(Stamp(), id="s-1")
        elsewhere.heard_to_begin("s-1")
        assert handle.result(PATIENCE) is None
    finally:
        elsewhere.end()


def test_who_is_told_of_changes_looks_only_then(working: Open, postgres: PostgresCluster, postgres_url: str) -> None:
    runner = working(Stamp, store=postgres_url + "&application_name=idle")
    assert runner.wait_idle(PATIENCE)
    asked = "SELECT max(query_start)::text FROM pg_stat_activity WHERE application_name = 'idle'"
    before, rest = "", postgres.execute(asked)[0][0]
    while before != rest:  # until what follows the start is over
        threading.Event().wait(0.5)
        before, rest = rest, postgres.execute(asked)[0][0]
    threading.Event().wait(2 * worker.LOOK_FAR_SECONDS)  # the one thing looked at here is that nothing happens
    assert postgres.execute(asked)[0][0] == rest


@pytest.mark.parametrize("how", ["idle", "worker", "working", "two workers"])
def test_a_runner_works_on_both_sides_of_a_fork(postgres_url: str, how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, postgres_url, *([how] if how != "idle" else [])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


# -- doubt, and outages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
def test_words_that_are_lost_now_and_then_change_nothing(
    working: Open, postgres: PostgresCluster, postgres_url: str, when: Cut
) -> None:
    with Proxy(postgres.port) as proxy:
        runner = working(Order, store=postgres_url.replace(f":{postgres.port}/", f":{proxy.port}/"))
        handle = runner.start(Order(wanted=6), id="o-1")
        for number in range(1, 7):
            wait_for(runner, handle, lambda: handle.waiting == {"add"})
            # The event's own save, and then those of the step that it leads to.
            proxy.cut(b"asyncflow_commit", when)
            assert handle.send(Order.add, idempotency_key=f"k-{number}") == number
            proxy.cut(b"asyncflow_commit", when)
        assert handle.result(PATIENCE) == (6, 6)
        assert proxy.cuts >= 6
        assert len(RUNS) == len(set(RUNS)) == 6
        proxy.cut(b"asyncflow_commit", when)
        assert runner.start(Order(wanted=0), id="o-2").result(PATIENCE) == (0, 0)


def test_a_result_is_kept_until_the_server_is_back(working: Open, gate: Gate) -> None:
    with running_cluster() as own:
        runner = working(Held, store=own.url("postgres"))
        handles = [runner.start(Held(), id=f"h-{number}") for number in range(10)]
        gate.wait(here=10)
        own.stop()
        gate.open()
        with pytest.raises(Unavailable):
            runner.get(Held, "h-0").status  # noqa: B018 (it asks)
        assert runner.healthy
        own.start()
        assert [handle.result(PATIENCE) for handle in handles] == [1] * 10
        assert len(RUNS) == 10
        assert runner.start(Held()).result(PATIENCE) == 1
        runner.close()


def test_a_server_that_falls_silent_holds_up_neither_loop_nor_drain(
    working: Open, postgres: PostgresCluster, postgres_url: str, gate: Gate
) -> None:
    with Proxy(postgres.port) as proxy:
        runner = working(Held, store=postgres_url.replace(f":{postgres.port}/", f":{proxy.port}/"))
        handle = runner.start(Held())
        gate.wait(here=1)
        proxy.fall_silent()
        gate.open()
        at_work = runner._worker
        assert at_work is not None
        turns = threading.Event()
        at_work._loop.call_soon_threadsafe(at_work._loop.call_later, 0.1, turns.set)
        assert turns.wait(PATIENCE), "the loop goes on"
        proxy.speak()
        assert handle.result(PATIENCE) == 1
        assert len(RUNS) == 1


def test_a_row_that_others_lock_is_saved_when_they_let_go(
    working: Open, postgres: PostgresCluster, postgres_url: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runner.stores import postgres_server

    monkeypatch.setattr(postgres_server, "LOCK_SECONDS", 0.2)
    runner = working(Held, store=postgres_url)
    handle = runner.start(Held(), id="h-1")
    gate.wait(here=1)
    schema = postgres_url.partition("schema=")[2]
    with psycopg.connect(postgres.url("postgres")) as other:
        other.execute(f"SELECT 1 FROM {schema}.instances FOR UPDATE")
        gate.open()
        outcome = runner.store.commit([Write(record("x"), None)])[0]
        assert isinstance(outcome, Saved), "what is not locked goes on"
        threading.Event().wait(0.5)  # long enough for a try to be given up
    assert handle.result(PATIENCE) == 1
    assert RUNS == ["h-1"]


def sent_in_doubt(opened: Open, cluster: PostgresCluster, url: str, faulty: Callable[[Runner], None]) -> tuple[int, int]:
    """Send twice, where the answer to the second save is lost; give the second answer, and how many events took effect."""
    with Proxy(cluster.port) as proxy:
        sender = opened(Tally, store=url.replace(f":{cluster.port}/", f":{proxy.port}/"))
        handle = sender.start(Tally(wanted=9), id="t-1")
        assert handle.send(Tally.add) == 1
        faulty(sender)
        proxy.cut(b"asyncflow_commit", "after")
        answer = handle.send(Tally.add, idempotency_key="k")
        return answer, handle.state.added


def test_a_sender_in_doubt_looks_and_finds_his_answer(opened: Open, postgres: PostgresCluster, postgres_url: str) -> None:
    assert sent_in_doubt(opened, postgres, postgres_url, lambda sender: None) == (2, 2)


# -- drivers with one fault each ---------------------------------------------------------------------------------------


def never_in_doubt(sender: Runner) -> None:
    """Says of a lost answer that nothing was stored."""
    commit = sender.store.commit

    def sure(writes: Sequence[Write]) -> Outcomes:
        return [Failed(one.error) if isinstance(one, Failed) else one for one in commit(writes)]

    sender.store.commit = sure  # type: ignore[method-assign]


def tried_again(sender: Runner) -> None:
    """Makes a commit again whose answer was lost, and believes the second answer."""
    commit = sender.store.commit

    def again(writes: Sequence[Write]) -> Outcomes:
        outcomes = commit(writes)
        lost = any(isinstance(one, Failed) for one in outcomes)
        return [Failed(Unavailable(f"{one}")) for one in commit(writes)] if lost else outcomes

    sender.store.commit = again  # type: ignore[method-assign]


@pytest.mark.xfail(strict=True, raises=(Unavailable, AssertionError))
@pytest.mark.parametrize("faulty", [never_in_doubt, tried_again])
def test_a_driver_that_takes_silence_for_an_answer(
    opened: Open, postgres: PostgresCluster, postgres_url: str, faulty: Callable[[Runner], None]
) -> None:
    assert sent_in_doubt(opened, postgres, postgres_url, faulty) == (2, 2)
