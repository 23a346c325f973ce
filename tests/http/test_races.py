"""Many clients at once: one winner, nothing lost, nothing twice, also over two apps on one file."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest
from flask import Flask
from pydantic_core import from_json, to_json
from werkzeug.test import create_environ

from runner.http.bridge import called
from tests.http.asking import Asker
from tests.http.conftest import Open
from tests.runner.gates import PATIENCE

CLIENTS = 64


def post(app: Flask, path: str, body: object, **headers: str) -> tuple[int, object]:
    """Ask without a test client, of whose cookies and builders thousands of requests have no use."""
    raw = to_json(body)
    environ = create_environ(path, "http://localhost", method="POST")
    environ |= {"wsgi.input": BytesIO(raw), "CONTENT_LENGTH": str(len(raw)), "CONTENT_TYPE": "application/json"}
    environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    status, _, text = called(app, environ)
    return status, from_json(text)


def race(apps: list[Flask], rounds: int) -> None:
    start = threading.Barrier(CLIENTS)

    def client(who: int) -> list[tuple[int, object]]:
        said: list[tuple[int, object]] = []
        for number in range(rounds):
            start.wait(PATIENCE)
            said.append(post(apps[who % len(apps)], f"/workflows/Prize/p-{number}/events/claim", who))
        return said

    with ThreadPoolExecutor(CLIENTS) as pool:
        asked = [pool.submit(client, who) for who in range(CLIENTS)]
        said = [one.result() for one in asked]
    for number in range(rounds):
        statuses = [said[who][number][0] for who in range(CLIENTS)]
        assert Counter(statuses) == {200: 1, 409: CLIENTS - 1}
        winner = statuses.index(200)
        assert said[winner][number][1] == winner
        for app in apps:
            state = Asker(app.test_client()).get(f"/workflows/Prize/p-{number}").get_json()["state"]
            assert state == {"winner": winner}


def test_of_64_clients_that_race_for_one_select_one_wins(open_runner: Open) -> None:
    app = open_runner().create_app()
    for number in range(100):
        Asker(app.test_client()).start("Prize", f"p-{number}")
    race([app], 100)


def test_of_64_clients_of_two_apps_on_one_file_one_wins(open_runner: Open, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    apps = [open_runner(url).create_app(), open_runner(url).create_app()]
    for number in range(15):
        Asker(apps[number % 2].test_client()).start("Prize", f"p-{number}")
    race(apps, 15)


@pytest.mark.parametrize("workers", [False, True])
def test_what_64_clients_of_two_apps_put_in_is_there_once(open_runner: Open, tmp_path: Path, workers: bool) -> None:
    """Each sends each of his events three times with one key, to one app and the other."""
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    apps = [open_runner(url, work=workers).create_app(), open_runner(url, work=workers).create_app()]
    path = Asker(apps[0].test_client()).start("Basket", "b")

    def client(who: int) -> None:
        for number in range(2):
            body, key = {"name": f"{who}/{number}"}, f"{who}-{number}"
            answers = [post(apps[app], f"{path}/events/put", body, idempotency_key=key) for app in (0, 1, 0)]
            assert [status for status, _ in answers] == [200, 200, 200]
            # What was answered first is answered again, or is said to be gone.
            assert all(answer in (answers[0][1], None) for _, answer in answers)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))
    for app in apps:
        items = Asker(app.test_client()).get(path).get_json()["state"]["items"]
        assert Counter(item["name"] for item in items) == {f"{who}/{n}": 1 for who in range(CLIENTS) for n in range(2)}


def test_of_64_equal_starts_one_is_made(open_runner: Open, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    apps = [open_runner(url).create_app(), open_runner(url).create_app()]

    def start(who: int) -> object:
        status, instance = post(apps[who % 2], "/workflows/Visit", 3, idempotency_key="k-1")
        assert status == 201
        assert isinstance(instance, dict)
        return instance["id"]

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert len(set(pool.map(start, range(CLIENTS)))) == 1
    assert len(Asker(apps[0].test_client()).get("/workflows/Visit").get_json()["instances"]) == 1


def test_two_apps_see_what_the_other_has_written(open_runner: Open, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    one, other = (Asker(open_runner(url).create_app().test_client()) for _ in range(2))
    path = one.start("Basket", "b")
    tag = other.get(path).headers["ETag"]
    one.post(f"{path}/events/put", {"name": "tea"})
    assert other.get(path).get_json()["state"]["items"] == [{"name": "tea", "count": 1}]
    other.problem("POST", f"{path}/events/put", {"name": "milk"}, status=412, headers={"If-Match": tag})
    other.post(f"{path}:pause", {})
    assert one.get(path).get_json()["status"] == "Paused"


def test_a_long_poll_hears_of_another_process(open_runner: Open, tmp_path: Path) -> None:
    """Where nobody rings, it looks by itself; with a worker, which watches the file, at once."""
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    waiting, writing = open_runner(url, work=True), open_runner(url)
    one, other = Asker(waiting.create_app().test_client()), Asker(writing.create_app().test_client())
    path = other.start("Basket", "b")
    pc = one.get(path).get_json()["pc"]
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(one.get, f"{path}?wait=30&since={pc}")
        other.post(f"{path}/events/put", {"name": "tea"})
        assert asked.result(PATIENCE).get_json()["pc"] > pc
