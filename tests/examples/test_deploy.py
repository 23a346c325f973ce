"""The script that deploys to Cloud Run: what it would run is what `gcloud` takes, and what it sets is what a Runner takes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runner.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "deploy" / "cloud-run"
SECONDS = 120.0
"""Until a test gives up on a command: only a hang meets it."""


def dry_run(tmp_path: Path) -> str:
    """What the script prints when it only says what it would do."""
    # Its `asyncflow` is the one under test, whatever is installed.
    command = tmp_path / "bin" / "asyncflow"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m runner.cli "$@"\n', "utf-8")
    command.chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ASYNCFLOW_")}
    environment = {**clean, "PROJECT": "my-project", "DRY_RUN": "1", "PATH": f"{command.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", str(FOLDER / "deploy.sh")], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def settings_of(said: str) -> Settings:
    """The settings that the service is given."""
    (variables,) = re.findall(r"--set-env-vars (\S+)", said)
    plain = variables.replace("\\", "").removeprefix("^;^")
    pairs = dict(pair.split("=", 1) for pair in plain.split(";"))
    return load_settings(environment=pairs, folder=Path("/")).settings


def test_it_says_what_it_would_do_and_sets_what_a_runner_takes(tmp_path: Path) -> None:
    said = dry_run(tmp_path)
    settings = settings_of(said)
    assert settings.store == "firestore://my-project/asyncflow"
    assert settings.scheduler == "cloudtasks://my-project/europe-west1/asyncflow"
    assert settings.verified_by == "platform"
    assert settings.base_url is not None
    assert f"--uri {settings.base_url}/tasks/sweep" in said
    assert f"--oidc-token-audience {settings.terms.expected_audience} " in said
    assert f"--oidc-service-account-email {settings.service_account} " in said
    assert "--no-allow-unauthenticated" in said, "otherwise nobody has verified who delivers"
    assert f"--timeout {settings.request_timeout.total_seconds():.0f} " in said


@pytest.mark.server("gcloud")
def test_gcloud_takes_each_of_its_commands(tmp_path: Path) -> None:
    if shutil.which("gcloud") is None:
        pytest.skip("needs gcloud: install the Google Cloud SDK")
    commands = [{"command_string": line[2:]} for line in dry_run(tmp_path).splitlines() if line.startswith("+ gcloud")]
    assert len(commands) > 15
    file = tmp_path / "commands.json"
    file.write_text(json.dumps(commands), "utf-8")
    lint = ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={file}"]
    done = subprocess.run(lint, capture_output=True, text=True, timeout=SECONDS, check=True)
    refused = [(one["command_string"], one["error_message"]) for one in json.loads(done.stdout) if not one["success"]]
    assert refused == []


def test_the_image_has_all_that_it_copies() -> None:
    for line in (FOLDER / "Dockerfile").read_text("utf-8").splitlines():
        if line.startswith("COPY "):
            *sources, _ = line.removeprefix("COPY ").split()
            assert [name for name in sources if not (ROOT / name).exists()] == []
