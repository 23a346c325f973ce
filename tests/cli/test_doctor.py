"""`asyncflow doctor`: each check finds what it is for, says what to do, and the exit code serves a probe."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asyncflow.errors import Unavailable
from runner import Runner
from runner.doctor import OVERDUE, PROBE, Finding, examine
from runner.schedulers.base import Scheduler
from runner.stores.base import Failed, Key
from tests.cli import shop
from tests.cli.conftest import Shell
from tests.runner.clocks import Clock

ALL = ["store", "writes", "questions", "clock", "scheduler", "overdue", "stuck"]


class Host(Clock):
    """The time of this host, which is what the store goes by, until it is moved."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC)


@pytest.fixture
def clock() -> Clock:
    return Host()


@pytest.fixture
def runner(clock: Clock) -> Iterator[Runner]:
    runner = Runner([shop.Parcel, shop.Slow], store="memory://", clock=clock)
    yield runner
    runner.close()


def found(runner: Runner) -> dict[str, Finding]:
    findings = list(examine(runner))
    assert [one.check for one in findings] == ALL
    return {one.check: one for one in findings}


def test_all_is_well_with_a_store_of_its_own(runner: Runner) -> None:
    assert {one.verdict for one in found(runner).values()} == {"ok"}
    assert runner.store.list([PROBE]).items == (), "the record it wrote is gone"


def test_work_that_nobody_does(runner: Runner, clock: Clock) -> None:
    runner.start(shop.Slow())
    assert found(runner)["overdue"].verdict == "ok", "a worker may be on its way"
    clock.advance(OVERDUE + timedelta(seconds=1))
    overdue = found(runner)["overdue"]
    assert overdue.verdict == "wrong"
    assert "due for 1m 16s" in overdue.text
    assert "does a worker run?" in overdue.text


def test_instances_that_wait_for_an_operator(runner: Runner) -> None:
    for number in range(5):
        runner.start(shop.Parcel(customer="ann"), id=f"p-{number}").pause()
    stuck = found(runner)["stuck"]
    assert stuck.verdict == "look"
    assert "5 paused (Parcel/p-4, Parcel/p-3, Parcel/p-2, …)" in stuck.text


def test_a_clock_that_is_wrong(runner: Runner, clock: Clock) -> None:
    clock.advance(timedelta(minutes=2))
    wrong = found(runner)["clock"]
    assert wrong.verdict == "wrong"
    assert "s behind the store's" in wrong.text


class Away(Scheduler):
    """A scheduler whose queue is gone."""

    delivers = True

    def wake(self, key: Key, at: datetime) -> bool:
        return False

    def faults(self) -> list[str]:
        return ["there is no queue: make it"]

    def close(self) -> None:
        """Nothing to give back."""


class There(Away):
    """A scheduler whose queue is there."""

    def faults(self) -> list[str]:
        return []


def test_a_scheduler_that_cannot_deliver(runner: Runner) -> None:
    runner.scheduler = Away()
    assert found(runner)["scheduler"] == Finding("scheduler", "wrong", "there is no queue: make it")


def test_a_scheduler_whose_deliveries_prove_nothing(runner: Runner) -> None:
    runner.scheduler = There()
    wrong = found(runner)["scheduler"]
    assert wrong.verdict == "wrong"
    assert "set service_account or hmac_keys" in wrong.text


def test_one_check_that_fails_keeps_no_other_from_being_made(runner: Runner) -> None:
    runner.store.close()
    findings = found(runner)
    assert {name for name, one in findings.items() if one.verdict == "ok"} <= {"clock", "scheduler"}
    assert findings["store"].verdict == "wrong"


def test_a_store_that_takes_no_writes(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner.store, "commit", lambda writes: [Failed(Unavailable("the disk is full: make room")) for _ in writes])
    assert found(runner)["writes"] == Finding("writes", "wrong", "the disk is full: make room")


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/shop.db"


def test_the_command_prints_each_check_and_ends_well(shell: Shell, file: str) -> None:
    said = shell("doctor", "--app", "tests.cli.shop:Parcel", "--store", file).stdout
    assert [line.split()[1] for line in said.splitlines()[1:]] == ALL


def test_the_command_gives_json_and_exit_codes_for_probes(shell: Shell, file: str) -> None:
    with Runner([shop.Parcel], store=file) as runner:
        runner.start(shop.Parcel(customer="ann"), id="p").pause()
    way = ("--app", "tests.cli.shop:Parcel", "--store", file, "--json")
    whole = json.loads(shell("doctor", *way).stdout)
    assert whole["store"] == file
    assert [one["verdict"] for one in whole["findings"]] == ["ok"] * 6 + ["look"]
    shell("doctor", "--strict", *way, code=1)


def test_a_store_that_is_none_cannot_be_opened(shell: Shell, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"no database" * 1000)
    shell("doctor", "--app", "tests.cli.shop:Parcel", "--store", f"sqlite:///{garbage}", code=5)


def test_the_indexes_of_a_firestore_store(shell: Shell, file: str) -> None:
    said = json.loads(shell("doctor", "--indexes", "--app", "tests.cli.shop:Parcel", "--store", "firestore://p/orders").stdout)
    fields = [[one["fieldPath"] for one in index["fields"]] for index in said["indexes"]]
    assert ["due_shard", "due_at"] in fields
    assert ["workflow", "labels.customer", "created_at"] in fields
    assert {index["collectionGroup"] for index in said["indexes"]} == {"orders"}
    refused = shell("doctor", "--indexes", "--app", "tests.cli.shop:Parcel", "--store", file, code=2)
    assert "only a store firestore://" in refused.stderr
