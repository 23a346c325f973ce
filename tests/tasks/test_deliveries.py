"""Who may call `/tasks/…`: whoever brings an OIDC token of the service account, or a signature with a key of this app."""

import base64
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest
from flask import Flask

from asyncflow.errors import Forbidden, Malformed, Unauthorized, Unavailable
from runner import Runner
from runner.auth import CALLER
from runner.deliveries import SIGNATURE, TIMESTAMP, Signatures, signed_text, verifier_of
from runner.http.app import create_app
from runner.http.server import serve
from runner.schedulers import cloud_tasks_oidc
from runner.schedulers.base import Terms
from runner.schedulers.cloud_tasks_oidc import Tokens
from runner.stores.base import Key
from tests.runner.clocks import Clock
from tests.servers.certificates import Issuer, signer
from tests.servers.cloudtasks import Queue, Server
from tests.tasks.conftest import Open
from tests.tasks.workflows import Row

EMAIL: Final = "queue@demo.iam.gserviceaccount.com"
AUDIENCE: Final = "https://shop.example.com"
OLD, NEW = "o" * 32, "n" * 32
BODY: Final = b'{"workflow":"Row","id":"r"}'
PUBLIC: Final = {"Host": "shop.example.com"}


class Said:
    """Headers of a request."""

    def __init__(self, headers: dict[str, str]) -> None:
        self._headers = {name.lower(): value for name, value in headers.items()}

    def get(self, key: str, /) -> str | None:
        return self._headers.get(key.lower())


def tokens_of(issuer: Issuer, **others: Any) -> Tokens:
    return Tokens(audience=AUDIENCE, service_account=EMAIL, certificates=issuer.address, **others)


def bearer(token: str) -> Said:
    return Said({"Authorization": f"Bearer {token}"})


# -- OIDC --------------------------------------------------------------------------------------------------------------


def test_a_good_token_is_accepted(issuer: Issuer) -> None:
    tokens_of(issuer).check(bearer(issuer.token(EMAIL, AUDIENCE)), "wake", BODY)


@pytest.mark.parametrize("wrong", [
    {"aud": "https://other.example.com"},
    {"aud": f"{AUDIENCE}/"},
    {"aud": [AUDIENCE]},
    {"aud": None},
    {"email": "somebody@demo.iam.gserviceaccount.com"},
    {"email": EMAIL.upper()},
    {"email": None},
    {"email_verified": False},
    {"email_verified": "true"},
    {"email_verified": None},
    {"iss": "https://accounts.example.com"},
    {"iss": None},
    {"exp": 1},
    {"exp": None},
    {"exp": "soon"},
    {"iat": 2**40},
    {"iat": None},
], ids=str)  # fmt: skip
def test_a_token_with_a_wrong_claim_is_refused(issuer: Issuer, wrong: dict[str, Any]) -> None:
    token = issuer.signers[0].sign(issuer.claims(EMAIL, AUDIENCE, **wrong))
    with pytest.raises(Forbidden):
        tokens_of(issuer).check(bearer(token), "wake", BODY)


def test_a_token_that_has_run_out_within_the_skew_of_clocks_is_good(issuer: Issuer) -> None:
    token = issuer.signers[0].sign(issuer.claims(EMAIL, AUDIENCE, exp=int(time.time()) - 2))
    tokens_of(issuer).check(bearer(token), "wake", BODY)


@pytest.mark.parametrize("header", ["Basic x", "Bearer", "Bearer a.b", "Bearer a.b.c", "Bearer " + "x" * 9000, "Bearer é.b.c"])
def test_what_is_no_token_is_refused(issuer: Issuer, header: str) -> None:
    with pytest.raises(Forbidden):
        tokens_of(issuer).check(Said({"Authorization": header}), "wake", BODY)


def test_a_request_without_a_token_is_told_so(issuer: Issuer) -> None:
    with pytest.raises(Unauthorized):
        tokens_of(issuer).check(Said({}), "wake", BODY)


def test_a_token_signed_by_somebody_else_is_refused(issuer: Issuer) -> None:
    forged = signer("first", forged=True).sign(issuer.claims(EMAIL, AUDIENCE))
    with pytest.raises(Forbidden):
        tokens_of(issuer).check(bearer(forged), "wake", BODY)


@pytest.mark.parametrize("header", [{"alg": "none"}, {"alg": "HS256"}, {}])
def test_a_token_without_a_good_signature_is_refused(issuer: Issuer, header: dict[str, Any]) -> None:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    token = f"{part({'kid': 'first', 'typ': 'JWT', **header})}.{part(issuer.claims(EMAIL, AUDIENCE))}."
    with pytest.raises(Forbidden):
        tokens_of(issuer).check(bearer(token), "wake", BODY)


def test_certificates_are_asked_for_once_and_again_when_they_are_old(issuer: Issuer) -> None:
    now = 1000.0
    tokens = tokens_of(issuer, monotonic=lambda: now)
    good = bearer(issuer.token(EMAIL, AUDIENCE))
    for _ in range(3):
        tokens.check(good, "wake", BODY)
    assert issuer.asked == 1
    now += 3599
    tokens.check(good, "wake", BODY)
    assert issuer.asked == 1
    now += 1
    tokens.check(good, "wake", BODY)
    assert issuer.asked == 2


def test_a_new_key_is_asked_for_but_not_for_each_forged_one(issuer: Issuer) -> None:
    now = 1000.0
    tokens = tokens_of(issuer, monotonic=lambda: now)
    tokens.check(bearer(issuer.token(EMAIL, AUDIENCE)), "wake", BODY)
    issuer.signers.append(signer("second"))
    now += 60
    tokens.check(bearer(issuer.token(EMAIL, AUDIENCE)), "wake", BODY)
    assert issuer.asked == 2
    forged = bearer(signer("third").sign(issuer.claims(EMAIL, AUDIENCE)))
    for _ in range(5):
        with pytest.raises(Forbidden):
            tokens.check(forged, "wake", BODY)
    assert issuer.asked == 2


def test_old_certificates_serve_while_no_new_ones_can_be_had(issuer: Issuer) -> None:
    now = 1000.0
    tokens = tokens_of(issuer, monotonic=lambda: now)
    good = bearer(issuer.token(EMAIL, AUDIENCE))
    tokens.check(good, "wake", BODY)
    issuer.away = True
    now += 7200
    tokens.check(good, "wake", BODY)
    now += 24 * 3600
    with pytest.raises(Unavailable):
        tokens.check(good, "wake", BODY)


def test_without_any_certificates_nothing_can_be_said(issuer: Issuer) -> None:
    issuer.away = True
    with pytest.raises(Unavailable):
        tokens_of(issuer).check(bearer(issuer.token(EMAIL, AUDIENCE)), "wake", BODY)


# -- signatures --------------------------------------------------------------------------------------------------------

SIGNED_AT: Final = 1_700_000_000.0


def at(seconds: float, *keys: str) -> Signatures:
    return Signatures(keys or (NEW, OLD), now=lambda: SIGNED_AT + seconds)


@pytest.mark.parametrize("key", [NEW, OLD])
@pytest.mark.parametrize("late", [-300, 0, 60, 24 * 3600])
def test_a_signature_with_the_new_or_the_old_key_is_good_for_a_day(key: str, late: float) -> None:
    signed = at(0, key).sign("wake", BODY)
    at(late).check(Said(signed), "wake", BODY)


@pytest.mark.parametrize("late", [-301, 24 * 3600 + 1])
def test_a_signature_of_another_day_is_refused(late: float) -> None:
    with pytest.raises(Forbidden, match="s old"):
        at(late).check(Said(at(0, NEW).sign("wake", BODY)), "wake", BODY)


@pytest.mark.parametrize("change", [
    lambda said: ({**said, TIMESTAMP: str(int(said[TIMESTAMP]) + 1)}, "wake", BODY),
    lambda said: ({**said, TIMESTAMP: "soon"}, "wake", BODY),
    lambda said: ({**said, SIGNATURE: "0" * 64}, "wake", BODY),
    lambda said: ({**said, SIGNATURE: "é"}, "wake", BODY),
    lambda said: (said, "wake", BODY.replace(b"r", b"s")),
    lambda said: (said, "sweep", BODY),
])  # fmt: skip
def test_a_signature_of_something_else_is_refused(change: Callable[[dict[str, str]], tuple[dict[str, str], str, bytes]]) -> None:
    headers, kind, body = change(at(0, NEW).sign("wake", BODY))
    with pytest.raises(Forbidden):
        at(0).check(Said(headers), kind, body)


def test_a_key_that_was_taken_out_is_refused() -> None:
    with pytest.raises(Forbidden):
        at(0, NEW).check(Said(at(0, OLD).sign("wake", BODY)), "wake", BODY)


@pytest.mark.parametrize("without", [TIMESTAMP, SIGNATURE])
def test_a_request_without_a_signature_is_told_so(without: str) -> None:
    signed = at(0).sign("wake", BODY)
    del signed[without]
    with pytest.raises(Unauthorized):
        at(0).check(Said(signed), "wake", BODY)


def test_what_is_signed_says_what_for_and_when() -> None:
    assert signed_text("sweep", "17", b"{}") == b"asyncflow:sweep:17:{}"


# -- over HTTP ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def _google(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The issuer of the tests is Google."""
    monkeypatch.setattr(cloud_tasks_oidc, "CERTIFICATES", issuer.address)


@pytest.mark.usefixtures("_google")
@pytest.mark.parametrize("terms", [
    {"service_account": EMAIL},
    {"service_account": EMAIL, "audience": AUDIENCE},
    {"hmac_keys": [NEW, OLD]},
    {"service_account": EMAIL, "hmac_keys": [NEW]},
], ids=str)  # fmt: skip
def test_the_queues_own_deliveries_are_let_in(
    cloud_tasks: Server, issuer: Issuer, serving: Open, monkeypatch: pytest.MonkeyPatch, terms: dict[str, Any]
) -> None:
    site = serving(Row, insecure=False, **terms)
    site.queue._bearer = issuer.token
    row = site.runner.start(Row(), id="r")
    site.queue.settle()
    assert [task.answers for task in site.queue.made] == [[200]]
    assert row.state.done == ["one", "two", "three"]
    token = site.queue.made[0].made.http_request.oidc_token
    assert (token.service_account_email, token.audience) == (
        (EMAIL, terms.get("audience", site.url)) if "service_account" in terms else ("", "")
    )


def test_a_timers_signature_is_of_the_instant_it_is_for(serving: Open, clock: Clock) -> None:
    site = serving(Row, insecure=False, hmac_keys=[NEW])
    instant = site.runner.store.now() + timedelta(days=20)
    site.queue.pause()
    site.runner.scheduler.wake(Key("Row", "r"), instant)
    [task] = site.queue.made
    Signatures((NEW,), now=instant.timestamp).check(Said(task.headers), "wake", task.body)


@pytest.mark.usefixtures("_google")
def test_a_public_name_is_for_deliveries_alone(serving: Open, issuer: Issuer) -> None:
    site = serving(Row, insecure=False, service_account=EMAIL)
    good = {**PUBLIC, "Authorization": f"Bearer {issuer.token(EMAIL, site.url)}"}
    site.client.post("/tasks/wake", {"workflow": "Row", "id": "r"}, 200, headers=good)
    site.client.post("/tasks/sweep", status=200, headers=good)
    site.client.post("/workflows/Row?id=r", status=403, headers=good)
    site.client.get("/workflows", status=403, headers=good)
    site.client.get("/healthz", status=403, headers=good)
    site.client.get("/nothing", status=403, headers=good)
    site.client.get("/workflows", status=200)


@pytest.mark.usefixtures("_google")
def test_who_brings_no_proof_is_refused_before_anything_is_looked_at(serving: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    site = serving(Row, insecure=False, service_account=EMAIL)
    site.count()
    for path in ("/tasks/wake", "/tasks/sweep"):
        site.client.ask("POST", path, raw=b"{", status=401)
        site.client.post(path, {"workflow": "Row", "id": "r"}, 401)
        site.client.post(path, {"workflow": "Row", "id": "r"}, 403, headers={"Authorization": "Bearer x"})
        site.client.post(path, {"workflow": "Row", "id": "r"}, 401, headers={CALLER: EMAIL, "X-CloudTasks-QueueName": "q"})
    assert site.counts.reads == 0


def test_a_signature_for_a_wake_up_makes_no_sweep(serving: Open) -> None:
    site = serving(Row, insecure=False, hmac_keys=[NEW])
    signed = Signatures((NEW,)).sign("wake", b"")
    site.client.post("/tasks/sweep", status=403, headers=signed)
    site.client.post("/tasks/sweep", status=200, headers=Signatures((NEW,)).sign("sweep", b""))


@pytest.mark.usefixtures("_google")
def test_a_signature_goes_before_a_token_that_has_lost_its_own(serving: Open, issuer: Issuer) -> None:
    site = serving(Row, insecure=False, service_account=EMAIL, hmac_keys=[NEW])
    seen = issuer.token(EMAIL, site.url).rpartition(".")[0] + ".SIGNATURE_REMOVED"
    signed = {**PUBLIC, "Authorization": f"Bearer {seen}"}
    site.client.post("/tasks/sweep", status=403, headers=signed)
    site.client.post("/tasks/sweep", status=200, headers=signed | Signatures((NEW,)).sign("sweep", b""))


def test_an_app_for_deliveries_alone(queue: Queue) -> None:
    runner = Runner([Row], store="memory://", scheduler="cloudtasks://p/l/q", base_url=AUDIENCE, hmac_keys=[NEW])
    try:
        client = runner.create_app(clients=False).test_client()
        signed = {**Signatures((NEW,)).sign("wake", BODY), **PUBLIC, "Content-Type": "application/json"}
        assert client.post("/tasks/wake", data=BODY, headers=signed).status_code == 200
        assert client.get("/readyz", headers=PUBLIC).status_code == 200
        for headers in (PUBLIC, {"Host": "localhost"}, signed):
            assert client.get("/workflows", headers=headers).status_code == 403
            assert client.post("/workflows/Row", headers=headers).status_code == 403
            assert client.get("/nothing", headers=headers).status_code == 403
    finally:
        runner.close()


def test_a_mounted_blueprint_asks_for_proof_too(queue: Queue) -> None:
    runner = Runner([Row], store="memory://", scheduler="cloudtasks://p/l/q", base_url="http://localhost/flows", hmac_keys=[NEW])
    try:
        app = Flask("shop")
        app.register_blueprint(runner.blueprint(), url_prefix="/flows")
        client = app.test_client()
        assert client.post("/flows/tasks/wake", data=BODY).status_code == 401
        signed = {**Signatures((NEW,)).sign("wake", BODY), **PUBLIC, "Content-Type": "application/json"}
        assert client.post("/flows/tasks/wake", data=BODY, headers=signed).status_code == 200
        assert client.get("/flows/workflows", headers=signed).status_code == 403
    finally:
        runner.close()


# -- without a verifier ------------------------------------------------------------------------------------------------


def unverified(queue: Queue) -> Runner:
    return Runner([Row], store="memory://", scheduler="cloudtasks://p/l/q", base_url="http://localhost")


def test_without_a_verifier_nothing_is_served(queue: Queue) -> None:
    runner = unverified(queue)
    try:
        for make in (runner.create_app, runner.blueprint, lambda: serve(runner, port=0)):
            with pytest.raises(Malformed, match="expected service_account or hmac_keys"):
                make()
    finally:
        runner.close()


def test_insecure_does_without_on_loopback_alone(queue: Queue) -> None:
    runner = unverified(queue)
    try:
        client = create_app(runner, insecure=True).test_client()
        assert client.post("/tasks/wake", json={"workflow": "Row", "id": "r"}).status_code == 200
        assert client.post("/tasks/wake", json={"workflow": "Row", "id": "r"}, headers=PUBLIC).status_code == 403
        crossed = {"Sec-Fetch-Site": "cross-site"}
        assert client.post("/tasks/wake", json={"workflow": "Row", "id": "r"}, headers=crossed).status_code == 403
        with pytest.raises(Malformed, match="loopback alone"):
            serve(runner, host="0.0.0.0", port=0, insecure=True)
    finally:
        runner.close()


def test_the_local_scheduler_needs_no_verifier() -> None:
    assert verifier_of(Terms()) is None
    runner = Runner([Row], store="memory://")
    runner.create_app()
    runner.close()
