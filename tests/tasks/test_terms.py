"""What is checked before a scheduler that delivers is used: settings, time-outs, all problems at once; and how it is served."""

import inspect
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncflow import Go, Return, S, Section, Step, Workflow
from asyncflow.errors import Malformed
from runner import Runner
from runner.settings import Settings, SettingsError, load_settings
from tests.cli.conftest import Shell
from tests.tasks.workflows import Row, Slow

QUEUE = "cloudtasks://demo/here/steps"
HERE = "http://localhost:1"


class Long(Workflow):
    """Two steps too long for a request, and one that is not."""

    def work(self) -> None: ...

    def definition(self) -> Section[None]:
        return S(
            Step("hours", self.work, timeout=timedelta(hours=2)),
            Go("beside", Step("just", self.work, timeout=timedelta(seconds=291))),
            Step("fits", self.work, timeout=timedelta(seconds=290)),
            Return(None),
        )


def opened(*workflows: type[Workflow], **arguments: Any) -> None:
    Runner(workflows, store="memory://", **{"scheduler": QUEUE, "base_url": HERE, **arguments}).close()


def problems_of(*workflows: type[Workflow], **arguments: Any) -> list[str]:
    with pytest.raises(Malformed) as raised:
        opened(*workflows, **arguments)
    return str(raised.value).splitlines()


# -- the order of time-outs --------------------------------------------------------------------------------------------


def test_the_defaults_are_in_order() -> None:
    opened(Row, Slow)


def test_all_problems_are_told_at_once() -> None:
    problems = problems_of(Long, lease=timedelta(minutes=10), request_timeout=timedelta(minutes=11), base_url=None)
    found = [" ".join(line.split()[:3]) for line in problems]
    assert found == ["base_url: expected the", "request_timeout: expected less", "lease: expected less", "Long: hours: expected"]


def test_each_step_that_no_request_can_run_is_named() -> None:
    hours, just = problems_of(Long)
    assert hours.startswith("Long: hours: expected a timeout of at most 290 s, since a request takes 300 s at most, found 7200 s (")
    assert just.startswith("Long: beside/just: expected a timeout of at most 290 s")
    assert f"{Path(__file__).name}:" in hours


def test_a_step_that_names_no_timeout_has_240_seconds() -> None:
    [line, *_] = problems_of(Row, request_timeout=timedelta(seconds=200))
    assert line.startswith("Row: one: expected a timeout of at most 190 s")
    assert "found 240 s" in line


@pytest.mark.parametrize("request_seconds, lease_seconds, fits", [
    (300, 330, True), (329, 330, True), (330, 330, False), (300, 599, True), (300, 600, False),
])  # fmt: skip
def test_request_lease_and_dispatch_are_in_order(request_seconds: int, lease_seconds: int, fits: bool) -> None:
    arguments = {"request_timeout": timedelta(seconds=request_seconds), "lease": timedelta(seconds=lease_seconds)}
    if fits:
        opened(Row, **arguments)
    else:
        assert len(problems_of(Row, **arguments)) == 1


def test_with_the_local_scheduler_steps_may_take_hours() -> None:
    Runner([Long], store="memory://", lease=timedelta(hours=1)).close()


@pytest.mark.parametrize(
    "scheduler", ["cron", "cloudtasks://", "cloudtasks://p/l", "cloudtasks://p/l/q/x", "cloudtasks://p/l/a,", "local:"]
)
def test_what_is_no_scheduler(scheduler: str) -> None:
    assert problems_of(scheduler=scheduler)[0].startswith("expected a scheduler: local, or cloudtasks://")


def test_keys_that_could_be_guessed_are_refused() -> None:
    assert problems_of(Row, hmac_keys=["short"]) == ["hmac_keys: expected keys of at least 32 characters each, found a shorter one"]


def test_proofs_are_not_sent_in_the_clear() -> None:
    opened(Row, base_url="https://shop.example.com/flows/")
    assert problems_of(Row, base_url="http://shop.example.com")[0].startswith("base_url: expected https://")


# -- settings ----------------------------------------------------------------------------------------------------------


def loaded(folder: Path, **environment: str) -> Settings:
    return load_settings(environment={f"ASYNCFLOW_{name}": value for name, value in environment.items()}, folder=folder).settings


def test_settings_of_a_scheduler(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path, SCHEDULER="cloudtasks://demo/here/a,b", BASE_URL="https://shop.example.com/", AUDIENCE="shop",
        SERVICE_ACCOUNT="queue@demo.iam.gserviceaccount.com", HMAC_KEYS=f"{'n' * 32}, {'o' * 32}", REQUEST_TIMEOUT="5m",
    )  # fmt: skip
    terms = settings.terms
    assert (terms.base_url, terms.expected_audience) == ("https://shop.example.com", "shop")
    assert (terms.hmac_keys, terms.request) == (("n" * 32, "o" * 32), timedelta(minutes=5))
    assert settings.runner_arguments().keys() <= inspect.signature(Runner).parameters.keys()


def test_problems_of_settings_are_told_at_once_and_never_a_key(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as raised:
        loaded(
            tmp_path, SCHEDULER=QUEUE, BASE_URL="shop", SERVICE_ACCOUNT="queue", HMAC_KEYS="secret,secret,x", REQUEST_TIMEOUT="1s"
        )  # fmt: skip
    assert len(raised.value.problems) == 4
    assert "secret" not in str(raised.value)
    with pytest.raises(SettingsError) as raised:
        loaded(tmp_path, SCHEDULER=QUEUE, LEASE="11m", HMAC_KEYS="secret", REQUEST_TIMEOUT="12m")
    assert [line.partition(":")[0] for line in raised.value.problems] == [
        "base_url", "ASYNCFLOW_HMAC_KEYS", "ASYNCFLOW_REQUEST_TIMEOUT", "ASYNCFLOW_LEASE",
    ]  # fmt: skip
    assert "secret" not in str(raised.value)


def test_nothing_of_it_matters_to_the_local_scheduler(tmp_path: Path) -> None:
    assert loaded(tmp_path, LEASE="11m", REQUEST_TIMEOUT="12m").scheduler == "local"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell("memory://", ("--store", "memory://"))


def test_keys_are_never_shown(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCFLOW_HMAC_KEYS", "n" * 32)
    assert shell.json("settings")["hmac_keys"] == {"value": "***", "source": "ASYNCFLOW_HMAC_KEYS"}
    assert "nnnn" not in shell("settings").stdout


def test_a_worker_has_nothing_to_do(shell: Shell) -> None:
    said = shell("worker", "tests.cli.shop", "--scheduler", QUEUE, "--base-url", HERE, "--store", "memory://", code=2)
    assert "run `asyncflow serve`" in said.stderr


def test_serve_says_what_is_missing(shell: Shell) -> None:
    said = shell("serve", "tests.cli.shop", "--scheduler", QUEUE, "--base-url", HERE, "--store", "memory://", "--port", "0", code=2)
    assert "expected service_account or hmac_keys" in said.stderr
    said = shell("serve", "tests.cli.shop", "--scheduler", QUEUE, "--store", "memory://", "--port", "0", code=2)
    assert "base_url: expected the address at which cloudtasks:// reaches this app" in said.stderr


# -- cold start --------------------------------------------------------------------------------------------------------


def test_a_runner_is_made_without_the_queues_libraries() -> None:
    program = f"""
import sys
from runner import Runner
from tests.tasks.workflows import Row
runner = Runner([Row], store="memory://", scheduler={QUEUE!r}, base_url={HERE!r}, hmac_keys=["k" * 32])
runner.create_app()
runner.close()
print([name for name in ("google", "grpc", "requests", "cryptography") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"
