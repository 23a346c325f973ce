"""Waiting: told at once within the process, found by looking otherwise, and never longer than asked for."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from asyncflow import limits
from runner import Runner
from runner.stores.base import Key
from runner.work.bell import Bell
from runner.work.waiting import Waiting
from tests.http.asking import Asker
from tests.http.conftest import Open
from tests.runner.gates import PATIENCE, Gate

Drive = Callable[[Waiting[Any], float], Any]


def here(waiting: Waiting[Any], patience: float) -> Any:
    return waiting.here(patience)


def on_loop(waiting: Waiting[Any], patience: float) -> Any:
    async def main() -> Any:
        async def run(work: Callable[[], Any]) -> Any:
            return await asyncio.to_thread(work)

        return await waiting.on_loop(patience, run)

    return asyncio.run(main())


@pytest.fixture(params=[here, on_loop], ids=["here", "on_loop"])
def drive(request: pytest.FixtureRequest) -> Drive:
    drive: Drive = request.param
    return drive


class Looks:
    """Counts looks; gives what was put there."""

    def __init__(self) -> None:
        self.count = 0
        self.left = 0
        self.found: Any = None
        self.second = threading.Event()
        self.waiting: Waiting[Any] = Waiting(self.look, self.leave)

    def look(self) -> Any:
        self.count += 1
        if self.count == 2:
            self.second.set()
        return self.found

    def leave(self) -> None:
        self.left += 1


def test_what_is_there_is_given_at_once(drive: Drive) -> None:
    looks = Looks()
    looks.found = "it"
    assert drive(looks.waiting, 60) == "it"
    assert (looks.count, looks.left) == (1, 1)


def test_without_patience_one_look_is_taken(drive: Drive) -> None:
    looks = Looks()
    assert drive(looks.waiting, 0) is None
    assert (looks.count, looks.left) == (1, 1)


@pytest.fixture
def rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks are so far apart that only a bell explains one."""
    monkeypatch.setattr(limits, "POLL_SECONDS", (2 * PATIENCE,))


@pytest.mark.usefixtures("rarely")
def test_a_wait_that_is_told_looks_at_once(drive: Drive) -> None:
    looks = Looks()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(drive, looks.waiting, 2 * PATIENCE)
        while not waiting.done() and looks.found is None:
            looks.waiting.tell()  # also before it waits: no bell is lost
            if looks.second.wait(0.01):
                looks.found = "it"
                looks.waiting.tell()
        assert waiting.result(PATIENCE) == "it"
    assert looks.left == 1


@pytest.mark.usefixtures("rarely")
def test_a_wait_that_is_given_up_ends(drive: Drive) -> None:
    looks = Looks()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(drive, looks.waiting, 2 * PATIENCE)
        looks.waiting.give_up()
        assert waiting.result(PATIENCE) is None
    assert looks.left == 1


def test_without_a_bell_it_looks_at_growing_intervals(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "POLL_SECONDS", (0.001, 0.002, 0.004))
    looks = Looks()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(drive, looks.waiting, PATIENCE)
        assert looks.second.wait(PATIENCE)
        looks.found = "it"
        assert waiting.result(PATIENCE) == "it"


def test_a_wait_is_no_busy_loop(drive: Drive) -> None:
    looks = Looks()
    began = time.thread_time()
    assert drive(looks.waiting, 0.5) is None
    assert looks.count <= 4, "at 0, 0.2 and 0.5 s"
    assert time.thread_time() - began < 0.1


def test_a_look_that_fails_ends_the_wait(drive: Drive) -> None:
    left: list[int] = []
    waiting: Waiting[Any] = Waiting(lambda: 1 // 0, lambda: left.append(1))
    with pytest.raises(ZeroDivisionError):
        drive(waiting, 60)
    assert left == [1]


def test_all_who_wait_for_one_answer_get_it() -> None:
    from asyncflow.activation import Answer

    bell, heard = Bell(), list[str]()

    def first(_: Answer) -> None:
        heard.append("first")

    def second(_: Answer) -> None:
        heard.append("second")

    bell.expect("m", first)
    bell.expect("m", second)
    bell.tell({"m": Answer(200), "other": Answer(200)})
    bell.forget("m", first)
    bell.tell({"m": Answer(200)})
    bell.forget("m", second)
    bell.tell({"m": Answer(200)})
    assert heard == ["first", "second", "second"]


# -- long-poll ---------------------------------------------------------------------------------------------------------


class Listening:
    """Asks in a thread, and lets the test go on once the caller listens."""

    def __init__(self, app: Flask, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
        self._app = app
        self._pool = ThreadPoolExecutor(4)
        self._listens = threading.Semaphore(0)
        listen, expect = runner.bell.listen, runner.bell.expect

        def listened(*arguments: Any, **options: Any) -> None:
            listen(*arguments, **options)
            self._listens.release()

        def expected(*arguments: Any) -> None:
            expect(*arguments)
            self._listens.release()

        monkeypatch.setattr(runner.bell, "listen", listened)
        monkeypatch.setattr(runner.bell, "expect", expected)

    def ask(self, *arguments: Any, **options: Any) -> "Future[TestResponse]":
        asked = self._pool.submit(Asker(self._app.test_client()).ask, *arguments, **options)
        if not self._listens.acquire(timeout=PATIENCE):
            raise AssertionError(f"nobody listens: {asked.result(0).text}")
        return asked


@pytest.fixture
def listening(app: Flask, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Listening:
    return Listening(app, runner, monkeypatch)


@pytest.mark.usefixtures("rarely")
def test_a_long_poll_is_answered_when_the_instance_changes(client: Asker, listening: Listening, runner: Runner) -> None:
    path = client.start("Basket", "b-1")
    pc = client.get(path).get_json()["pc"]
    waits = [listening.ask("GET", f"{path}?wait=60&since={pc}") for _ in range(3)]
    other = client.start("Basket", "b-2")
    client.post(f"{other}/events/put", {"name": "milk"})
    assert not any(one.done() for one in waits)
    client.post(f"{path}/events/put", {"name": "tea"})
    for one in waits:
        changed = one.result(PATIENCE)
        assert changed.status_code == 200
        assert changed.get_json()["pc"] > pc
        assert changed.headers["ETag"] == f'"{changed.get_json()["pc"]}"'
    assert runner.bell._listeners == {}, "nobody listens any more"


def test_a_long_poll_without_news_is_304(client: Asker, runner: Runner) -> None:
    path = client.start("Basket", "b-1")
    pc = client.get(path).get_json()["pc"]
    for query in (f"since={pc}", f"wait=0&since={pc}", f"wait=0.05&since={pc}", f"since={pc + 10}"):
        unchanged = client.get(f"{path}?{query}", 304)
        assert (unchanged.data, unchanged.headers["ETag"]) == (b"", f'"{pc}"')
    assert client.get(f"{path}?wait=60&since={pc - 1}").get_json()["pc"] == pc
    assert runner.bell._listeners == {}


@pytest.mark.parametrize(
    "query",
    ["wait=1", "wait=x&since=1", "wait=-1&since=1", "wait=inf&since=1", "since=x", "since=-1", "since=1e3", "since="],
)
def test_a_long_poll_that_is_none_is_400(client: Asker, query: str) -> None:
    path = client.start("Basket", "b-1")
    assert client.problem("GET", f"{path}?{query}", status=400)["class"] == "Malformed"


def test_a_long_poll_of_nothing_is_404_at_once(client: Asker) -> None:
    client.problem("GET", "/workflows/Basket/b-1?wait=60&since=1", status=404)


def test_a_long_poll_of_what_is_deleted_meanwhile_is_404(client: Asker, listening: Listening, runner: Runner) -> None:
    path = client.start("Basket", "b-1")
    client.post(f"{path}/events/close")
    pc = client.get(path).get_json()["pc"]
    wait = listening.ask("GET", f"{path}?wait=60&since={pc}")
    client.ask("DELETE", path, status=204)
    runner.bell.ring(Key("Basket", "b-1"), ended=True)
    assert wait.result(PATIENCE).status_code == 404


# -- events that lie ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("rarely")
def test_an_event_that_comes_while_a_step_runs_is_answered_after_it(
    open_runner: Open, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = open_runner(work=True)
    app = runner.create_app()
    client, listening = Asker(app.test_client()), Listening(app, runner, monkeypatch)
    path = client.start("Oven", "o")
    gate.wait(here=1)
    key = {"Idempotency-Key": "k-1"}
    pending = client.post(f"{path}/events/order", "bread", 202, headers={**key, "Prefer": "wait=0"})
    assert pending.get_json() == {"idempotency_key": "k-1"}
    again = [listening.ask("POST", f"{path}/events/order", "bread", headers={**key, "Prefer": "wait=60"}) for _ in range(2)]
    assert not any(one.done() for one in again)
    gate.open()
    assert [one.result(PATIENCE).get_json() for one in again] == [1, 1]
    assert client.post(f"{path}/events/order", "bread", headers=key).get_json() == 1
    assert client.get(path).get_json()["state"]["orders"] == ["bread"]
    assert runner.bell._answers == {}


def test_the_key_of_an_event_without_one_is_given_to_ask_again_with(open_runner: Open, gate: Gate) -> None:
    runner = open_runner(work=True)
    client = Asker(runner.create_app().test_client())
    path = client.start("Oven", "o")
    gate.wait(here=1)
    pending = client.post(f"{path}/events/order", "bread", 202, headers={"Prefer": "respond-async, wait=0"})
    key = {"Idempotency-Key": pending.get_json()["idempotency_key"]}
    gate.open()
    assert client.post(f"{path}/events/order", "bread", headers=key).get_json() == 1
    assert client.problem("POST", f"{path}/events/order", "cake", status=422, headers=key)["class"] == "KeyReused"


def test_a_refusal_that_lay_is_kept_for_its_key(open_runner: Open, gate: Gate) -> None:
    runner = open_runner(work=True)
    client = Asker(runner.create_app().test_client())
    path = client.start("Oven", "o")
    gate.wait(here=1)
    client.post(f"{path}/events/order", "bread", 202, headers={"Idempotency-Key": "k-1", "Prefer": "wait=0"})
    client.post(f"{path}/events/order", "cake", 202, headers={"Idempotency-Key": "k-2", "Prefer": "wait=0"})
    gate.open()
    assert runner.wait_idle()
    for _ in range(2):
        problem = client.problem("POST", f"{path}/events/order", "cake", status=409, headers={"Idempotency-Key": "k-2"})
        assert problem["class"] == "NotAwaited"


@pytest.mark.parametrize("prefer", ["wait=soon", "wait=-1", "wait=nan", "wait=", "wait=1e9"])
def test_a_patience_that_is_none_is_400(client: Asker, prefer: str) -> None:
    path = client.start("Basket", "b-1")
    client.problem("POST", f"{path}/events/clear", status=400, headers={"Prefer": prefer})


def test_patience_is_at_most_a_minute(app: Flask) -> None:
    from runner.http.edge import long_poll, patience

    for said, seconds in (
        ("wait=5", 5),
        ("wait=0.5", 0.5),
        ("wait=61", 60),
        ("wait=999999", 60),
        ("return=minimal", 10),
    ):
        with app.test_request_context(headers={"Prefer": said}) as context:
            assert patience(context.request) == seconds
    with app.test_request_context("/?wait=3600&since=3") as context:
        poll = long_poll(context.request)
        assert poll is not None
        assert (poll.seconds, poll.since) == (60, 3)
