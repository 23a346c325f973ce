"""Starting, reading, listing and deleting instances."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from jsonschema import Draft202012Validator
from pydantic_core import from_json

import asyncflow
from asyncflow import limits
from asyncflow.schema import definition_json
from runner import Runner
from tests.http import shop
from tests.http.asking import Asker
from tests.runner.gates import Gate

INSTANCE = {
    "workflow", "id", "status", "state", "output", "error", "threads", "awaits", "labels", "control", "pc",
    "created_at", "updated_at",
}  # fmt: skip
BASKET = "/workflows/Basket"


# -- start -------------------------------------------------------------------------------------------------------------


def test_a_start_answers_201_with_location_and_instance(client: Asker) -> None:
    response = client.post(f"{BASKET}?id=b-1", status=201)
    assert response.headers["Location"] == f"{BASKET}/b-1"
    instance = response.get_json()
    assert instance.keys() == INSTANCE
    assert response.headers["ETag"] == f'"{instance["pc"]}"'
    assert client.get(response.headers["Location"]).get_json() == instance
    assert instance["status"] == "Running"
    assert instance["labels"] == {"owner": "nobody"}
    assert instance["threads"] == [
        {"id": "main", "status": "Waiting", "position": "open/counter", "attempt": 0, "retry_at": None, "error": None}
    ]
    for name in ("created_at", "updated_at"):
        assert instance[name].endswith("Z")
        assert datetime.fromisoformat(instance[name]).utcoffset() == timedelta(0)


def test_without_an_id_each_start_is_another_instance(client: Asker) -> None:
    ids = {client.post(BASKET, status=201).get_json()["id"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize("raw", [None, b"", b"null", b"{}", b" {} "])
def test_a_workflow_without_needed_fields_takes_nothing(client: Asker, raw: bytes | None) -> None:
    client.ask("POST", BASKET, raw=raw, status=201)


@pytest.mark.parametrize("body", [{"owner": "ann"}, {"items": []}, [], 1, "x"])
def test_fields_with_a_default_are_not_for_callers(client: Asker, body: Any) -> None:
    problem = client.problem("POST", BASKET, body, status=422)
    assert problem["class"] == "InvalidInput"
    assert problem["errors"]


@pytest.mark.parametrize(
    "body, path",
    [
        (..., ""),
        (None, ""),
        ({}, ""),
        ({"name": "ann"}, ""),
        ({"name": "ann", "age": "old"}, "age"),
        ({"name": "ann", "age": 0}, "age"),
        ({"name": ["ann"], "age": 30}, "name"),
        ({"name": "ann", "age": 30, "note": "x"}, ""),
        ({"name": "ann", "age": 30, "admin": True}, ""),
        ({"name": "ann", "age": 3}, ""),
    ],
)
def test_needed_fields_are_checked(client: Asker, body: Any, path: str) -> None:
    problem = client.problem("POST", "/workflows/Form", body, status=422)
    assert problem["class"] == "InvalidInput"
    assert path in [one["path"] for one in problem["errors"]]
    assert all(one["message"] for one in problem["errors"])
    assert client.get("/workflows/Form").get_json()["instances"] == []


def test_needed_fields_make_the_object(client: Asker) -> None:
    instance = client.post("/workflows/Form", {"name": "ann", "age": 30}, 201).get_json()
    assert instance["state"] == {"name": "ann", "age": 30, "note": "none"}


def test_start_makes_the_object(client: Asker, runner: Runner) -> None:
    instance = client.post("/workflows/Visit?id=v", 3, 201, headers={"X-Asyncflow-Caller": "ann"}).get_json()
    assert instance["state"] == {"guests": 3, "stamp": "made by start"}
    assert client.problem("POST", "/workflows/Visit", "three", status=422)["class"] == "InvalidInput"
    started = client.get("/workflows/Visit/v/history").get_json()["entries"][0]
    assert (started["kind"], started["caller"], started["input"]) == ("started", "ann", 3)


@pytest.mark.parametrize("guests, status, cls", [(-1, 418, "Rejected"), (13, 500, "HandlerFailed"), (14, 500, "HandlerFailed")])
def test_start_may_refuse(client: Asker, guests: int, status: int, cls: str, caplog: pytest.LogCaptureFixture) -> None:
    problem = client.problem("POST", "/workflows/Visit", guests, status=status)
    assert problem["class"] == cls
    assert "4711" not in str(problem)
    assert ("4711" in caplog.text) == (guests == 13), "the cause is kept for the log"
    assert client.get("/workflows/Visit").get_json()["instances"] == []


def test_an_id_is_taken_once(client: Asker) -> None:
    client.start("Basket", "b-1")
    assert client.problem("POST", f"{BASKET}?id=b-1", status=409)["class"] == "AlreadyExists"


@pytest.mark.parametrize("id", ["docs", "definition", "graph", "", "a b", "x" * 129, "ä", "-%00"])
def test_what_can_be_no_id_starts_nothing(client: Asker, id: str) -> None:
    assert client.problem("POST", f"{BASKET}?id={id}", status=400)["class"] == "Malformed"


def test_the_same_start_with_the_same_key_is_the_first_one(client: Asker, runner: Runner) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = client.post("/workflows/Visit", 3, 201, headers=key)
    client.post(f"{first.headers['Location']}:pause", {})
    second = client.post("/workflows/Visit", 3, 201, headers=key)
    assert second.headers["Location"] == first.headers["Location"]
    assert second.get_json()["status"] == "Paused", "as it is now"
    assert client.problem("POST", "/workflows/Visit", 4, status=422, headers=key)["class"] == "KeyReused"
    assert len(client.get("/workflows/Visit").get_json()["instances"]) == 1
    named = client.post("/workflows/Visit?id=v", 3, 201, headers=key)
    assert client.post("/workflows/Visit?id=v", 3, 201, headers=key).headers["Location"] == named.headers["Location"]
    assert client.problem("POST", "/workflows/Visit?id=v", 5, status=422, headers=key)["class"] == "KeyReused"
    assert client.problem("POST", "/workflows/Visit?id=v", 3, status=409)["class"] == "AlreadyExists"


def test_a_repeated_start_asks_start_no_more(client: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = client.post("/workflows/Visit", 3, 201, headers=key)
    monkeypatch.setattr(shop.Visit, "start", None)
    assert client.post("/workflows/Visit", 3, 201, headers=key).headers["Location"] == first.headers["Location"]


# -- one instance ------------------------------------------------------------------------------------------------------


def test_an_etag_saves_the_answer_until_something_changes(client: Asker) -> None:
    path = client.start("Basket", "b-1")
    tag = client.get(path).headers["ETag"]
    for header in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        unchanged = client.get(path, 304, headers={"If-None-Match": header})
        assert unchanged.headers["ETag"] == tag
        assert unchanged.data == b""
    client.post(f"{path}/events/put", {"name": "tea"})
    changed = client.get(path, 200, headers={"If-None-Match": tag})
    assert changed.headers["ETag"] != tag


def test_what_is_awaited_says_where_to_send_it(client: Asker) -> None:
    awaited = client.get(client.start("Calls", "c")).get_json()["awaits"]
    assert [(one["event"], one["thread"], one["role"], one["link"]) for one in awaited] == [
        ("answer", "calls/c1", None, "/workflows/Calls/c/events/answer?thread=calls/c1"),
        ("answer", "calls/c%202%2F%23", None, "/workflows/Calls/c/events/answer?thread=calls/c%25202%252F%2523"),
    ]
    assert awaited[0]["schema"]["type"] == "string"
    assert client.post(awaited[1]["link"], "hello").get_json() == "hello"
    assert client.get("/workflows/Calls/c").get_json()["state"]["calls"]["c 2/#"]["answered"] == "hello"
    assert client.post(awaited[0]["link"], "well").get_json() == "well"
    ended = client.get("/workflows/Calls/c").get_json()
    assert (ended["status"], ended["output"], ended["awaits"], ended["threads"]) == ("Finished", "all rung", [], [])


def test_the_position_of_an_item_is_shown_in_lists_too(client: Asker) -> None:
    client.start("Calls", "c")
    threads = client.get("/workflows/Calls").get_json()["instances"][0]["threads"]
    assert [(one["id"], one["position"]) for one in threads] == [
        ("main", "calls"), ("calls/c1", "calls/answer"), ("calls/c%202%2F%23", "calls/answer"),
    ]  # fmt: skip
    assert threads == client.get("/workflows/Calls/c").get_json()["threads"]


def test_a_parked_thread_shows_its_error(open_runner: Any) -> None:
    runner = open_runner(work=True)
    client = Asker(runner.create_app().test_client())
    path = client.start("Fault", "f")
    assert runner.wait_idle()
    instance = client.get(path).get_json()
    assert instance["status"] == "Paused"
    assert instance["error"] == instance["threads"][0]["error"]
    assert instance["error"].keys() == set(asyncflow.Failure.model_fields)
    assert (instance["error"]["message"], instance["threads"][0]["position"]) == ("the oven is cold", "fail")


def test_what_this_code_cannot_read_is_shown_as_far_as_it_can_be(client: Asker, runner: Runner) -> None:
    path = client.start("Basket", "b-1")
    stored = runner.store.get("Basket", "b-1")
    assert stored is not None
    assert runner.store.park("Basket", "b-1", stored.revision, "the state does not fit")
    for shown in (client.get(path).get_json(), client.get(BASKET).get_json()["instances"][0]):
        assert shown["status"] == "Paused"
        assert (shown["error"]["type"], shown["error"]["message"]) == ("Unavailable", "the state does not fit")


# -- lists -------------------------------------------------------------------------------------------------------------


def test_lists_are_newest_first_and_say_all_but_state_and_awaits(client: Asker) -> None:
    for number in range(3):
        client.start("Basket", f"b-{number}")
    client.start("Oven", "o")
    page = client.get(BASKET).get_json()
    assert page["next_page_token"] is None
    assert [one["id"] for one in page["instances"]] == ["b-2", "b-1", "b-0"]
    whole = client.get(f"{BASKET}/b-2").get_json()
    assert page["instances"][0] == {name: value for name, value in whole.items() if name not in ("state", "awaits")}
    assert [one["id"] for one in client.get("/workflows/-").get_json()["instances"]] == ["o", "b-2", "b-1", "b-0"]


def test_pages_are_stable_while_others_are_started(client: Asker) -> None:
    for number in range(7):
        client.start("Basket", f"b-{number}")
    seen: list[str] = []
    token = ""
    while True:
        page = client.get(f"{BASKET}?page_size=3&page_token={token}").get_json()
        seen += [one["id"] for one in page["instances"]]
        client.start("Basket", f"new-{len(seen)}")
        token = page["next_page_token"]
        if token is None:
            break
    assert seen == [f"b-{number}" for number in range(6, -1, -1)]


def test_lists_are_filtered(client: Asker) -> None:
    for number in range(3):
        client.start("Basket", f"b-{number}")
    client.post(f"{BASKET}/b-1/events/put", {"name": "tea"})
    client.post(f"{BASKET}/b-2:pause", {})

    def ids(**query: str) -> list[str]:
        page = client.client.get(BASKET, query_string=query)
        assert page.status_code == 200, page.text
        return [one["id"] for one in page.get_json()["instances"]]

    assert ids(status="Paused") == ["b-2"]
    assert ids(status="Running") == ["b-1", "b-0"]
    assert ids(status="Finished") == []
    assert ids(filter='state.items.0.name = "tea"') == ["b-1"]
    assert ids(filter='labels.owner = "nobody" AND status != Paused') == ["b-1", "b-0"]
    assert ids(filter='created_at > "2100-01-01T00:00:00Z"') == []


@pytest.mark.parametrize(
    "query",
    [
        "status=Asleep",
        "page_size=0",
        "page_size=1001",
        "page_size=-1",
        "page_size=ten",
        "page_size=1e3",
        "page_token=nonsense",
        "page_token=%00",
        "filter=colour%3Dred",
        "filter=status%20OR%20x",
        "filter=created_at%20%3E%20yesterday",
        "filter=" + "x" * 3000,
    ],
)
def test_a_bad_question_is_400(client: Asker, query: str) -> None:
    assert client.problem("GET", f"{BASKET}?{query}", status=400)["class"] == "Malformed"


def test_a_page_token_belongs_to_its_question(client: Asker) -> None:
    client.start("Basket", "b-1")
    client.start("Basket", "b-2")
    token = client.get(f"{BASKET}?page_size=1").get_json()["next_page_token"]
    client.problem("GET", f"/workflows/Oven?page_size=1&page_token={token}", status=400)
    client.problem("GET", f"{BASKET}?status=Paused&page_token={token}", status=400)


# -- history, queries, descriptions ------------------------------------------------------------------------------------


def test_history_comes_in_pages(client: Asker) -> None:
    path = client.start("Basket", "b-1")
    for _ in range(5):
        client.post(f"{path}/events/put", {"name": "tea"}, headers={"X-Asyncflow-Caller": "ann"})
    entries: list[dict[str, Any]] = []
    token: str | None = ""
    while token is not None:
        page = client.get(f"{path}/history?page_size=2&page_token={token}").get_json()
        entries += page["entries"]
        token = page["next_page_token"]
    assert [one["n"] for one in entries] == list(range(1, 7))
    assert [one["kind"] for one in entries] == ["started", *["event"] * 5]
    assert {one.get("caller") for one in entries[1:]} == {"ann"}
    client.problem("GET", f"{path}/history?page_token=x", status=400)


def test_a_query_gives_its_bare_value(client: Asker) -> None:
    path = client.start("Basket", "b-1")
    client.post(f"{path}/events/put", {"name": "tea", "count": 3})
    assert client.get(f"{path}/queries/count").get_json() == 3
    problem = client.problem("GET", f"{path}/queries/price", status=404)
    assert "count" in problem["detail"]
    assert client.problem("GET", f"{path}/queries/put", status=404)["class"] == "NotFound"
    assert client.problem("GET", f"{path}/queries/refused", status=402)["class"] == "Rejected"


def test_a_query_that_fails_tells_no_secrets(client: Asker, caplog: pytest.LogCaptureFixture) -> None:
    path = client.start("Basket", "b-1")
    problem = client.problem("GET", f"{path}/queries/broken", status=500)
    assert problem["class"] == "HandlerFailed"
    assert "4711" not in str(problem)
    assert "4711" in caplog.text


def test_descriptions_are_those_of_the_code(client: Asker) -> None:
    there = client.get("/workflows").get_json()["workflows"]
    assert {one["name"]: one["description"] for one in there}["Oven"] == shop.Oven.__doc__
    assert [one["name"] for one in there] == [one.__workflow_name__ for one in shop.WORKFLOWS]
    for workflow in shop.WORKFLOWS:
        name = workflow.__workflow_name__
        assert client.get(f"/workflows/{name}/docs").get_json() == asyncflow.docs(workflow)
        assert client.get(f"/workflows/{name}/definition").get_json() == definition_json(workflow)


def test_what_is_shown_fits_the_schemas(client: Asker) -> None:
    schemas = client.get(f"{BASKET}/docs").get_json()
    path = client.start("Basket", "b-1")
    answer = client.post(f"{path}/events/pay", "7.50").get_json()
    Draft202012Validator(schemas["events"]["pay"]["output"]).validate(answer)
    instance = client.get(path).get_json()
    Draft202012Validator(schemas["state"]).validate(instance["state"])
    Draft202012Validator(schemas["queries"]["count"]["output"]).validate(client.get(f"{path}/queries/count").get_json())
    client.post(f"{path}/events/close")
    Draft202012Validator(schemas["output"]).validate(client.get(path).get_json()["output"])


# -- delete ------------------------------------------------------------------------------------------------------------


def test_only_an_ended_instance_is_deleted(client: Asker) -> None:
    path = client.start("Basket", "b-1")
    assert client.problem("DELETE", path, status=409)["class"] == "NotApplicable"
    client.post(f"{path}:kill", {})
    tag = client.get(path).headers["ETag"]
    assert client.problem("DELETE", path, status=412, headers={"If-Match": '"1"'})["class"] == "PreconditionFailed"
    deleted = client.ask("DELETE", path, status=204, headers={"If-Match": tag})
    assert deleted.data == b""
    for method, where in (("GET", path), ("DELETE", path), ("GET", f"{path}/history")):
        assert client.problem(method, where, status=404)["class"] == "NotFound"
    assert client.post(f"{BASKET}?id=b-1", status=201).get_json()["pc"] == 1, "it is another instance"


def test_a_state_passes_through_unread(client: Asker, app: Flask, gate: Gate) -> None:
    """What the store holds is what is shown, digit by digit."""
    path = client.start("Basket", "b-1")
    client.post(f"{path}/events/put", {"name": "\U0001f355 \\u0000 \"'</script>", "count": 2**53 - 1})
    state = client.get(path).get_json()["state"]
    assert state["items"] == [{"name": "\U0001f355 \\u0000 \"'</script>", "count": 2**53 - 1}]
    assert from_json(client.get(path).data)["state"] == state
    assert limits.JSON_INTEGER_MAX == 2**53 - 1
