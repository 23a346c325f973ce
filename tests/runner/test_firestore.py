"""A Runner with local workers on Firestore: the scenarios, the examples, several Runners at once, lost answers."""

import importlib
import inspect
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest

from asyncflow import For, Return, S, Section, Step, WaitEvent, Workflow, event
from asyncflow.errors import Pending, Unavailable
from runner import Runner
from runner.stores import firestore_calls
from runner.work import activity
from runner.work import deliver as delivering
from tests.runner.gates import PATIENCE
from tests.scenarios.drivers import RunnerDrive, Scenario
from tests.servers.firestore import SERVER, firestore_url, new_url
from tests.servers.firestore_proxy import Cut, Proxy

__all__ = ["firestore_url"]

T = TypeVar("T")

ROOT = Path(__file__).parents[2]


class Counter(Workflow):
    """Counts what it is told, a step for each; 80 are enough."""

    told: int = 0
    kept: list[int] = []

    @event(queue=True)
    def count(self, number: int) -> int:
        self.told += 1
        self.kept.append(number)
        return self.told

    def note(self) -> None: ...

    def definition(self) -> Section[list[int]]:
        return S(For("more", lambda: self.told < 80, WaitEvent(self.count)), Return(lambda: sorted(self.kept)))


class Order(Workflow):
    """Steps and events in turn; everything is counted."""

    added: int = 0
    packed: int = 0

    @event
    def add(self) -> int:
        self.added += 1
        return self.added

    def pack(self) -> None:
        self.packed += 1

    def definition(self) -> Section[tuple[int, int]]:
        return S(
            For("more", lambda: self.added < 2, WaitEvent(self.add), Step(self.pack)),
            Return(lambda: (self.added, self.packed)),
        )


# -- what runs elsewhere runs here -------------------------------------------------------------------------------------


def scenarios() -> Iterator[Any]:
    """Give every scenario that is run in all ways; one of them is a function of how it is played."""
    for name in ("test_p_flow", "test_p_events", "test_p_time", "test_p_faults"):
        module = importlib.import_module(f"tests.scenarios.{name}")
        for test in vars(module).values():
            if inspect.isfunction(test) and list(inspect.signature(test).parameters) == ["play"]:
                yield pytest.param(test, id=test.__name__)


@SERVER
@pytest.mark.parametrize("test", [*scenarios()])
def test_a_scenario_ends_as_everywhere(test: Callable[[Callable[[Scenario], None]], None], monkeypatch: pytest.MonkeyPatch) -> None:
    def play(run: Scenario) -> None:
        with ExitStack() as stack:
            run(RunnerDrive(Runner, lambda number: new_url(monkeypatch), stack))

    test(play)


@SERVER
@pytest.mark.parametrize(
    "name, line",
    [
        ("pizza", "bill: total=Decimal('7.50') payments=[Decimal('5.00'), Decimal('2.50')]"),
        ("fan_out", "957 answered, mean 19.7, 43 offline"),
        ("transfer", "accounts: {'ann': 7000, 'bob': 3000, 'eve': 0} in all 10000"),
        ("agent", "answer: buy cake: paid 24 coins; buy pony: refused: where would it sleep?"),
    ],
)
def test_an_example_runs_by_another_url(
    name: str, line: str, firestore_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example: ModuleType = importlib.import_module(f"examples.{name}")
    monkeypatch.setattr(example, "Runner", lambda workflows, store: Runner(workflows, store=firestore_url))
    example.main()
    assert any(printed.startswith(line) for printed in capsys.readouterr().out.splitlines())


# -- history -----------------------------------------------------------------------------------------------------------


@SERVER
@pytest.mark.parametrize("history, kept", [(None, False), (False, False), (True, True)])
def test_history_is_kept_where_it_is_asked_for(firestore_url: str, history: bool | None, kept: bool) -> None:
    with Runner([Order], store=firestore_url, history=history) as runner:
        order = runner.start(Order(), id="o-1")
        for _ in range(2):
            order.send(Order.add)
        assert order.result(timeout=PATIENCE) == (2, 2)
        kinds = [entry["kind"] for entry in order.history()]
    assert kinds[:1] == (["started"] if kept else [])
    assert kinds[-1:] == (["ended"] if kept else [])


def test_elsewhere_history_is_kept_by_itself() -> None:
    with Runner([Order], store="memory://") as runner:
        assert [entry["kind"] for entry in runner.start(Order(), id="o-1").history()] == ["started"]


# -- many at once ------------------------------------------------------------------------------------------------------


@SERVER
def test_eight_senders_on_two_runners_lose_nothing(firestore_url: str) -> None:
    with Runner([Counter], store=firestore_url) as first, Runner([Counter], store=firestore_url) as second:
        first.start(Counter(), id="c-1")
        start = threading.Barrier(8)

        def send(sender: int) -> list[int]:
            handle = (first, second)[sender % 2].get(Counter, "c-1")
            start.wait()
            return [handle.send(Counter.count, sender * 10 + number, timeout=PATIENCE) for number in range(10)]

        with ThreadPoolExecutor(8) as pool:
            answers = [answer for part in pool.map(send, range(8)) for answer in part]
        assert second.get(Counter, "c-1").result(timeout=PATIENCE) == list(range(80))
    assert sorted(answers) == list(range(1, 81))


@SERVER
def test_what_one_runner_starts_another_works_on(firestore_url: str) -> None:
    beside = Runner([Order], store=firestore_url)
    with Runner([Order], store=firestore_url):
        order = beside.start(Order(), id="o-1")
        for _ in range(2):
            order.send(Order.add, timeout=PATIENCE)
        assert order.result(timeout=PATIENCE) == (2, 2)
    beside.close()


# -- lost answers ------------------------------------------------------------------------------------------------------


@SERVER
@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER])
@pytest.mark.parametrize("every", [6, 11])
def test_everything_happens_once_however_many_answers_are_lost(every: int, cut: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firestore_calls, "WAIT_SECONDS", 0.001)
    monkeypatch.setattr(activity, "RETRY_SAVE_SECONDS", 0.001)
    monkeypatch.setattr(delivering, "DOUBT_RETRY_SECONDS", 0.001)
    url = new_url(monkeypatch)
    with Proxy(os.environ["FIRESTORE_EMULATOR_HOST"]) as proxy:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", proxy.host)
        proxy.plan = lambda number: cut if number % every == 0 else None
        with Runner([Order], store=url) as runner:

            def run_one(number: int) -> tuple[int, int]:
                handle = runner.get(Order, f"o-{number}")
                repeat(lambda: runner.start(Order(), id=handle.id, idempotency_key=f"start {number}"))
                for count in (1, 2):
                    assert repeat(partial(handle.send, "add", idempotency_key=f"{number}/{count}")) == count
                return repeat(lambda: handle.result(PATIENCE))

            with ThreadPoolExecutor(2) as pool:
                ends = list(pool.map(run_one, range(6)))
        assert proxy.cuts >= 5
        proxy.plan = lambda number: None
    assert ends == [(2, 2)] * 6


def repeat(call: Callable[[], T]) -> T:
    """As a sender does who is told that the store is away, or that it takes longer: once more, with the same key."""
    while True:
        try:
            return call()
        except (Unavailable, Pending):
            pass


# -- what is loaded ----------------------------------------------------------------------------------------------------

CHECK = """
import sys
import runner, runner.cli, runner.settings, runner.stores.firestore_indexes
from runner.stores import open_store
open_store("memory://")
libraries = {"google", "grpc", "psycopg", "psycopg_pool"} & {name.partition(".")[0] for name in sys.modules}
assert not libraries, libraries
"""


def test_no_library_of_a_cloud_is_loaded_before_its_store_is_opened() -> None:
    subprocess.run([sys.executable, "-c", CHECK], cwd=ROOT, check=True)


@SERVER
def test_a_child_made_by_fork_has_a_connection_of_its_own(firestore_url: str) -> None:
    program = f"""
import os, sys
from runner.stores import open_store
from tests.conformance.records import create, read, record, revision, save
store = open_store({firestore_url!r})
at = create(store, record())
child = os.fork()
if not child:
    save(store, record(rev=2), at)
    os._exit(read(store).rev != 2)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
save(store, record(rev=3), revision(store))
store.close()
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)
