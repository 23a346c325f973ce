"""All routes: each has a row here, and each keeps what holds for all."""

from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from pydantic_core import to_json

from asyncflow.errors import Unavailable
from runner import Runner
from tests.http.asking import Asker
from tests.runner.gates import Gate


@dataclass(frozen=True)
class Row:
    """A route and a request to it that succeeds."""

    method: str
    rule: str
    path: str
    status: int
    body: Any = None

    def __str__(self) -> str:
        return f"{self.method} {self.rule}"


ONE = "/workflows/<workflow>/<id>"
ROWS = [
    Row("GET", "/healthz", "/healthz", 200),
    Row("GET", "/readyz", "/readyz", 200),
    Row("GET", "/workflows", "/workflows", 200),
    Row("GET", "/workflows/<workflow>", "/workflows/Basket", 200),
    Row("POST", "/workflows/<workflow>", "/workflows/Visit", 201, 3),
    Row("GET", "/workflows/<workflow>/docs", "/workflows/Basket/docs", 200),
    Row("GET", "/workflows/<workflow>/definition", "/workflows/Basket/definition", 200),
    Row("GET", ONE, "/workflows/Basket/b-1", 200),
    Row("DELETE", ONE, "/workflows/Basket/gone", 204),
    Row("GET", f"{ONE}/history", "/workflows/Basket/b-1/history", 200),
    Row("GET", f"{ONE}/queries/<query>", "/workflows/Basket/b-1/queries/count", 200),
    Row("POST", f"{ONE}/events/<event>", "/workflows/Basket/b-1/events/put", 200, {"name": "tea"}),
    Row("POST", f"{ONE}:<verb>", "/workflows/Basket/b-1:pause", 200, {}),
]
OF_WORKFLOW = [row for row in ROWS if "<workflow>" in row.rule]
OF_INSTANCE = [row for row in ROWS if "<id>" in row.rule]


@pytest.fixture
def ready(client: Asker) -> Asker:
    """The requests of the table meet what they need."""
    client.start("Basket", "b-1")
    client.post(f"{client.start('Basket', 'gone')}/events/close")
    return client


def test_every_route_has_a_row(app: Flask) -> None:
    there = {(method, rule.rule) for rule in app.url_map.iter_rules() for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    assert there == {(row.method, row.rule) for row in ROWS}


def sent(client: Asker, row: Row, **headers: str) -> Any:
    raw = None if row.body is None else to_json(row.body)
    return client.ask(row.method, row.path, raw=raw, headers=headers)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_good_request_succeeds(ready: Asker, row: Row) -> None:
    response = sent(ready, row)
    assert response.status_code == row.status
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] in ("no-store", "no-cache")
    if row.status != 204:
        assert response.mimetype == "application/json"
        response.get_json()


FOREIGN: list[dict[str, str]] = [
    {"Host": "evil.example"},
    {"Host": "evil.example:80"},
    {"Host": "localhost.evil.example"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "10.0.0.1"},
    {"Host": "0.0.0.0"},
    {"Host": "[::2]"},
    {"Host": ""},
    {"Origin": "https://evil.example"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://localhost@evil.example"},
    {"Origin": "null"},
    {"Origin": "file://"},
    {"Origin": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "Cross-Site", "Origin": "http://localhost"},
]
OWN: list[dict[str, str]] = [
    {"Host": "localhost"},
    {"Host": "LOCALHOST:8080"},
    {"Host": "127.0.0.1:8080"},
    {"Host": "127.9.9.9"},
    {"Host": "[::1]:8080"},
    {"Origin": "http://localhost"},
    {"Origin": "http://localhost:80"},
    {"Host": "localhost:8080", "Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"},
    {"Host": "[::1]:8080", "Origin": "http://[::1]:8080"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-origin"},
]


@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.parametrize("mounted", [False, True], ids=["app", "blueprint"])
def test_pages_of_other_sites_are_kept_out(runner: Runner, app: Flask, row: Row, mounted: bool) -> None:
    client = Asker(app.test_client())
    client.start("Basket", "b-1")
    client.post(f"{client.start('Basket', 'gone')}/events/close")
    before = [one.get_json() for one in (client.get("/workflows/-"), client.get("/workflows/Basket/b-1"))]
    if mounted:
        theirs = Flask("theirs")
        theirs.register_blueprint(runner.blueprint())
        client = Asker(theirs.test_client())
    for headers in FOREIGN:
        response = sent(client, row, **headers)
        assert response.status_code == 403, headers
        assert response.get_json(force=True)["type"] == "urn:asyncflow:error:Forbidden"
    assert [one.get_json() for one in (client.get("/workflows/-"), client.get("/workflows/Basket/b-1"))] == before
    for headers in OWN:
        assert sent(client, ROWS[2], **headers).status_code == 200, headers


@pytest.mark.parametrize("path", ["/", "/nothing", "/workflows/Basket/b-1/nothing"])
def test_what_is_not_there_is_kept_from_other_sites_too(client: Asker, path: str) -> None:
    assert client.problem("GET", path, status=403, headers={"Host": "evil.example"})["class"] == "Forbidden"
    assert client.problem("GET", path, status=404)["class"] == "NotFound"


@pytest.mark.parametrize("row", OF_WORKFLOW, ids=str)
def test_an_unknown_workflow_is_404(ready: Asker, row: Row) -> None:
    path = row.path.replace("/Basket", "/Basked").replace("/Visit", "/Basked")
    problem = ready.problem(row.method, path, **({} if row.body is None else {"body": row.body}), status=404)
    assert problem["class"] == "NotFound"
    assert "Basket" in problem["detail"], "it says which there are"


@pytest.mark.parametrize("row", OF_INSTANCE, ids=str)
def test_an_unknown_instance_is_404(ready: Asker, row: Row) -> None:
    path = row.path.replace("/b-1", "/b-2").replace("/gone", "/b-2")
    problem = ready.problem(row.method, path, **({} if row.body is None else {"body": row.body}), status=404)
    assert problem["class"] == "NotFound"
    assert "Basket/b-2" in problem["detail"]


BAD_IDS = ["a.b", "%20", "a%00b", "%FF", "..%2e", "x" * 129, "ä", "a:b", "a%0a", "*"]


@pytest.mark.parametrize("row", OF_INSTANCE, ids=str)
@pytest.mark.parametrize("id", BAD_IDS)
def test_what_can_be_no_id_is_400(ready: Asker, row: Row, id: str) -> None:
    path = row.path.replace("/b-1", f"/{id}").replace("/gone", f"/{id}")
    problem = ready.problem(row.method, path, **({} if row.body is None else {"body": row.body}), status=400)
    assert problem["class"] == "Malformed"


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_long_path_or_query_is_414(ready: Asker, row: Row) -> None:
    for path in (f"{row.path}?x={'y' * 8_000}", row.path + "/z" * 4_000):
        ready.ask(row.method, path, status=414)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_wrong_method_is_405_and_says_which_are_right(ready: Asker, row: Row) -> None:
    path = row.path if ":" not in row.path else "/workflows/Basket/b-1"
    problem = ready.ask("PATCH", path, {}, status=405)
    right = {one.method for one in ROWS if one.path == path or (one.rule == row.rule and ":" not in row.path)}
    assert right <= set(problem.headers["Allow"].split(", "))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_nothing_new_is_taken_while_draining(ready: Asker, runner: Runner, row: Row) -> None:
    runner.drain()
    if row.rule == "/healthz":
        assert sent(ready, row).status_code == 200
        return
    response = sent(ready, row)
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("row", [row for row in ROWS if row.rule != "/healthz"], ids=str)
def test_a_store_that_is_away_is_503(ready: Asker, runner: Runner, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*arguments: Any, **options: Any) -> Any:
        raise Unavailable("the disk is gone")

    for name in ("get", "list", "history", "commit", "delete", "next_due"):
        monkeypatch.setattr(runner.store, name, away)
    response = sent(ready, row)
    if row.rule in ("/workflows", "/workflows/<workflow>/docs", "/workflows/<workflow>/definition"):
        assert response.status_code == 200, "what needs no store is there all the same"
        return
    assert response.status_code == 503
    assert response.get_json(force=True)["type"] == "urn:asyncflow:error:Unavailable"
    assert int(response.headers["Retry-After"]) >= 1


def test_a_worker_that_hangs_is_not_ready(open_runner: Any, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = open_runner(work=True)
    client = Asker(runner.create_app().test_client())
    client.get("/readyz")
    monkeypatch.setattr(type(runner._worker), "healthy", False)
    client.problem("GET", "/readyz", status=503)
    client.get("/healthz")


def test_a_blueprint_under_a_prefix_links_to_itself(runner: Runner) -> None:
    theirs = Flask("theirs")

    @theirs.get("/")
    def home() -> str:
        return "home"

    theirs.register_blueprint(runner.blueprint(), url_prefix="/flows")
    client = Asker(theirs.test_client())
    created = client.post("/flows/workflows/Basket?id=b-1", status=201)
    assert created.headers["Location"] == "/flows/workflows/Basket/b-1"
    links = {one["event"]: one["link"] for one in created.get_json()["awaits"]}
    assert client.post(links["put"], {"name": "tea"}).get_json() == [{"name": "tea", "count": 1}]
    refused = client.problem("POST", "/flows/workflows/Basket/b-1/events/put", {"nme": 1}, status=422)
    assert refused["errors"]
    assert theirs.test_client().get("/", headers={"Host": "shop.example"}).text == "home"
    assert theirs.test_client().get("/nothing").mimetype == "text/html", "their own errors stay theirs"


def test_runner_is_imported_without_flask() -> None:
    import subprocess
    import sys

    said = "import runner, sys; print([one for one in ('flask', 'granian', 'werkzeug') if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
