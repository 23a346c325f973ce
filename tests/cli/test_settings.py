"""Settings: where they come from, which one wins, and every problem at once."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncflow import Malformed
from runner import Runner
from runner.durations import about, parse_duration, show_duration
from runner.schedulers import FORMS
from runner.settings import Settings, SettingsError, load_settings, shown_url
from runner.stores import KNOWN_SCHEMES
from tests.cli.conftest import Shell
from tests.cli.shop import Visit


def pyproject(folder: Path, *lines: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "pyproject.toml"
    file.write_text("\n".join(["[tool.asyncflow]", *lines]), "utf-8")
    return file


def loaded(folder: Path, flags: dict[str, Any] | None = None, **environment: str) -> Settings:
    return load_settings(flags, environment=environment, folder=folder).settings


# -- which one wins ----------------------------------------------------------------------------------------------------


def test_a_flag_goes_before_the_environment_before_the_file_before_the_default(tmp_path: Path) -> None:
    assert loaded(tmp_path).port == 8080
    pyproject(tmp_path, "port = 1")
    assert loaded(tmp_path).port == 1
    assert loaded(tmp_path, ASYNCFLOW_PORT="2").port == 2
    assert loaded(tmp_path, {"port": 3}, ASYNCFLOW_PORT="2").port == 3


def test_a_flag_that_is_not_given_and_an_empty_variable_say_nothing(tmp_path: Path) -> None:
    pyproject(tmp_path, "port = 1")
    assert loaded(tmp_path, {"port": None}, ASYNCFLOW_PORT=" ").port == 1


def test_where_each_came_from_is_known(tmp_path: Path) -> None:
    pyproject(tmp_path, "port = 1", 'log-level = "DEBUG"')
    found = load_settings({"host": "h"}, environment={"ASYNCFLOW_CONCURRENCY": "3"}, folder=tmp_path)
    assert {name: (source.kind, source.place) for name, source in found.sources.items() if source.kind != "default"} == {
        "port": ("file", "pyproject.toml [tool.asyncflow] port"),
        "log_level": ("file", "pyproject.toml [tool.asyncflow] log-level"),
        "host": ("flag", "--host"),
        "concurrency": ("environment", "ASYNCFLOW_CONCURRENCY"),
    }
    assert found.settings.log_level == "debug"


def test_the_nearest_file_with_the_table_counts(tmp_path: Path) -> None:
    pyproject(tmp_path, "port = 1", "concurrency = 2")
    inner = tmp_path / "a" / "b"
    pyproject(inner, "port = 3")
    assert (loaded(inner).port, loaded(inner).concurrency) == (3, 64)
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.other]\nport = 9\n", "utf-8")
    assert loaded(tmp_path / "a").port == 1


def test_paths_of_a_file_hold_from_its_own_folder(tmp_path: Path) -> None:
    pyproject(tmp_path, 'store = "sqlite:///shop.db"', 'app = "flows/pizza.py:Order, shop.flows"')
    inner = tmp_path / "inner"
    inner.mkdir()
    found = load_settings(environment={}, folder=inner)
    assert found.settings.store == f"sqlite:///{tmp_path}/shop.db"
    assert found.settings.app == f"{tmp_path}/flows/pizza.py:Order,shop.flows"
    assert found.folders == (inner, tmp_path)
    assert loaded(tmp_path).store == "sqlite:///shop.db"


def test_a_store_on_the_command_line_wins_over_a_server_of_the_surroundings(tmp_path: Path) -> None:
    pyproject(tmp_path, 'url = "http://localhost:1"')
    assert loaded(tmp_path).url == "http://localhost:1"
    assert loaded(tmp_path, {"store": "memory://"}).url is None
    assert loaded(tmp_path, {"url": "http://localhost:2"}, ASYNCFLOW_STORE="memory://").url == "http://localhost:2"
    with pytest.raises(SettingsError, match="--store, --url: expected one of them"):
        loaded(tmp_path, {"store": "memory://", "url": "http://localhost:2"})


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text, seconds", [
    ("7d", 7 * 86_400), ("12h", 43_200), ("30s", 30), ("1h30m", 5_400), ("2w", 14 * 86_400), ("250ms", 0.25),
    ("1.5h", 5_400), ("90", 90), (90, 90), ("P7D", 7 * 86_400), ("PT12H", 43_200), ("0", 0),
    (timedelta(days=1), 86_400),
])  # fmt: skip
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)
    assert parse_duration(show_duration(parse_duration(text))) == parse_duration(text)


@pytest.mark.parametrize("text", ["", "d7", "7 days", "-1s", -1, "1e9", True, None, "P", "12:00", "9" * 30, "nan", [1]])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="expected a duration, as 7d"):
        parse_duration(text)


def test_a_duration_at_a_glance() -> None:
    assert about(timedelta(days=3, hours=4, minutes=5)) == "3d 4h"
    assert about(timedelta(milliseconds=400)) == "0s"
    assert show_duration(timedelta(days=14)) == "14d"


@pytest.mark.parametrize("text, value", [
    ("7d", timedelta(days=7)),
    ("none", None),
    ("Order=7d, Visit = 12h", {"Order": timedelta(days=7), "Visit": timedelta(hours=12)}),
])  # fmt: skip
def test_retention_of_the_environment(tmp_path: Path, text: str, value: object) -> None:
    assert loaded(tmp_path, ASYNCFLOW_RETENTION=text).retention == value


@pytest.mark.parametrize("text, value", [("true", True), ("OFF", False), ("1", True), ("0", False), ("30d", timedelta(days=30))])
def test_history_of_the_environment(tmp_path: Path, text: str, value: object) -> None:
    assert loaded(tmp_path, ASYNCFLOW_HISTORY=text).history == value


def test_tables_of_the_file(tmp_path: Path) -> None:
    pyproject(tmp_path, "history = 3600", "lease = '2m'", "[tool.asyncflow.retention]", "Order = '7d'")
    found = loaded(tmp_path)
    assert found.history == timedelta(hours=1)
    assert found.lease == timedelta(minutes=2)
    assert found.retention == {"Order": timedelta(days=7)}


# -- problems ----------------------------------------------------------------------------------------------------------


def test_all_problems_are_told_at_once_each_with_its_place(tmp_path: Path) -> None:
    pyproject(tmp_path, "prot = 1", "lease = '0s'", "concurrency = true", "app = 7")
    with pytest.raises(SettingsError) as raised:
        loaded(
            tmp_path,
            {"port": "99999"},
            ASYNCFLOW_STORE="mysql://me:secret@host/db",
            ASYNCFLOW_SCHEDULER="cron",
            ASYNCFLOW_RETENTION="soon",
            ASYNCFLOW_HISTORY="maybe",
            ASYNCFLOW_URL="ftp://me:secret@host",
            ASYNCFLOW_LOG_LEVEL="loud",
        )
    problems, known = sorted(raised.value.problems), ", ".join(Settings.model_fields)
    assert problems == sorted([
        f"pyproject.toml [tool.asyncflow] prot: is no setting (did you mean port?); there are: {known}",
        "pyproject.toml [tool.asyncflow] lease: expected a lease of at least 1 s, found '0s'",
        "pyproject.toml [tool.asyncflow] concurrency: expected a whole number, found True",
        "pyproject.toml [tool.asyncflow] app: expected a valid string, found 7",
        "--port: expected a port between 0 (any free one) and 65535, found 99999",
        f"ASYNCFLOW_STORE: expected a store of the kind {' or '.join(f'{kind}://' for kind in KNOWN_SCHEMES)}, found mysql://",
        f"ASYNCFLOW_SCHEDULER: expected a scheduler: {FORMS}, found 'cron'",
        "ASYNCFLOW_RETENTION: expected a duration, as 7d, 12h, 1h30m, 30s, P7D or a number of seconds, found 'soon'",
        "ASYNCFLOW_HISTORY: expected true, false, or how long to keep that of ended instances, as 30d, found 'maybe'",
        "ASYNCFLOW_URL: expected the address of a server, as http://localhost:8080, found 'ftp://me:***@host'",
        "ASYNCFLOW_LOG_LEVEL: expected 'debug', 'info', 'warning' or 'error', found 'loud'",
    ])  # fmt: skip
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("text", ["Order=7d,Visit", "Order=", "=7d,x=1y"])
def test_a_retention_that_is_half_a_table(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="ASYNCFLOW_RETENTION: expected a duration"):
        loaded(tmp_path, ASYNCFLOW_RETENTION=text)


def test_a_file_that_is_no_toml_and_a_table_that_is_none(tmp_path: Path) -> None:
    file = pyproject(tmp_path, "port = x")
    with pytest.raises(SettingsError, match=r"pyproject\.toml: cannot be read: .*line 2"):
        loaded(tmp_path)
    file.write_text("[tool]\nasyncflow = 3\n", "utf-8")
    with pytest.raises(SettingsError, match=r"\[tool\.asyncflow\]: expected a table, found int"):
        loaded(tmp_path)


def test_an_unknown_variable_is_remarked_and_no_problem(tmp_path: Path) -> None:
    found = load_settings(environment={"ASYNCFLOW_STOER": "memory://"}, folder=tmp_path)
    assert found.remarks == ("ASYNCFLOW_STOER is no setting (did you mean ASYNCFLOW_STORE?)",)


@pytest.mark.parametrize("url, shown", [
    ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
    ("sqlite:///a.db", "sqlite:///a.db"),
    ("http://:pw@host", "http://:***@host"),
    ("postgresql://host/db?user=me&password=secret&schema=x", "postgresql://host/db?user=me&password=***&schema=x"),
])  # fmt: skip
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert shown_url(url) == shown


# -- who uses them -----------------------------------------------------------------------------------------------------


def test_a_runner_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyproject(tmp_path, "retention = '7d'")
    monkeypatch.setenv("ASYNCFLOW_STORE", "memory://")
    monkeypatch.setenv("ASYNCFLOW_HISTORY", "false")
    with Runner.from_env([Visit]) as runner:
        visit = runner.start(Visit(guests=3), id="v-1")
        assert visit.result(timeout=10) == 3
        assert list(visit.history()) == []
        stored = runner.store.get("Visit", "v-1")
    assert stored is not None
    assert stored.record.expires_at == stored.record.updated_at + timedelta(days=7)


def test_a_runner_of_a_bad_environment_is_refused_with_all_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCFLOW_CONCURRENCY", "0")
    monkeypatch.setenv("ASYNCFLOW_RETENTION", "soon")
    with pytest.raises(Malformed, match=r"ASYNCFLOW_CONCURRENCY: expected at least 1, found 0\n.*ASYNCFLOW_RETENTION") as raised:
        Runner.from_env([Visit])
    assert len(raised.value.problems) == 2  # type: ignore[attr-defined]


def test_the_command_prints_each_setting_and_its_source(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyproject(tmp_path, "retention = {Visit = '36h'}", "history = false")
    monkeypatch.setenv("ASYNCFLOW_PORT", "9000")
    monkeypatch.setenv("ASYNCFLOW_URL", "http://ann:secret@localhost:1/x/")
    printed = json.loads(shell("settings", "--json", "--caller", "ann", "--concurrency", "3").stdout)
    assert list(printed) == list(Settings.model_fields)
    assert printed["retention"] == {"value": {"Visit": "1d12h"}, "source": "pyproject.toml [tool.asyncflow] retention"}
    assert printed["history"]["value"] is False
    assert printed["port"] == {"value": 9000, "source": "ASYNCFLOW_PORT"}
    assert printed["caller"] == {"value": "ann", "source": "--caller"}
    assert printed["concurrency"] == {"value": 3, "source": "--concurrency"}
    assert printed["lease"] == {"value": "5m30s", "source": "default"}
    assert printed["url"]["value"] == "http://ann:***@localhost:1/x"
    lines = shell("settings").stdout.splitlines()
    assert lines[0].split() == ["setting", "value", "from"]
    assert any(line.split() == ["retention", "Visit=1d12h", "pyproject.toml", "[tool.asyncflow]", "retention"] for line in lines)


def test_the_command_tells_all_problems_on_stderr(shell: Shell, tmp_path: Path) -> None:
    pyproject(tmp_path, "port = -1", "colour = 'red'")
    result = shell("settings", code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("error: the settings have problems:\n")
    assert "  pyproject.toml [tool.asyncflow] port: expected a port" in result.stderr
    assert "  pyproject.toml [tool.asyncflow] colour: is no setting; there are: app," in result.stderr
    assert len(json.loads(shell("list", "--json", code=2).stderr)["error"]["problems"]) == 2


def test_the_command_says_which_variable_it_does_not_know(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCFLOW_CALER", "ann")
    result = shell("settings")
    assert "warning: ASYNCFLOW_CALER is no setting (did you mean ASYNCFLOW_CALLER?)" in result.stderr
