"""The operators' words over HTTP: 200 with the instance when applied, 202 while held, 409 where they do not fit."""

from typing import Any

import pytest

from asyncflow import On as Case
from asyncflow import Return, S, Section, Select, Workflow, event
from runner import Runner
from runner.http.workflows import VERBS
from tests.http.asking import Asker
from tests.http.conftest import Open
from tests.runner.gates import Gate


@pytest.fixture
def path(client: Asker) -> str:
    return client.start("Basket", "b-1")


@pytest.fixture
def working(open_runner: Open) -> tuple[Runner, Asker]:
    runner = open_runner(work=True)
    return runner, Asker(runner.create_app().test_client())


def test_a_pause_and_a_resume(client: Asker, path: str) -> None:
    paused = client.post(f"{path}:pause", {}, headers={"X-Asyncflow-Caller": "ann"})
    assert (paused.get_json()["status"], list(paused.get_json()["control"])) == ("Paused", ["pause"])
    assert paused.headers["ETag"] == client.get(path).headers["ETag"]
    assert client.get(f"{path}/history").get_json()["entries"][-1]["caller"] == "ann"
    late = client.post(f"{path}/events/put", {"name": "tea"}, 202, headers={"Prefer": "wait=0"})
    resumed = client.post(f"{path}:resume").get_json()
    assert (resumed["status"], resumed["control"]) == ("Running", None)
    key = {"Idempotency-Key": late.get_json()["idempotency_key"]}
    assert client.post(f"{path}/events/put", {"name": "tea"}, headers=key).get_json() == [{"name": "tea", "count": 1}]


@pytest.mark.parametrize("verb", ["cancel", "kill"])
def test_an_end_comes_once_and_again_does_nothing(client: Asker, path: str, verb: str) -> None:
    ended = client.post(f"{path}:{verb}", {}).get_json()
    assert (ended["status"], ended["threads"], ended["awaits"]) == ("Cancelled", [], [])
    for again in ("cancel", "kill"):
        assert client.post(f"{path}:{again}", {}).get_json() == ended
    for other in ("pause", "resume", "retry", "skip"):
        assert client.problem("POST", f"{path}:{other}", {}, status=410)["class"] == "Ended"


@pytest.mark.parametrize("verb", ["retry", "skip"])
def test_what_is_not_stopped_is_409(client: Asker, path: str, verb: str) -> None:
    for body in ({}, {"thread": "main"}, {"thread": "nobody"}):
        assert client.problem("POST", f"{path}:{verb}", body, status=409)["class"] == "NotApplicable"


def test_a_parked_thread_is_tried_again_or_skipped(working: tuple[Runner, Asker]) -> None:
    runner, client = working
    path = client.start("Fault", "f")
    assert runner.wait_idle()
    client.post(f"{path}:retry", {"thread": "main"})
    assert runner.wait_idle()
    assert client.get(path).get_json()["status"] == "Paused", "it failed again"
    wrong = client.problem("POST", f"{path}:skip", {"value": "many"}, status=422)
    assert wrong["class"] == "InvalidInput"
    skipped = client.post(f"{path}:skip", {"value": 3}).get_json()
    assert (skipped["status"], skipped["output"]) == ("Finished", "served")


def test_a_word_said_while_a_step_holds_the_instance_is_202(open_runner: Open, gate: Gate) -> None:
    runner = open_runner(work=True)
    client = Asker(runner.create_app().test_client())
    path = client.start("Oven", "o")
    gate.wait(here=1)
    held = client.post(f"{path}:pause", {}, 202, headers={"Idempotency-Key": "k-1"}).get_json()
    assert (held["status"], list(held["control"])) == ("Paused", ["pause"])
    client.post(f"{path}:pause", {}, 202, headers={"Idempotency-Key": "k-1"})
    gate.open()
    assert runner.wait_idle()
    client.post(f"{path}:pause", {}, 200, headers={"Idempotency-Key": "k-1"})
    assert client.get(path).get_json()["control"].keys() == {"pause"}


@pytest.mark.parametrize(
    "verb, body",
    [
        ("pause", {"thread": "main"}),
        ("cancel", {"value": 1}),
        ("retry", {"value": 1}),
        ("retry", {"thread": 1}),
        ("retry", {"thread": ["main"]}),
        ("retry", {"thread": "x" * 2_001}),
        ("skip", {"thred": "main"}),
        ("pause", []),
        ("pause", "now"),
        ("skip", 1),
    ],
)
def test_a_body_that_does_not_fit_is_422(client: Asker, path: str, verb: str, body: Any) -> None:
    problem = client.problem("POST", f"{path}:{verb}", body, status=422)
    assert problem["class"] == "InvalidInput"
    assert problem["errors"][0]["message"]


@pytest.mark.parametrize("verb", ["goto", "edit", "explode", "Cancel", "%20", "cancel%00"])
def test_an_unknown_verb_is_404(client: Asker, path: str, verb: str) -> None:
    problem = client.problem("POST", f"{path}:{verb}", {}, status=404)
    assert problem["class"] == "NotFound"
    assert "cancel" in problem["detail"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_stale_if_match_is_412(client: Asker, path: str, verb: str) -> None:
    stale = client.get(path).headers["ETag"]
    client.post(f"{path}/events/put", {"name": "tea"})
    problem = client.problem("POST", f"{path}:{verb}", {}, status=412, headers={"If-Match": stale})
    assert problem["class"] == "PreconditionFailed"


def test_a_word_with_a_key_is_said_once(client: Asker, path: str) -> None:
    key = {"Idempotency-Key": "k-1"}
    client.post(f"{path}:pause", {}, headers=key)
    client.post(f"{path}:resume", {})
    assert client.post(f"{path}:pause", {}, headers=key).get_json()["status"] == "Running", "it was said before"
    assert client.problem("POST", f"{path}:cancel", {}, status=422, headers=key)["class"] == "KeyReused"


# -- trying ------------------------------------------------------------------------------------------------------------


def test_a_trial_shows_what_would_be_and_changes_nothing(client: Asker, path: str) -> None:
    before = client.get(path)
    for verb, status in (("pause", "Paused"), ("cancel", "Cancelled"), ("kill", "Cancelled"), ("resume", "Running")):
        tried = client.post(f"{path}:{verb}?dry_run=1", {})
        assert tried.get_json()["status"] == status
        assert "ETag" not in tried.headers, "it is no state that the instance ever had"
        client.post(f"{path}:{verb}?dry_run=true", {}, headers={"Idempotency-Key": "k-1"})
    assert client.problem("POST", f"{path}:retry?dry_run=1", {}, status=409)["class"] == "NotApplicable"
    stale = {"If-Match": '"0"'}
    assert client.problem("POST", f"{path}:kill?dry_run=1", {}, status=412, headers=stale)["class"] == "PreconditionFailed"
    assert client.get(path).data == before.data
    assert len(client.get(f"{path}/history").get_json()["entries"]) == 1
    assert client.post(f"{path}:pause?dry_run=0", {}).get_json()["status"] == "Paused"
    assert client.get(path).get_json()["status"] == "Paused"


def test_a_trial_while_a_step_holds_the_instance_is_202(open_runner: Open, gate: Gate) -> None:
    runner = open_runner(work=True)
    client = Asker(runner.create_app().test_client())
    path = client.start("Oven", "o")
    gate.wait(here=1)
    before = client.get(path)
    assert "cancel" in client.post(f"{path}:cancel?dry_run=1", {}, 202).get_json()["control"]
    assert client.get(path).data == before.data


@pytest.mark.parametrize("said", ["yes", "2", "", "no"])
def test_a_trial_that_is_none_is_400(client: Asker, path: str, said: str) -> None:
    assert client.problem("POST", f"{path}:kill?dry_run={said}", {}, status=400)["class"] == "Malformed"
    assert client.get(path).get_json()["status"] == "Running"


def test_starts_and_events_cannot_be_tried(client: Asker, path: str) -> None:
    client.problem("POST", f"{path}/events/put?dry_run=1", {"name": "tea"}, status=400)
    client.problem("POST", "/workflows/Basket?dry_run=1", status=400)
    assert client.get(path).get_json()["state"]["items"] == []
    assert len(client.get("/workflows/Basket").get_json()["instances"]) == 1


# -- code that cannot read the document --------------------------------------------------------------------------------


class Tin(Workflow):
    """What `Tin` was before: its state does not fit the code of now."""

    size: int = 1

    @event
    def shut(self) -> None: ...

    def definition(self) -> Section[int]:
        return S(Select("lid", Case(self.shut)), Return(lambda: self.size))


class NewTin(Workflow, name="Tin"):
    size: list[int] = []

    @event
    def shut(self) -> None: ...

    def definition(self) -> Section[int]:
        return S(Select("lid", Case(self.shut)), Return(1))


def test_what_this_code_cannot_read_is_shown_and_takes_nothing(url: str) -> None:
    old, new = Runner([Tin], store=url), Runner([NewTin], store=url)
    try:
        old.start(Tin(), id="t")
        client = Asker(new.create_app().test_client())
        path = "/workflows/Tin/t"
        shown = client.get(path).get_json()
        assert (shown["status"], shown["state"], shown["awaits"]) == ("Running", {"size": 1}, [])
        assert shown["error"]["type"] == "Unavailable"
        assert shown["error"]["message"].startswith(
            "this code cannot read the instance: the state does not validate as NewTin: size"
        )
        for method, where in (("POST", "/events/shut"), ("POST", ":cancel"), ("POST", ":retry")):
            problem = client.problem(method, path + where, status=503)
            assert problem["class"] == "Unavailable"
            assert "size" in problem["detail"]
        assert client.post(f"{path}:resume", status=202).get_json()["status"] == "Running"
        listed = client.get("/workflows/Tin").get_json()["instances"][0]
        assert (listed["status"], listed["error"]["type"]) == ("Running", "Unavailable"), "a look was asked for: the list says so"
        assert [one["id"] for one in client.get("/workflows/Tin?status=Running").get_json()["instances"]] == ["t"]
        stored = new.store.get("Tin", "t")
        assert stored is not None
        assert new.store.park("Tin", "t", stored.revision, "why")
        for found in (client.get(path).get_json(), client.get("/workflows/Tin?status=Paused").get_json()["instances"][0]):
            assert (found["status"], found["error"]["message"]) == ("Paused", "why")
    finally:
        old.close()
        new.close()


@pytest.fixture
def url(tmp_path: Any) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"
