"""The operators' words: one by one, and to all that match; on a store and to a server alike."""

import json
from collections.abc import Callable, Iterator

import pytest

from runner import Runner
from runner.commands.output import Output
from tests.cli import shop
from tests.cli.conftest import WORKFLOWS, Shell

ANN = '{"customer": "ann"}'


def parked(shell: Shell, *ids: str) -> None:
    for id_ in ids:
        shell.run("start", "Parcel", ANN, "--id", id_)
        shell.run("send", f"Parcel/{id_}", "close")
    shell.work()


@pytest.fixture
def held(either: Shell) -> Iterator[Shell]:
    """`Slow/s-1` is in the middle of its plain step."""
    shop.GATE.clear()
    shop.REACHED.clear()
    either.run("start", "Slow", "--id", "s-1")
    with Runner(WORKFLOWS, store=either.store) as runner:
        try:
            assert shop.REACHED.wait(10)
            yield either
        finally:
            shop.GATE.set()
            assert runner.wait_idle()


# -- one ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["cancel", "kill"])
def test_it_ends_and_a_second_time_does_nothing(either: Shell, verb: str) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    assert either.run(verb, "Parcel/p-1").stdout == "Parcel/p-1 Cancelled\n"
    assert either.json(verb, "Parcel/p-1")["status"] == "Cancelled"


def test_a_pause_and_its_end(either: Shell) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    paused = either.json("pause", "Parcel/p-1")
    assert paused["status"] == "Paused"
    assert "since" in paused["control"]["pause"]
    assert "pause asked for" in either.run("show", "Parcel/p-1").stdout
    assert either.run("resume", "Parcel/p-1").stdout == "Parcel/p-1 Running\n"


def test_retry_takes_every_parked_thread_in_one_message(either: Shell, broken: Callable[[], None]) -> None:
    either.run("start", "Calls", "--id", "c-1")
    either.work()
    assert [one["status"] for one in either.json("show", "Calls/c-1")["threads"]] == ["Waiting", "Paused", "Paused"]
    broken()
    assert either.run("retry", "Calls/c-1").stdout == "Calls/c-1 Running\n"
    said = [one for one in either.json("history", "Calls/c-1")["entries"] if one["kind"] == "operator"]
    assert [one["event"] for one in said] == ["retry"]
    either.work()
    assert either.json("show", "Calls/c-1")["output"] == "all rung"


def test_retry_of_one_thread_leaves_the_others(either: Shell, broken: Callable[[], None]) -> None:
    either.run("start", "Calls", "--id", "c-1")
    either.work()
    after = either.json("retry", "Calls/c-1", "--thread", "calls/c2")
    assert {one["id"]: one["status"] for one in after["threads"]} == {
        "main": "Waiting", "calls/c1": "Paused", "calls/c2": "Executing",
    }  # fmt: skip


def test_skip_goes_on_with_the_value_in_every_parked_thread(either: Shell, broken: Callable[[], None]) -> None:
    either.run("start", "Calls", "--id", "c-1")
    either.work()
    skipped = either.json("skip", "Calls/c-1", "--value", "true")
    assert skipped["status"] == "Finished"
    assert skipped["state"]["calls"] == {"c1": {"done": True}, "c2": {"done": True}}


def test_a_value_that_does_not_fit_is_refused(either: Shell, broken: Callable[[], None]) -> None:
    either.run("start", "Calls", "--id", "c-1")
    either.work()
    assert either.error("skip", "Calls/c-1", "--value", '"perhaps"', code=1)["type"] == "InvalidInput"
    assert either.json("show", "Calls/c-1")["status"] == "Paused"


@pytest.mark.parametrize("verb", ["retry", "skip"])
def test_a_word_that_does_not_fit_is_refused(either: Shell, verb: str) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    assert either.error(verb, "Parcel/p-1", code=1)["type"] == "NotApplicable"
    assert either.error(verb, "Parcel/p-1", "--thread", "main", code=1)["type"] == "NotApplicable"


@pytest.mark.parametrize("verb", ["pause", "resume", "retry", "skip"])
def test_a_word_to_what_has_ended_is_refused(either: Shell, verb: str) -> None:
    either.run("start", "Visit", "1", "--id", "v-1")
    assert either.error(verb, "Visit/v-1", code=1)["type"] == "Ended"


@pytest.mark.parametrize("verb", ["cancel", "kill", "pause", "resume", "retry", "skip", "delete"])
def test_a_word_to_what_is_not_there_is_not_found(either: Shell, verb: str) -> None:
    assert either.error(verb, "Parcel/p-1", code=3)["type"] == "NotFound"


def test_a_word_is_only_said_at_the_program_counter_it_is_for(either: Shell) -> None:
    pc = either.json("start", "Parcel", ANN, "--id", "p-1")["pc"]
    either.run("pause", "Parcel/p-1", "--if-pc", str(pc))
    error = either.error("resume", "Parcel/p-1", "--if-pc", str(pc), code=1)
    assert error["type"] == "PreconditionFailed"
    assert either.json("show", "Parcel/p-1")["status"] == "Paused"


def test_a_word_with_a_key_is_said_once(either: Shell) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    either.run("pause", "Parcel/p-1", "--key", "k")
    either.run("resume", "Parcel/p-1")
    assert either.json("pause", "Parcel/p-1", "--key", "k")["status"] == "Running"


def test_who_said_it_is_recorded(either: Shell) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    either.run("pause", "Parcel/p-1", "--caller", "olga")
    assert either.json("history", "Parcel/p-1")["entries"][-1]["caller"] == "olga"


def test_a_word_during_a_step_is_laid_down(held: Shell) -> None:
    result = held.run("pause", "Slow/s-1", code=4)
    assert result.stdout == "Slow/s-1 Paused\n"
    assert "pause is laid down: it takes effect when the step that runs now has ended" in result.stderr
    assert "pause" in held.json("show", "Slow/s-1")["control"]
    assert held.json("cancel", "Slow/s-1", code=4)["control"]["cancel"]["since"]


def test_only_what_has_ended_can_be_deleted(either: Shell) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    assert either.error("delete", "Parcel/p-1", code=1)["type"] == "NotApplicable"
    either.run("kill", "Parcel/p-1")
    assert either.run("delete", "Parcel/p-1").stdout == "Parcel/p-1 deleted\n"
    assert either.error("delete", "Parcel/p-1", code=3)["type"] == "NotFound"
    either.run("start", "Visit", "1", "--id", "v-1")
    assert either.json("delete", "Visit/v-1") == {"deleted": "Visit/v-1"}


# -- many --------------------------------------------------------------------------------------------------------------


def test_all_that_match_are_retried_with_a_summary(either: Shell, broken: Callable[[], None]) -> None:
    parked(either, "p-1", "p-2", "p-3")
    either.run("start", "Parcel", ANN, "--id", "p-4")
    broken()
    assert either.run("retry", "Parcel", "--status", "Paused").stdout == "retried 3 of 3 instances\n"
    either.work()
    assert {one["id"]: one["threads"][0]["position"] for one in either.json("list")["instances"]} == {
        "p-1": "sign", "p-2": "sign", "p-3": "sign", "p-4": "open/counter",
    }  # fmt: skip


def test_a_filter_chooses_as_well(either: Shell) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    either.run("start", "Parcel", '{"customer": "ben"}', "--id", "p-2")
    done = either.json("cancel", "Parcel", "--filter", "labels.customer = ben")
    assert done == {"matched": 1, "done": 1, "pending": 0, "refused": []}
    assert either.json("show", "Parcel/p-1")["status"] == "Running"


def test_a_dash_means_every_workflow(either: Shell) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    either.run("start", "Calls", "--id", "c-1")
    assert either.run("kill", "-", "--status", "running").stdout == "killed 2 of 2 instances\n"


def test_nothing_that_matches_is_no_fault(either: Shell) -> None:
    assert either.run("retry", "Parcel", "--status", "Paused").stdout == "retried 0 of 0 instances\n"


def test_refusals_are_counted_and_told(either: Shell, broken: Callable[[], None]) -> None:
    parked(either, "p-1")
    either.run("start", "Parcel", ANN, "--id", "p-2")
    result = either.run("skip", "Parcel", "--filter", "labels.customer = ann", code=1)
    assert result.stdout == "skipped 1 of 2 instances, 1 refused\n"
    assert result.stderr.startswith("Parcel/p-2: NotApplicable: ")
    said = either.json("skip", "Parcel", "--filter", "labels.customer = ann", code=1)
    assert (said["matched"], said["done"], len(said["refused"])) == (2, 0, 2)
    assert said["refused"][0]["error"]["type"] == "NotApplicable"


def test_words_that_are_laid_down_are_pending(held: Shell) -> None:
    result = held.run("cancel", "Slow", "--status", "Running", code=4)
    assert result.stdout == "cancelled 0 of 1 instance, 1 laid down\n"


def test_all_that_have_ended_are_deleted(either: Shell) -> None:
    for number in range(3):
        either.run("start", "Visit", "1", "--id", f"v-{number}")
    either.run("start", "Parcel", ANN, "--id", "p-1")
    assert either.run("delete", "-", "--status", "Finished", "--yes").stdout == "deleted 3 of 3 instances\n"
    assert [one["id"] for one in either.json("list")["instances"]] == ["p-1"]


def test_more_than_a_page_is_acted_on(shell: Shell) -> None:
    with Runner([shop.Visit], store=shell.store) as runner:
        for number in range(1_003):
            runner.start(shop.Visit(guests=number))
    assert shell.json("delete", "Visit", "--status", "Finished")["done"] == 1_003


@pytest.mark.parametrize("answer, left", [("y\n", "Cancelled"), ("n\n", "Running"), ("\n", "Running")])
def test_somebody_at_a_terminal_is_asked(shell: Shell, monkeypatch: pytest.MonkeyPatch, answer: str, left: str) -> None:
    monkeypatch.setattr(Output, "asks", True)  # CliRunner is no terminal
    shell.run("start", "Parcel", ANN, "--id", "p-1")
    result = shell.run("kill", "Parcel", "--status", "Running", stdin=answer, code=0 if left == "Cancelled" else 1)
    assert "kill 1 instance? [y/N]" in result.stderr
    assert shell.json("show", "Parcel/p-1")["status"] == left
    if left == "Running":
        shell.run("kill", "Parcel", "--status", "Running", "--yes", stdin="")
        assert shell.json("show", "Parcel/p-1")["status"] == "Cancelled"


@pytest.mark.parametrize("arguments, said", [
    (("Parcel",), "which ones? Name one, as Parcel/o-1, or choose all that match by --status or --filter"),
    (("Parcel/p-1", "--status", "Paused"), "expected an instance or --status/--filter, found both"),
    (("Parcel/",), "expected WORKFLOW/ID, as PizzaOrder/o-1, found 'Parcel/'"),
    (("Parcel", "--status", "Broken"), "'Broken' is not one of"),
    (("Parcel", "--status", "Paused", "--key", "k"), "--key is for one instance"),
    (("Parcel", "--status", "Paused", "--if-pc", "3"), "--if-pc is for one instance"),
])  # fmt: skip
def test_what_cannot_be_meant_is_wrong_use(shell: Shell, arguments: tuple[str, ...], said: str) -> None:
    assert said in shell.run("pause", *arguments, code=2).stderr


def test_a_store_that_goes_away_in_the_middle_ends_it(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from asyncflow import Unavailable
    from runner.stores.sqlite import SqliteStore

    for number in range(9):
        shell.run("start", "Visit", "1", "--id", f"v-{number}")
    deletes: list[str] = []

    def gone(self: SqliteStore, workflow: str, id: str, expected: object) -> bool:
        deletes.append(id)
        raise Unavailable("the disk is full")

    monkeypatch.setattr(SqliteStore, "delete", gone)
    result = shell.run("delete", "Visit", "--status", "Finished", code=5)
    assert len(deletes) == 5
    assert result.stdout == ("deleted 0 of 9 instances, 5 refused, 4 not tried: the store or the server cannot be reached\n")
    assert json.loads(shell.run("delete", "Visit", "--status", "Finished", "--json", code=5).stdout)["matched"] == 9
