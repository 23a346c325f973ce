"""`start`, `send`, `query`, `show`, `list`, `history`, `docs`: on a store and to a server alike."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from asyncflow import docs
from runner.stores import open_store
from runner.stores.base import Saved, Write
from tests.cli import shop
from tests.cli.conftest import Shell

ANN = '{"customer": "ann"}'


# -- start -------------------------------------------------------------------------------------------------------------


def test_a_start_prints_the_name(either: Shell) -> None:
    assert either.run("start", "Parcel", ANN, "--id", "p-1").stdout == "Parcel/p-1\n"
    made = either.run("start", "Parcel", ANN).stdout.strip()
    assert made.startswith("Parcel/")
    assert either.json("show", made)["state"]["customer"] == "ann"


def test_a_start_as_json_is_the_instance(either: Shell) -> None:
    found = either.json("start", "Parcel", ANN, "--id", "p-1")
    assert found == either.json("show", "Parcel/p-1")
    plain = ("workflow", "id", "status", "output", "error", "labels", "control")
    assert [found[name] for name in plain] == ["Parcel", "p-1", "Running", None, None, {"customer": "ann"}, None]
    assert [(one["id"], one["status"], one["position"]) for one in found["threads"]] == [("main", "Waiting", "open/counter")]
    assert sorted((one["event"], one["role"]) for one in found["awaits"]) == [("close", ["clerk"]), ("pack", None)]


def test_a_start_with_a_key_is_done_once(either: Shell) -> None:
    first = either.json("start", "Parcel", ANN, "--key", "k")["id"]
    assert either.json("start", "Parcel", ANN, "--key", "k")["id"] == first
    assert either.error("start", "Parcel", '{"customer": "ben"}', "--key", "k", code=1)["type"] == "KeyReused"


@pytest.mark.parametrize("body, code, kind", [
    ((), 1, "InvalidInput"), (("{}",), 1, "InvalidInput"), (('{"customer": 3}',), 1, "InvalidInput"),
    (('{"customer": "ann", "closed": true}',), 1, "InvalidInput"),
])  # fmt: skip
def test_a_start_that_does_not_fit_is_refused(either: Shell, body: tuple[str, ...], code: int, kind: str) -> None:
    error = either.error("start", "Parcel", *body, code=code)
    assert error["type"] == kind
    assert error["details"]["errors"]
    assert either.json("list")["instances"] == []


def test_an_id_that_is_taken_is_refused(either: Shell) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    assert either.error("start", "Parcel", ANN, "--id", "p-1", code=1)["type"] == "AlreadyExists"


@pytest.mark.parametrize("id_", ["a/b", "docs", "", "x" * 129])
def test_an_id_that_cannot_be_one_is_wrong_use(either: Shell, id_: str) -> None:
    assert either.error("start", "Parcel", ANN, "--id", id_, code=2)["type"] == "Malformed"


def test_a_start_of_its_own_may_refuse(either: Shell) -> None:
    assert either.json("start", "Visit", "3")["output"] == 3
    result = either("start", "Visit", "--json", *either.way, "--", "-1", code=1)
    error = json.loads(result.stderr)["error"]
    assert (error["type"], error["message"], error["code"]) == ("Rejected", "nobody comes", 409)
    assert either.error("start", "Visit", '"many"', code=1)["type"] == "InvalidInput"


def test_a_negative_number_is_not_taken_for_an_option_without_a_word(shell: Shell) -> None:
    result = shell.run("start", "Visit", "-1", code=2)
    assert "A negative number goes behind two strokes and the options: … -- -1" in result.stderr


def test_a_start_without_fields_takes_nothing(either: Shell) -> None:
    either.run("start", "Calls", "--id", "c-1")
    either.run("start", "Calls", "null", "--id", "c-2")
    assert either.error("start", "Calls", "3", code=1)["type"] == "InvalidInput"


def test_an_unknown_workflow_is_told_with_the_known_ones(either: Shell) -> None:
    error = either.error("start", "Parcle", ANN, code=3)
    assert error["type"] == "NotFound"
    for name in ("Parcel", "Visit", "Calls", "Slow", "Bad"):
        assert name in error["message"]


# -- waiting for the end -----------------------------------------------------------------------------------------------


def test_a_start_may_wait_for_the_output(either: Shell) -> None:
    assert either.run("start", "Visit", "4", "--wait", "10").stdout == "4\n"
    assert either.json("start", "Visit", "4", "--wait", "10")["output"] == 4


def test_a_wait_hears_of_an_end_that_another_process_brings(either: Shell) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    other = Shell(either.store, ("--store", either.store, "--app", "tests.cli.shop"))
    killer = threading.Timer(0.3, lambda: other.run("kill", "Parcel/p-1"))
    killer.start()
    result = either.run("show", "Parcel/p-1", "--wait", "30", code=1)
    killer.join()
    assert "error: Parcel/p-1 was cancelled" in result.stderr
    assert "Parcel/p-1  Cancelled" in result.stdout


def test_a_bad_end_is_an_error(either: Shell) -> None:
    either.run("start", "Bad", "--id", "b-1")
    either.work()
    result = either.run("show", "Bad/b-1", "--wait", "5", "--json", code=1)
    assert json.loads(result.stdout)["status"] == "Failed"
    assert json.loads(result.stderr)["error"]["message"] == "Bad/b-1 has failed: RuntimeError: it cannot be"
    either.run("show", "Bad/b-1")


def test_a_wait_that_is_over_leaves_the_instance_pending(either: Shell) -> None:
    result = either.run("start", "Parcel", ANN, "--id", "p-1", "--wait", "0.2", code=4)
    assert result.stdout == ""
    assert "started Parcel/p-1" in result.stderr
    assert "Parcel/p-1 has not ended within 0.2 s; it is Running" in result.stderr


# -- send and query ----------------------------------------------------------------------------------------------------


def test_an_event_gives_its_answer(either: Shell) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    assert either.json("send", "Parcel/p-1", "pack", '{"name": "book"}') == [{"name": "book", "count": 1}]
    assert either.run("send", "Parcel/p-1", "close").stdout == "null\n"
    assert either.json("query", "Parcel/p-1", "count") == 1


def test_an_event_with_a_key_is_handled_once(either: Shell) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    for _ in range(2):
        assert either.json("send", "Parcel/p-1", "pack", '{"name": "book"}', "--key", "k") == [{"name": "book", "count": 1}]
    error = either.error("send", "Parcel/p-1", "pack", '{"name": "pen"}', "--key", "k", code=1)
    assert error["type"] == "KeyReused"


@pytest.mark.parametrize("arguments, code, kind", [
    (("Parcel/p-1", "pack", '{"name": "cat"}'), 1, "Rejected"),
    (("Parcel/p-1", "pack", '{"name": "book", "count": 0}'), 1, "InvalidInput"),
    (("Parcel/p-1", "pack"), 1, "InvalidInput"),
    (("Parcel/p-1", "sign"), 1, "NotAwaited"),
    (("Parcel/p-1", "open"), 3, "NotFound"),
    (("Parcel/p-2", "pack", "{}"), 3, "NotFound"),
    (("Postcard/p-1", "pack", "{}"), 3, "NotFound"),
    (("Visit/v-1", "pack", "{}"), 1, "Ended"),
    (("Parcel/a b", "pack", "{}"), 2, "Malformed"),
])  # fmt: skip
def test_a_refusal_has_its_class_and_its_code(either: Shell, arguments: tuple[str, ...], code: int, kind: str) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    either.run("start", "Visit", "1", "--id", "v-1")
    before = either.json("show", "Parcel/p-1")
    result = either.run("send", *arguments, "--json", code=code)
    assert result.stdout == ""
    error = json.loads(result.stderr)["error"]
    assert error["type"] == kind
    assert either.json("show", "Parcel/p-1") == before
    if kind == "Rejected":
        assert (error["message"], error["details"]) == ("no living things", {"law": 7})
    if kind == "NotAwaited":
        assert sorted((one["event"], one["role"]) for one in error["awaits"]) == [("close", ["clerk"]), ("pack", None)]


def test_an_event_that_lies_is_pending_and_its_key_gets_the_answer(either: Shell) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    result = either.run("send", "Parcel/p-1", "remark", '"fragile"', "--timeout", "0", "--json", code=4)
    key = json.loads(result.stdout)["idempotency_key"]
    assert json.loads(result.stderr)["error"]["type"] == "Pending"
    either.run("send", "Parcel/p-1", "close")
    either.work()
    either.run("send", "Parcel/p-1", "sign")
    assert either.json("send", "Parcel/p-1", "remark", '"fragile"', "--key", key) == "FRAGILE"


def test_a_pending_event_tells_people_what_to_do(either: Shell) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    result = either.run("send", "Parcel/p-1", "remark", '"fragile"', "--timeout", "0", "--key", "mine", code=4)
    assert result.stdout == ""
    assert "  ask again with --key mine\n" in result.stderr


def test_the_caller_is_recorded(either: Shell) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    either.run("send", "Parcel/p-1", "close", "--caller", "clara")
    assert [one.get("caller") for one in either.json("history", "Parcel/p-1")["entries"]] == [None, "clara"]


def test_an_event_may_be_addressed_to_a_thread(either: Shell) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    assert either.error("send", "Parcel/p-1", "close", "--thread", "other", code=1)["type"] == "NotAwaited"
    either.run("send", "Parcel/p-1", "close", "--thread", "main")


@pytest.mark.parametrize("query, code, kind", [("weight", 3, "NotFound"), ("heaviest", 1, "HandlerFailed")])
def test_a_query_that_is_not_there_or_fails(either: Shell, query: str, code: int, kind: str) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    error = either.error("query", "Parcel/p-1", query, code=code)
    assert error["type"] == kind
    assert "count" in error["message"] or kind != "NotFound"


# -- show, list, history -----------------------------------------------------------------------------------------------


def test_show_draws_the_tree_with_its_threads(either: Shell) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    shown = either.run("show", "Parcel/p-1").stdout
    lines = [line.strip("│├└─ ") for line in shown.splitlines()]
    assert "Select counter  ◀ main: Waiting" in lines
    assert "Step send_off" in lines
    assert ["close", "main", "clerk"] in [line.split() for line in lines]
    assert ["pack", "main", "anybody", "{name,", "count}"] in [line.split() for line in lines]
    assert '"customer": "ann",' in lines


def test_timers_of_a_store_count_down(shell: Shell) -> None:
    shell.run("start", "Parcel", ANN, "--id", "p-1")
    shown = shell.run("show", "Parcel/p-1").stdout
    assert any("After  in 1h 59m" in line for line in shown.splitlines())
    assert any(line.split()[:5] == ["in", "1h", "59m", "open/counter/after", "main"] for line in shown.splitlines())


def test_show_tells_the_error_of_a_parked_thread(either: Shell, broken: Callable[[], None]) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    either.run("send", "Parcel/p-1", "close")
    either.work()
    shown = either.run("show", "Parcel/p-1").stdout
    assert "Parcel/p-1  Paused" in shown
    assert "Step send_off  ◀ main: Paused, attempt 1, RuntimeError" in shown
    assert "thread main at send_off, attempt 1" in shown
    assert "  RuntimeError: the van has broken down\n" in shown
    listed = either.run("list").stdout
    assert "send_off; RuntimeError: the van has broken down" in listed


def test_what_is_not_there_is_not_found(either: Shell) -> None:
    for command in (
        ("show", "Parcel/p-1"),
        ("history", "Parcel/p-1"),
        ("query", "Parcel/p-1", "count"),
        ("show", "X/p-1"),
    ):
        assert either.error(*command, code=3)["type"] == "NotFound"


def test_a_list_is_newest_first_and_can_be_chosen_from(either: Shell) -> None:
    for number in (1, 2, 3):
        either.run("start", "Parcel", f'{{"customer": "c{number}"}}', "--id", f"p-{number}")
    either.run("start", "Visit", "1", "--id", "v-1")

    def ids(*arguments: str) -> list[str]:
        return [one["id"] for one in either.json("list", *arguments)["instances"]]

    assert ids() == ids("-") == ["v-1", "p-3", "p-2", "p-1"]
    assert ids("Parcel") == ["p-3", "p-2", "p-1"]
    assert ids("--status", "finished") == ["v-1"]
    assert ids("Parcel", "--filter", "labels.customer = c2") == ["p-2"]
    assert ids("Parcel", "--limit", "2") == ["p-3", "p-2"]
    token = either.json("list", "Parcel", "--limit", "2")["next_page_token"]
    assert ids("Parcel", "--page-token", token) == ["p-1"]
    line = either.json("list", "Visit")["instances"][0]
    assert "state" not in line
    assert "awaits" not in line
    assert {**line, "state": None, "awaits": None}.keys() == either.json("show", "Visit/v-1").keys()
    assert line["output"] == 1


def test_a_list_for_people(either: Shell) -> None:
    assert either.run("list").stdout == "no instances\n"
    either.run("start", "Parcel", ANN, "--id", "p-1")
    either.run("start", "Parcel", ANN, "--id", "p-2")
    result = either.run("list", "--limit", "1")
    assert [line.split()[:3] for line in result.stdout.splitlines()] == [
        ["instance", "status", "where"],
        ["Parcel/p-2", "Running", "open/counter"],
    ]
    assert "there are more: say --limit, or --page-token " in result.stderr


def test_nothing_is_cut_where_there_is_no_terminal(either: Shell) -> None:
    either.run("start", "Parcel", '{"customer": "ann"}', "--id", "p-1")
    long = "x" * 200
    either.run("send", "Parcel/p-1", "pack", json.dumps({"name": long}))
    assert long in either.run("history", "Parcel/p-1").stdout


def test_a_pause_of_an_operator_is_told_from_a_parked_thread(either: Shell) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    either.run("pause", "Parcel/p-1")
    assert "open/counter; pause asked for" in either.run("list").stdout


def test_a_handler_that_fails_says_on_a_store_why(shell: Shell) -> None:
    shell.run("start", "Parcel", ANN, "--id", "p-1")
    error = shell.run("query", "Parcel/p-1", "heaviest", code=1).stderr
    assert error == "error: the query 'heaviest' of Parcel/p-1 failed: IndexError: list index out of range\n"
    assert shell.error("query", "Parcel/p-1", "heaviest", code=1)["cause"] == "IndexError: list index out of range"


@pytest.mark.parametrize(
    "arguments",
    [("--filter", "colour = red"), ("--filter", "status ="), ("--filter", "labels.custmer = ann"), ("--page-token", "x")],
)
def test_a_question_that_cannot_be_read_is_wrong_use(either: Shell, arguments: tuple[str, ...]) -> None:
    assert either.error("list", *arguments, code=2)["type"] == "Malformed"


def test_a_list_of_an_unknown_workflow_is_not_found(either: Shell) -> None:
    assert either.error("list", "Postcard", code=3)["type"] == "NotFound"


def test_the_history_is_oldest_first_and_can_be_cut(either: Shell) -> None:
    either.run("start", "Parcel", ANN, "--id", "p-1")
    for name in ("a", "b", "c"):
        either.run("send", "Parcel/p-1", "pack", json.dumps({"name": name}))
    entries = either.json("history", "Parcel/p-1")["entries"]
    assert [one["kind"] for one in entries] == ["started", "event", "event", "event"]
    assert [one["n"] for one in entries] == [1, 2, 3, 4]
    page = either.json("history", "Parcel/p-1", "--limit", "2")
    assert page["entries"] == entries[:2]
    assert either.json("history", "Parcel/p-1", "--page-token", page["next_page_token"])["entries"] == entries[2:]
    shown = either.run("history", "Parcel/p-1").stdout.splitlines()
    assert shown[0].split() == ["n", "at", "what", "thread", "where"]
    assert shown[2].split()[2:5] == ["event", "main", "open/counter/pack"]


def test_lists_and_histories_of_a_store_need_no_code(shell: Shell) -> None:
    shell.run("start", "Parcel", ANN, "--id", "p-1")
    bare = Shell(shell.store, ("--store", shell.store))
    assert bare.json("list")["instances"][0]["threads"][0]["position"] == "open/counter"
    assert len(bare.json("history", "Parcel/p-1")["entries"]) == 1
    assert "needs the code" in bare.run("show", "Parcel/p-1", code=2).stderr
    without = Shell(shell.store, ("--store", shell.store, "--app", "nowhere"))
    result = without.run("list")
    assert "warning: going on without the code, which cannot be used: there is no module 'nowhere'" in result.stderr
    assert "Parcel/p-1" in result.stdout


def test_what_this_code_cannot_read_is_shown_as_far_as_it_goes(shell: Shell) -> None:
    shell.run("start", "Parcel", ANN, "--id", "p-1")
    store = open_store(shell.store)
    stored = store.get("Parcel", "p-1")
    assert stored is not None
    newer = json.dumps({**json.loads(stored.record.document), "version": 99}).encode()
    write = Write(replace(stored.record, document=newer), stored.revision)
    assert isinstance(store.commit([write])[0], Saved)
    store.close()
    for found in (shell.json("show", "Parcel/p-1"), shell.json("list")["instances"][0]):
        assert (found["status"], found["pc"], found["error"]["type"]) == ("Running", None, "Unavailable")
    assert shell.json("show", "Parcel/p-1")["state"]["customer"] == "ann"
    assert "Unavailable" in shell.run("show", "Parcel/p-1").stdout
    assert shell.error("send", "Parcel/p-1", "close", code=5)["type"] == "Unavailable"


def test_a_store_that_was_not_there_is_remarked(shell: Shell, tmp_path: Path) -> None:
    assert "warning" not in shell.run("start", "Visit", "1").stderr
    result = shell("list", "--store", "sqlite:///typo.db")
    assert f"warning: there is no store at {tmp_path}/typo.db: say by --store where it is" in result.stderr
    assert result.stdout == "no instances\n"
    assert "there is no Parcel/p-1" in shell("show", "Parcel/p-1", "--store", "sqlite:///typo.db", *shell.way[2:], code=3).stderr
    assert not (tmp_path / "typo.db").exists(), "to look is not to make"
    result = shell("start", "Visit", "1", "--store", "memory://", "--app", "tests.cli.shop")
    assert "warning: a store in memory ends with this command" in result.stderr


# -- docs --------------------------------------------------------------------------------------------------------------


def test_docs_are_those_of_the_workflow(either: Shell) -> None:
    assert either.json("docs", "Parcel") == json.loads(json.dumps(docs(shop.Parcel)))
    assert {one["name"] for one in either.json("docs")["workflows"]} == {"Parcel", "Visit", "Calls", "Slow", "Bad"}


def test_docs_need_no_store(shell: Shell, tmp_path: Path) -> None:
    result = shell("docs", "Parcel", "--app", "tests.cli.shop")
    assert result.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_docs_for_people(either: Shell) -> None:
    listed = either.run("docs").stdout.splitlines()
    assert any(line.split(None, 1) == ["Parcel", "A parcel, from the counter to the door."] for line in listed)
    shown = either.run("docs", "Parcel").stdout
    assert "It is sent off by a van." in shown
    assert "start   {customer}" in shown
    assert "output  integer or null" in shown
    assert ["close", "clerk", "open/counter"] in [line.split() for line in shown.splitlines()]
    assert any(line.split(None, 2) == ["count", "integer", "How many things are in it."] for line in shown.splitlines())
