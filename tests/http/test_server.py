"""The served process: where it listens, how it ends, who waits, what survives kill -9."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import pytest

from asyncflow import limits
from asyncflow.errors import Malformed, Unavailable
from runner import Runner
from runner.http.server import serve
from tests.http import shop
from tests.http.serving import SECONDS, Line, Served

Serve: TypeAlias = Callable[..., Served]
JSON_BYTES_MAX = limits.BODY_BYTES


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'shop.db'}"


@pytest.fixture
def serving(url: str) -> Iterator[Serve]:
    with ExitStack() as stack:

        def begin(*arguments: str, **environment: str) -> Served:
            served = Served(url, *arguments, **environment)
            stack.callback(served.kill)
            return served

        yield begin


def test_a_server_serves_and_ends_on_sigterm(serving: Serve) -> None:
    served = serving()
    assert served.url == f"http://127.0.0.1:{served.port}"
    line = served.line()
    assert line.ask("POST", "/workflows/Basket?id=b").status == 201
    assert line.ask("POST", "/workflows/Basket/b/events/put", {"name": "tea"}).json() == [{"name": "tea", "count": 1}]
    assert line.ask("GET", "/workflows/Basket/b").headers["etag"]
    assert line.ask("POST", "/workflows/Basket/b:kill").status == 200
    assert line.ask("DELETE", "/workflows/Basket/b").status == 204
    served.tell(signal.SIGTERM)
    code, said = served.end()
    assert (code, "panicked" in said, "Traceback" in said) == (0, False, False), said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(serving: Serve, tmp_path: Path, number: signal.Signals) -> None:
    pipe = tmp_path / "oven"
    os.mkfifo(pipe)
    served = serving(OVEN=str(pipe))
    served.ask("POST", "/workflows/Oven?id=o")
    await_attempt(served, "/workflows/Oven/o")
    served.tell(number)
    assert_draining(served)
    served.tell(number)
    assert served.end()[0] == 128 + number


def await_attempt(served: Served, path: str) -> None:
    """Wait until its step is begun."""
    pc = 0
    while True:
        instance = served.ask("GET", f"{path}?wait=30&since={pc}").json()
        if instance["threads"][0]["attempt"]:
            return
        pc = instance["pc"]


def assert_draining(served: Served) -> None:
    """See it refuse what is new, which it does from the signal on."""
    line = served.line()
    while True:
        reply = line.ask("GET", "/readyz")
        if reply.status == 503:
            break
    assert reply.json()["type"] == "urn:asyncflow:error:Unavailable"
    assert int(reply.headers["retry-after"]) >= 1
    assert line.ask("GET", "/healthz").status == 200
    assert line.ask("GET", "/workflows").status == 503
    line.close()


def test_a_drain_lets_steps_end_and_answers_who_waits(serving: Serve, tmp_path: Path) -> None:
    pipe = tmp_path / "oven"
    os.mkfifo(pipe)
    served = serving(OVEN=str(pipe))
    served.ask("POST", "/workflows/Oven?id=o")
    await_attempt(served, "/workflows/Oven/o")
    before = served.ask("GET", "/workflows/Oven/o").json()["updated_at"]
    sender = served.line()
    sender.send("POST", "/workflows/Oven/o/events/order", "bread", Prefer="wait=60")
    while served.ask("GET", "/workflows/Oven/o").json()["updated_at"] == before:
        pass  # until it lies
    served.tell(signal.SIGTERM)
    assert_draining(served)
    pipe.write_text("go")
    assert sender.read().body == b"1"
    assert served.end()[0] == 0


def test_what_a_step_did_before_the_end_is_not_done_again(serving: Serve, tmp_path: Path) -> None:
    pipe = tmp_path / "oven"
    os.mkfifo(pipe)
    first = serving(OVEN=str(pipe))
    first.ask("POST", "/workflows/Oven?id=o")
    await_attempt(first, "/workflows/Oven/o")
    first.tell(signal.SIGTERM)
    pipe.write_text("go")
    assert first.end()[0] == 0
    second = serving(OVEN=str(pipe))
    assert second.ask("POST", "/workflows/Oven/o/events/order", "bread").body == b"1"
    assert second.ask("POST", "/workflows/Oven/o/events/later").body == b"null"
    ended = second.ask("GET", "/workflows/Oven/o").json()
    assert (ended["status"], ended["output"]) == ("Finished", 1)


# -- where it listens --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", "", "127.0.0.1.example.com"])
def test_it_listens_on_loopback_alone_unless_insecure_is_said(host: str) -> None:
    with pytest.raises(Malformed, match="loopback"):
        serve(Runner(shop.WORKFLOWS, store="memory://"), host=host, port=0)


def test_it_may_be_insecure_and_keeps_pages_of_other_sites_out_all_the_same(serving: Serve) -> None:
    served = serving("insecure")
    assert served.url.startswith("http://0.0.0.0:")
    assert served.ask("GET", "/workflows", Host="shop.example").status == 200
    assert served.ask("GET", "/workflows", Host="shop.example", Origin="http://shop.example").status == 200
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}):
        assert served.ask("GET", "/workflows", **{"Host": "shop.example", **headers}).status == 403


def test_pages_of_other_sites_are_kept_out(serving: Serve) -> None:
    served = serving()
    for headers in (
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": f"http://localhost:{served.port}"},  # its Host header is another one
        {"Sec_Fetch_Site": "cross-site"},
    ):
        assert served.ask("POST", "/workflows/Basket?id=b", **headers).status == 403
    own = f"127.0.0.1:{served.port}"
    assert served.ask("POST", "/workflows/Basket?id=b", Host=own, Origin=f"http://{own}").status == 201


def test_a_port_that_is_taken_is_said_to_be(serving: Serve) -> None:
    served = serving()
    with pytest.raises(Unavailable, match=f"port {served.port}"):
        serve(Runner(shop.WORKFLOWS, store="memory://"), port=served.port)
    assert served.ask("GET", "/healthz").status == 200


def test_a_host_without_an_address_is_malformed() -> None:
    with pytest.raises(Malformed, match="address"):
        serve(Runner(shop.WORKFLOWS, store="memory://"), host="no-such-host.invalid", port=0, insecure=True)


# -- on the wire -------------------------------------------------------------------------------------------------------


def test_hostile_requests_are_refused_and_the_next_one_is_served(serving: Serve) -> None:
    served = serving()
    served.ask("POST", "/workflows/Basket?id=b")
    path = "/workflows/Basket/b/events/put"

    def raw(*parts: bytes) -> int:
        line = served.line()
        for part in parts:
            line.socket.sendall(part)
        try:
            return line.read().status
        finally:
            line.close()

    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    assert raw(head + b"Content-Length: 100000000\r\n\r\n") == 413, "it is refused before it comes"
    assert raw(chunked, *[b"4000\r\n" + b"[" * 0x4000 + b"\r\n"] * 17) == 413, "it is refused before its end"
    assert raw(chunked, b'f\r\n{"name": "tea"}\r\n0\r\n\r\n') == 200
    assert raw(head + b"Content-Length: 5\r\n\r\n[1, 2") == 400
    assert raw(f"GET {path}%FF%00 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()) == 405
    assert raw(b"GET /workflows/Basket/%FF HTTP/1.1\r\nHost: localhost\r\n\r\n") == 400
    assert raw(b"GET /workflows HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n") in (400, 403)
    assert raw(b"GET /workflows HTTP/1.0\r\n\r\n") == 403, "no Host"
    assert raw(b"NONSENSE\r\n\r\n") == 400
    assert raw(head + b"X_Asyncflow_Caller: eve\r\nContent-Length: 15\r\n\r\n" + b'{"name": "tea"}') == 200
    state = served.ask("GET", "/workflows/Basket/b").json()["state"]
    assert state["callers"] == [None, None], "a header with _ is not the one with -"


def test_callers_wait_without_threads(serving: Serve) -> None:
    """300 of them are more than the server has threads; they do not keep others from being served."""
    served = serving()
    started = served.ask("POST", "/workflows/Basket?id=b").json()
    lines = [served.line() for _ in range(300)]
    try:
        for line in lines:
            line.send("GET", f"/workflows/Basket/b?wait=60&since={started['pc']}")
        for _ in range(50):
            assert served.ask("GET", "/workflows").status == 200
        assert served.threads < 100
        assert served.ask("POST", "/workflows/Basket/b/events/put", {"name": "tea"}).status == 200
        assert {line.read().json()["pc"] > started["pc"] for line in lines} == {True}
    finally:
        for line in lines:
            line.close()


def test_callers_that_have_gone_are_forgotten(serving: Serve) -> None:
    served = serving()
    served.ask("POST", "/workflows/Basket?id=b")
    before = served.sockets
    lines = [served.line() for _ in range(50)]
    for line in lines:
        line.send("GET", "/workflows/Basket/b?wait=60&since=1000")
    while served.sockets < before + 45:  # one asked before may still be closing when we count
        served.ask("GET", "/healthz")
    for line in lines:
        line.close()
    while served.sockets > before + 5:  # their connections are closed on our side too, long before the minute
        served.ask("GET", "/healthz")


# -- kill -9 -----------------------------------------------------------------------------------------------------------

SENDERS = 8
KILLS = 3
ACKNOWLEDGED_PER_ROUND = 150


def test_nothing_acknowledged_is_lost_when_it_is_killed_under_load(serving: Serve, tmp_path: Path) -> None:
    """Senders note what was answered in a ledger that is only appended to; what is in doubt they send again."""
    ledger: list[str] = []
    enough = threading.Semaphore(0)
    current: list[Served] = [serving()]
    stop = threading.Event()
    back = threading.Condition()

    def line() -> Line | None:
        """A connection to the server that lives now; None when it is not there yet."""
        try:
            return current[0].line()
        except OSError:
            with back:
                back.wait(0.2)
            return None

    def sender(who: int) -> None:
        connection: Line | None = None
        number = 0
        while not stop.is_set():
            connection = connection or line()
            if connection is None:
                continue
            name = f"{who}-{number}"
            try:
                reply = connection.ask("POST", f"/workflows/Basket/b-{who}/events/put", {"name": name}, Idempotency_Key=name)
            except (OSError, ValueError):
                connection.close()
                connection = None  # in doubt: the same once more
                continue
            assert reply.status == 200, reply
            ledger.append(name)
            enough.release()
            number += 1
        if connection is not None:
            connection.close()

    for who in range(SENDERS):
        assert current[0].ask("POST", f"/workflows/Basket?id=b-{who}").status == 201
    with ThreadPoolExecutor(SENDERS) as pool:
        sending = [pool.submit(sender, who) for who in range(SENDERS)]
        try:
            for _ in range(KILLS):
                for _ in range(ACKNOWLEDGED_PER_ROUND):
                    assert enough.acquire(timeout=SECONDS), [one.exception(0) for one in sending if one.done()]
                current[0].tell(signal.SIGKILL)
                assert current[0].end()[0] == -signal.SIGKILL
                current[0] = serving()
                with back:
                    back.notify_all()
        finally:
            stop.set()
        for one in sending:
            one.result(SECONDS)
    assert len(ledger) >= KILLS * ACKNOWLEDGED_PER_ROUND
    there: Counter[str] = Counter()
    for who in range(SENDERS):
        state = current[0].ask("GET", f"/workflows/Basket/b-{who}").json()["state"]
        there.update(item["name"] for item in state["items"])
    assert [name for name in ledger if there[name] != 1] == [], "acknowledged, and lost or done twice"
    # One more for each sender at most: what was done, and not acknowledged before the end.
    assert sum(there.values()) - len(ledger) <= SENDERS
    assert max(there.values()) == 1
