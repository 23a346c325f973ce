"""What goes where: data to stdout, the rest to stderr, an exit code for each error, nothing that moves a cursor."""

import inspect
import io
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from asyncflow import AsyncflowError, DefinitionError, Pending, Problem, errors
from runner.cli import COMMANDS, cli
from runner.commands import output
from runner.commands.loglines import JsonLines, PlainLines, set_up_logging
from runner.commands.output import Output, error_json, exit_code, json_block, json_line, table, visible
from runner.settings import SettingsError
from runner.target import TargetError
from tests.cli.conftest import Shell

NOT_ONE = {
    "DefinitionError": 2, "Malformed": 2, "NotFound": 3, "Pending": 4, "Unavailable": 5,
}  # fmt: skip
CLASSES = [thing for thing in vars(errors).values() if inspect.isclass(thing) and issubclass(thing, AsyncflowError)]


# -- exit codes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_has_its_exit_code(cls: type[AsyncflowError]) -> None:
    assert exit_code(cls("what was expected")) == NOT_ONE.get(cls.__name__, 1)


def test_errors_of_the_command_have_theirs() -> None:
    assert exit_code(SettingsError(["a", "b"])) == 2
    assert exit_code(TargetError("nowhere")) == 2
    assert exit_code(TimeoutError("not ended")) == 4


def test_a_store_that_cannot_be_used_is_unreachable(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    away = Shell("", ("--store", f"sqlite:///{tmp_path}/file/x.db", "--app", "tests.cli.shop"))
    for command in (
        ("list",),
        ("start", "Visit", "1"),
        ("show", "Visit/v-1"),
        ("cancel", "Visit", "--status", "Running"),
    ):
        assert away.error(*command, code=5)["type"] == "Unavailable"


def test_a_server_that_is_not_there_is_unreachable(shell: Shell) -> None:
    away = Shell("", ("--url", "http://127.0.0.1:1"))
    error = away.error("list", code=5)
    assert error["type"] == "Unavailable"
    assert error["message"].startswith("there is no server at http://127.0.0.1:1 (")
    assert "start one by `asyncflow serve`" in error["message"]


@pytest.mark.parametrize("arguments", [("frobnicate",), ("list", "--colour"), ("start",), ("send", "Parcel/p-1"), ("show", "x")])
def test_wrong_use_is_told_on_stderr(shell: Shell, arguments: tuple[str, ...]) -> None:
    result = shell(*arguments, code=2)
    assert result.stdout == ""
    assert "Error: " in result.stderr


# -- help --------------------------------------------------------------------------------------------------------------


def test_help_lists_every_command_with_a_whole_sentence(shell: Shell) -> None:
    shown = shell("--help").stdout
    for name in (name for group in COMMANDS.values() for name in group):
        line = next(line for line in shown.splitlines() if line.strip().startswith(f"{name} "))
        assert line.endswith("."), line
        assert not line.endswith("..."), line
    assert "Exit codes: 0 done, 1 refused or ended badly" in shown


@pytest.mark.parametrize("name", [name for group in COMMANDS.values() for name in group])
def test_every_command_has_help_and_examples(shell: Shell, name: str) -> None:
    shown = shell(name, "-h").stdout
    assert f"Usage: cli {name}" in shown
    assert "\\b" not in shown
    if name not in ("docs", "settings"):
        assert f"\n  asyncflow {name} " in shown
    for parameter in cli.get_command(None, name).params:  # type: ignore[arg-type,union-attr]
        assert not isinstance(parameter, click.Option) or parameter.hidden or parameter.help, parameter


@pytest.mark.parametrize("name", [name for group in COMMANDS.values() for name in group])
def test_every_command_has_json(name: str) -> None:
    command = cli.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    assert "--json" in [option for parameter in command.params for option in parameter.opts]


def test_the_version(shell: Shell) -> None:
    assert shell("--version").stdout.startswith("asyncflow, version ")


# -- texts -------------------------------------------------------------------------------------------------------------


def test_what_a_terminal_would_act_on_is_not_printed() -> None:
    assert visible("a\x1b[2Jb\x07\x9bc\r\td\n") == "a\N{REPLACEMENT CHARACTER}[2Jb" + "\N{REPLACEMENT CHARACTER}" * 2 + (
        "c\N{REPLACEMENT CHARACTER}\td\n"
    )
    for text in (json_line("\x1b\x9b\x7f\ud800ü"), json_block("\x1b\x9b\x7f\ud800ü")):
        assert text == '"\\u001b\\u009b\\u007f\\ud800ü"'
        assert json.loads(text) == "\x1b\x9b\x7f\ud800ü"


def test_texts_of_workflows_are_no_markup(shell: Shell) -> None:
    shell.run("start", "Parcel", '{"customer": "[red]ann[/red] :smile: \\u001b[2J"}', "--id", "p-1")
    shown = shell.run("show", "Parcel/p-1").stdout
    assert "customer=[red]ann[/red] :smile: \N{REPLACEMENT CHARACTER}[2J" in shown
    assert '"customer": "[red]ann[/red] :smile: \\u001b[2J"' in shown
    assert "\x1b" not in shown


def test_nothing_is_cut_or_coloured_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    Output().data({}, table(["name", "text"], [("a", "x" * 300), ("b", None)]))
    assert stream.getvalue() == f"name  text\na     {'x' * 300}\nb\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_colours_unless_it_does_not_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for wanted in (True, False):
        stream = Terminal()
        monkeypatch.setattr(sys, "stdout", stream)
        Output().show(output.status_text("Failed"))
        assert ("\x1b[31mFailed" in stream.getvalue()) is wanted
        monkeypatch.setenv("NO_COLOR", "1")


# -- errors ------------------------------------------------------------------------------------------------------------


def printed(error: BaseException, *, as_json: bool = False) -> str:
    stream, before = io.StringIO(), sys.stderr
    sys.stderr = stream
    try:
        Output(as_json=as_json).error(error)
    finally:
        sys.stderr = before
    return stream.getvalue()


def test_an_error_says_what_to_do() -> None:
    assert printed(errors.NotFound("there is no X/1")) == "error: there is no X/1\n"
    assert printed(Pending("it lies", idempotency_key="k")) == "pending: it lies\n  ask again with --key k\n"
    failed = errors.HandlerFailed("the handler failed")
    failed.__cause__ = KeyError("size")
    assert printed(failed) == "error: the handler failed: KeyError: 'size'\n"
    rejected = printed(errors.Rejected("closed", details={"until": "nine"}))
    assert rejected == 'error: closed\n  details: {\n    "until": "nine"\n  }\n'
    many = [{"path": f"a/{n}", "message": "is wrong"} for n in range(7)]
    assert printed(errors.InvalidInput("x", errors=many)).splitlines()[1:] == ["  a/5: is wrong", "  a/6: is wrong"]


def test_a_remark_is_json_too_where_that_is_asked_for(shell: Shell) -> None:
    result = shell("list", "--store", "sqlite:///typo.db", "--json")
    assert "there is no store at" in json.loads(result.stderr)["warning"]


def test_all_problems_are_printed_on_lines_of_their_own() -> None:
    problems = [
        Problem(path="a", message="is doubled", source="f.py:1"),
        Problem(path="", message="no", source="f.py:2"),
    ]
    assert printed(DefinitionError(problems)).splitlines() == [
        "error: the definition has 2 problems:",
        "  a: is doubled (f.py:1)",
        "  (definition): no (f.py:2)",
    ]
    assert printed(SettingsError(["A: x", "B: y"])).splitlines() == [
        "error: the settings have problems:",
        "  A: x",
        "  B: y",
    ]
    assert printed(SettingsError(["A: x"])) == "error: A: x\n"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_is_json_as_well(cls: type[AsyncflowError]) -> None:
    said = json.loads(printed(cls("why", details={"a": 1}), as_json=True))["error"]
    assert said == json.loads(json.dumps(error_json(cls("why", details={"a": 1}))))
    assert (said["type"], said["message"], said["code"], said["details"]) == (cls.__name__, "why", cls.code, {"a": 1})


# -- times -------------------------------------------------------------------------------------------------------------

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_times_are_counted() -> None:
    assert output.until((NOW + timedelta(hours=23, minutes=59, seconds=59)).isoformat(), NOW) == "in 23h 59m"
    assert output.until(NOW.isoformat(), NOW) == "now"
    assert output.until(None, NOW) == ""
    assert output.ago("2026-01-31T11:58:55Z", NOW) == "1m 5s ago"
    assert output.ago("2026-01-31T12:00:01Z", NOW) == "0s ago"
    assert output.ago("soon", NOW) == ""


# -- log lines ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logging.captureWarnings(capture=False)


def test_a_log_line_is_one_json_object_with_what_it_carries(root: logging.Logger) -> None:
    stream = io.StringIO()
    set_up_logging("info", stream)
    logger = logging.getLogger("asyncflow.test")
    logger.debug("not this")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("failed %d times", 3, extra={"instance": "X/1", "thread_id": "main", "took": timedelta(seconds=1)})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    line = json.loads(lines[0])
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line.pop("error").endswith("ValueError: two\nlines")
    assert line == {
        "level": "error", "logger": "asyncflow.test", "message": "failed 3 times", "instance": "X/1", "thread": "main",
        "took": "PT1S",
    }  # fmt: skip
    assert isinstance(root.handlers[0].formatter, JsonLines)


def test_people_get_plain_lines(root: logging.Logger) -> None:
    stream = Terminal()
    set_up_logging("debug", stream)
    logging.getLogger("asyncflow.test").info("hello\x1b[2J", extra={"instance": "X/1"})
    assert stream.getvalue()[8:] == " info     hello\N{REPLACEMENT CHARACTER}[2J  instance=X/1\n"
    assert isinstance(root.handlers[0].formatter, PlainLines)
