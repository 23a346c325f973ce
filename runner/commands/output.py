"""What commands print: data on stdout, everything else on stderr; colours on terminals alone."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.table import Table
from rich.text import Text

from asyncflow import AsyncflowError, DefinitionError, NotAwaited, Pending
from asyncflow.errors import HandlerFailed, InvalidInput, Malformed, NotFound, Unavailable
from runner.commands.access import JsonObject
from runner.durations import about
from runner.settings import SettingsError

DONE: Final = 0
REFUSED: Final = 1
"""Refused, or ended badly."""
WRONG_USE: Final = 2
NOT_FOUND: Final = 3
PENDING: Final = 4
UNREACHABLE: Final = 5

WIDE: Final = 100_000
"""Columns of what is no terminal: nothing may be cut or folded that another program reads."""

STYLES: Final = {"Running": "green", "Paused": "yellow", "Finished": "blue", "Failed": "red", "Cancelled": "magenta"}

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What could move the cursor or ring: texts come from workflows and from whoever sends to them."""


def exit_code(error: BaseException) -> int:
    """The exit code of a command that ended with *error*."""
    if isinstance(error, Pending | TimeoutError):
        return PENDING
    if isinstance(error, NotFound):
        return NOT_FOUND
    if isinstance(error, Malformed | DefinitionError):
        return WRONG_USE
    if isinstance(error, Unavailable):
        return UNREACHABLE
    return REFUSED


def visible(text: object) -> str:
    """Give a text without what a terminal would act on."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text))


def json_line(value: Any) -> str:
    """Give JSON on one line; what a terminal would act on is escaped."""
    return _escaped(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def json_block(value: Any) -> str:
    """Give JSON for people: indented."""
    return _escaped(json.dumps(value, ensure_ascii=False, indent=2))


def _escaped(text: str) -> str:
    # json.dumps has escaped all below the space; lone surrogates could not be printed.
    return re.sub(r"[\x7f-\x9f\ud800-\udfff]", lambda found: f"\\u{ord(found.group()):04x}", text)


class Output:
    """Where one command prints. `as_json`: everything is JSON, one value a line, also errors."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.out = _console(sys.stdout)
        self.err = _console(sys.stderr)

    @property
    def whole(self) -> bool:
        """Whether nothing may be cut: another program reads it."""
        return not self.out.is_terminal

    @property
    def asks(self) -> bool:
        """Whether somebody sits there who can be asked."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def value(self, value: Any) -> None:
        """Print a value of a workflow: JSON in either form."""
        click.echo(json_line(value) if self.as_json else json_block(value))

    def data(self, value: Any, shown: Any) -> None:
        """Print *value* as JSON, or for people what *shown* draws of it."""
        if self.as_json:
            click.echo(json_line(value))
        else:
            self.show(shown)

    def show(self, shown: Any) -> None:
        """Print for people: a text, or what rich draws."""
        if isinstance(shown, str):
            click.echo(visible(shown))
        elif self.out.is_terminal:
            self.out.print(shown)
        else:  # the columns of the last cells are blank up to the width of a terminal that is not there
            with self.out.capture() as drawn:
                self.out.print(shown)
            click.echo("\n".join(line.rstrip() for line in drawn.get().splitlines()))

    def note(self, text: str) -> None:
        """Say something to whoever looks on; it is no data."""
        if self.as_json:
            click.echo(json_line({"note": text}), err=True)
            return
        self.err.print(Text(visible(text)), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Say something that should be mended."""
        if self.as_json:
            click.echo(json_line({"warning": text}), err=True)
            return
        self.err.print(Text().append("warning: ", "yellow").append(visible(text)), soft_wrap=True)

    def error(self, error: BaseException) -> None:
        """Say why it did not go."""
        if self.as_json:
            click.echo(json_line({"error": error_json(error)}), err=True)
            return
        # What is pending has gone well so far.
        head = ("pending: ", "yellow") if isinstance(error, Pending) else ("error: ", "bold red")
        self.err.print(Text().append(*head).append(visible(_said(error))), soft_wrap=True)
        for line in _more(error):
            self.err.print(Text(f"  {visible(line)}"), soft_wrap=True)


def _console(stream: Any) -> Console:
    terminal = stream.isatty()
    return Console(
        file=stream,
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        width=None if terminal else WIDE,
        highlight=False,
        markup=False,
        emoji=False,
    )


# -- errors ------------------------------------------------------------------------------------------------------------


def error_json(error: BaseException) -> JsonObject:
    """An error as `--json` prints it: `{type, message, code, details}`, and what else its class has."""
    code = getattr(error, "code", None)
    said: JsonObject = {
        "type": type(error).__name__,
        "message": str(error),
        "code": code if isinstance(code, int) else 500,
        "details": to_jsonable_python(getattr(error, "details", None), fallback=str),
    }
    if isinstance(error, NotAwaited):
        said["awaits"] = [one.model_dump(mode="json", by_alias=True) for one in error.awaits]
    if isinstance(error, Pending):
        said["idempotency_key"] = error.idempotency_key
    if cause := _cause(error):
        said["cause"] = cause
    if isinstance(error, DefinitionError):
        said["problems"] = [one.model_dump() for one in error.problems]
    if isinstance(error, SettingsError):
        said["problems"] = list(error.problems)
    return said


def _cause(error: BaseException) -> str:
    """Why a handler has failed: on a store of this machine whoever asks may know; a server does not tell."""
    cause = error.__cause__ if isinstance(error, HandlerFailed) else None
    return "" if cause is None else f"{type(cause).__name__}: {cause}"


def _said(error: BaseException) -> str:
    if isinstance(error, DefinitionError) and error.problems:
        number = len(error.problems)
        return f"the definition has {'a problem' if number == 1 else f'{number} problems'}:"
    if isinstance(error, SettingsError) and len(error.problems) > 1:
        return "the settings have problems:"
    if cause := _cause(error):
        return f"{error}: {cause}"
    return str(error) or type(error).__name__


def _more(error: BaseException) -> Iterable[str]:
    if isinstance(error, DefinitionError):
        yield from str(error).splitlines() if error.problems else ()
    elif isinstance(error, SettingsError) and len(error.problems) > 1:
        yield from error.problems
    elif isinstance(error, InvalidInput):
        yield from (f"{one['path']}: {one['message']}" if one.get("path") else one["message"] for one in error.errors[5:])
    elif isinstance(error, Pending):
        yield f"ask again with --key {error.idempotency_key}"
    elif isinstance(error, AsyncflowError) and error.details is not None and not isinstance(error, NotAwaited):
        yield from f"details: {json_block(error.details)}".splitlines()


# -- tables and times --------------------------------------------------------------------------------------------------


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A plain table; a cell is a text, a rich Text, or None for nothing."""
    made = Table(*columns, box=None, pad_edge=False, header_style="bold", show_header=True)
    for column in made.columns:
        column.overflow = "fold"
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(visible("" if cell is None else cell)) for cell in row))
    return made


def status_text(status: object) -> Text:
    """A status in its colour."""
    return Text(visible(status), STYLES.get(str(status), "default"))


def moment_of(text: object) -> datetime | None:
    """Read a time that an instance shows."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def ago(text: object, now: datetime) -> str:
    """Say how long ago a time was: `3m 5s ago`."""
    moment = moment_of(text)
    return "" if moment is None else f"{about(max(now - moment, timedelta(0)))} ago"


def until(text: object, now: datetime) -> str:
    """Count down to a time: `in 23h 59m`, or `now`."""
    moment = moment_of(text)
    if moment is None:
        return ""
    return "now" if moment <= now else f"in {about(moment - now)}"
