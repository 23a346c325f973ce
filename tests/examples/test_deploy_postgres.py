"""What the deployment on Postgres says is what the command understands."""

import re
from pathlib import Path

import pytest

from runner.cli import COMMANDS
from runner.settings import PREFIX, Settings, load_settings
from runner.stores.postgres_url import read_url
from runner.work.execution import DRAIN_SECONDS, GIVE_BACK_SECONDS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "deploy" / "postgres"
FILES = sorted(path for path in FOLDER.iterdir() if path.is_file())
KNOWN = {name for group in COMMANDS.values() for name in group}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_commands_and_settings_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    assert set(re.findall(r"(?:`|: |bin/)asyncflow ([a-z]+)", text)) <= KNOWN
    named = set(re.findall(rf"\b{PREFIX}([A-Z_]+)", text))
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_the_settings_can_be(tmp_path: Path) -> None:
    found = [dict(re.findall(rf"^[ #]*({PREFIX}\w+)[:=] ?(\S+)$", path.read_text("utf-8"), re.MULTILINE)) for path in FILES]
    both = [settings for settings in found if settings]
    assert len(both) == 2
    for settings in both:
        configured = load_settings(environment=settings, folder=tmp_path).settings
        assert read_url(configured.store).name.startswith("postgresql://shop@")
        assert configured.app


def test_a_stop_has_time_for_what_runs() -> None:
    compose = re.findall(r"stop_grace_period: (\d+)s", (FOLDER / "compose.yaml").read_text("utf-8"))
    unit = re.findall(r"TimeoutStopSec=(\d+)", (FOLDER / "asyncflow-worker@.service").read_text("utf-8"))
    assert len(compose) == len(unit) == 1
    assert min(int(seconds) for seconds in (*compose, *unit)) >= DRAIN_SECONDS + 2 * GIVE_BACK_SECONDS
