"""The command as people run it: processes, signals, pipes."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import IO, Any

import pytest

from tests.cli.conftest import Shell
from tests.cli.test_target import SOURCE, write

ROOT = Path(__file__).parents[2]
SHOP = str(ROOT / "tests" / "cli" / "shop.py")
SECONDS = 30.0  # far beyond what any of it takes, on a machine with other work

Line = str


class Lines:
    """What a process prints, line by line, as it comes."""

    def __init__(self, stream: IO[str]) -> None:
        self._lines: Queue[Line | None] = Queue()
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def until(self, fits: Callable[[Line], bool]) -> Line:
        """Give the next line that fits; fails at the end of the stream."""
        seen: list[Line] = []
        while (line := self._lines.get(timeout=SECONDS)) is not None:
            if fits(line):
                return line
            seen.append(line)
        raise AssertionError("\n".join(seen))


class Process:
    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runner.cli", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.out, self.err = Lines(self.process.stdout), Lines(self.process.stderr)

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(SECONDS)


@contextmanager
def running(folder: Path, *arguments: str, **environment: str) -> Iterator[Process]:
    process = Process(folder, *arguments, **environment)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.process.kill()
        process.process.wait(SECONDS)
        assert process.process.stdout is not None
        assert process.process.stderr is not None
        process.process.stdout.close()
        process.process.stderr.close()


def says(message: str) -> Callable[[Line], bool]:
    return lambda line: line.startswith("{") and json.loads(line)["message"] == message


# -- worker ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_does_the_steps_and_ends_well_when_it_is_told(shell: Shell, tmp_path: Path, number: int) -> None:
    shell.run("start", "Calls", "--id", "c-1")
    with running(tmp_path, "worker", SHOP, "--store", shell.store, "--concurrency", "3") as worker:
        line = json.loads(worker.err.until(says("working")))
        assert (line["level"], line["concurrency"], line["pid"]) == ("info", 3, worker.process.pid)
        assert "Calls" in line["workflows"]
        assert shell.json("show", "Calls/c-1", "--wait", str(SECONDS))["output"] == "all rung"
        assert worker.stop(number) == 0
        assert worker.err.until(says("draining: running steps may end"))
        assert worker.err.until(says("stopped"))


def test_settings_of_a_worker_that_cannot_be_end_it_with_2(tmp_path: Path) -> None:
    with running(tmp_path, "worker", "nowhere", ASYNCFLOW_LEASE="soon") as worker:
        assert worker.process.wait(SECONDS) == 2
        assert worker.err.until(lambda line: line.startswith("error: ASYNCFLOW_LEASE: expected a duration"))


def test_errors_of_a_worker_are_json_where_that_is_asked_for(tmp_path: Path) -> None:
    with running(tmp_path, "worker", "nowhere", "--json") as worker:
        assert worker.process.wait(SECONDS) == 2
        assert json.loads(worker.err.until(lambda _: True))["error"]["type"] == "TargetError"


# -- watch -------------------------------------------------------------------------------------------------------------


def test_a_list_under_watch_tells_what_changes_until_it_is_interrupted(shell: Shell, tmp_path: Path) -> None:
    shell.run("start", "Parcel", '{"customer": "ann"}', "--id", "p-1")
    with running(tmp_path, "list", "--watch", "--json", *shell.way, "--app", SHOP) as watch:

        def next_one() -> Any:
            one = json.loads(watch.out.until(lambda _: True))
            return one["id"], one["status"]

        assert next_one() == ("p-1", "Running")
        shell.run("start", "Visit", "1", "--id", "v-1")
        assert next_one() == ("v-1", "Finished")
        shell.run("kill", "Parcel/p-1")
        assert next_one() == ("p-1", "Cancelled")
        assert watch.stop(signal.SIGINT) == 0


def test_a_list_under_watch_tells_what_is_no_longer_listed(shell: Shell, tmp_path: Path) -> None:
    shell.run("start", "Parcel", '{"customer": "ann"}', "--id", "p-1")
    with running(tmp_path, "list", "--watch", "--status", "Running", *shell.way, "--app", SHOP) as watch:
        assert watch.out.until(lambda _: True).startswith("Parcel/p-1 Running open/counter")
        shell.run("kill", "Parcel/p-1")
        assert watch.out.until(lambda _: True) == "Parcel/p-1 is no longer listed"


def test_a_list_under_watch_waits_for_a_server_that_comes_back(shell: Shell, tmp_path: Path) -> None:
    shell.run("start", "Parcel", '{"customer": "ann"}', "--id", "p-1")
    with running(tmp_path, "serve", SHOP, "--store", shell.store, "--port", "0") as server:
        url = address(server)
        with running(tmp_path, "list", "--watch", "--json", "--url", url) as watch:
            assert json.loads(watch.out.until(lambda _: True))["status"] == "Running"
            assert server.stop() == 0
            assert "looking again until somebody answers" in watch.err.until(lambda line: "warning" in line)
            shell.run("kill", "Parcel/p-1")
            with running(tmp_path, "serve", SHOP, "--store", shell.store, "--port", url.rpartition(":")[2]) as again:
                assert json.loads(watch.out.until(lambda _: True))["status"] == "Cancelled"
                assert watch.stop(signal.SIGINT) == 0
                assert again.stop() == 0


def test_a_port_that_is_taken_is_not_said_to_be_served(shell: Shell, tmp_path: Path) -> None:
    with running(tmp_path, "serve", SHOP, "--store", shell.store, "--port", "0") as server:
        port = address(server).rpartition(":")[2]
        with running(tmp_path, "serve", SHOP, "--store", shell.store, "--port", port) as second:
            assert second.process.wait(SECONDS) == 5
            first = second.err.until(lambda line: '"message":"serving"' in line or port in line)
            assert "serving" not in first, first


# -- serve and dev -----------------------------------------------------------------------------------------------------


def test_a_server_answers_commands_and_does_the_steps(shell: Shell, tmp_path: Path) -> None:
    with running(tmp_path, "serve", SHOP, "--store", shell.store, "--port", "0") as server:
        away = Shell("", ("--url", address(server)))
        away.run("start", "Calls", "--id", "c-1")
        assert away.json("show", "Calls/c-1", "--wait", str(SECONDS))["output"] == "all rung"
        assert server.stop() == 0


def test_a_server_without_a_worker_leaves_the_steps(shell: Shell, tmp_path: Path) -> None:
    with running(tmp_path, "serve", SHOP, "--store", shell.store, "--port", "0", "--no-worker") as server:
        away = Shell("", ("--url", address(server)))
        away.run("start", "Calls", "--id", "c-1")
        away.run("show", "Calls/c-1", "--wait", "1", code=4)
        shell.work()
        assert away.json("show", "Calls/c-1", "--wait", str(SECONDS))["status"] == "Finished"
        assert server.stop() == 0


def test_a_server_elsewhere_than_on_loopback_is_refused(shell: Shell, tmp_path: Path) -> None:
    with running(tmp_path, "serve", SHOP, "--store", shell.store, "--host", "0.0.0.0", "--port", "0") as server:
        assert server.process.wait(SECONDS) == 2
        assert server.err.until(lambda line: "--insecure" in line)


def test_dev_serves_the_source_as_it_is_now(tmp_path: Path) -> None:
    write(tmp_path / "flows.py", SOURCE.format(name="Order", value=1))
    with running(tmp_path, "dev", "flows.py", "--port", "0") as dev:
        away = Shell("", ("--url", address(dev)))
        assert away.json("start", "Order")["output"] == 1

        write(tmp_path / "flows.py", "this is no Python")
        assert "flows.py changed: starting anew" in dev.err.until(lambda line: "changed" in line)
        assert dev.err.until(lambda line: "flows.py cannot be imported: SyntaxError" in line)
        assert dev.err.until(lambda line: "the server has ended (exit code 2): waiting for a change" in line)

        write(tmp_path / "flows.py", SOURCE.format(name="Order", value=2))
        away = Shell("", ("--url", address(dev)))
        assert away.json("start", "Order")["output"] == 2
        assert dev.stop(signal.SIGINT) == 0


def address(server: Process) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+", server.err.until(lambda line: "http://127.0.0.1:" in line))
    assert found is not None
    return found.group()


def test_dev_without_a_target_is_wrong_use(tmp_path: Path) -> None:
    with running(tmp_path, "dev") as dev:
        assert dev.process.wait(SECONDS) == 2
        assert dev.err.until(lambda line: "expected a TARGET" in line)


# -- the program -------------------------------------------------------------------------------------------------------


def test_a_runner_of_the_users_own_is_told(tmp_path: Path) -> None:
    write(tmp_path / "runner.py", "")
    with running(tmp_path, "settings", "--json") as command:
        assert command.process.wait(SECONDS) == 0
        assert command.err.until(lambda line: f"{tmp_path}/runner.py has the name of asyncflow's package" in line)
        assert json.loads(command.out.until(lambda _: True))["port"]["value"] == 8080


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' -P -m runner.cli --help | true"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert "Traceback" not in done.stderr


def test_commands_do_not_import_what_they_do_not_need(tmp_path: Path) -> None:
    code = "import sys, runner.cli; runner.cli.cli(['settings'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "runner.settings" in loaded
    assert not {"flask", "granian", "watchfiles", "apsw", "runner.client"} & loaded
