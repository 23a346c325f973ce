"""What is typed behind a command: instances as `PizzaOrder/o-1`, and JSON given as it is, as `@file` or as `-`."""

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from asyncflow import limits
from asyncflow.errors import Malformed, TooLarge
from runner.json_text import parse_json

SHOWN_CHARACTERS = 60
"""How much of a faulty line is shown around the fault: less than a terminal is wide."""


def instance_name(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, str] | None:
    """Split `PizzaOrder/o-1` at the first stroke: a callback of click."""
    if value is None:
        return None
    workflow, _, id_ = value.partition("/")
    if not workflow or not id_:
        raise click.BadParameter(f"expected WORKFLOW/ID, as PizzaOrder/o-1, found {value!r}", ctx, param)
    return workflow, id_


def json_text(ctx: click.Context, param: click.Parameter, value: str | None) -> bytes | None:
    """Read and check JSON, as it is typed, from `@file`, or from standard input (`-`): a callback of click."""
    if value is None:
        return None
    try:
        return read_json(value)
    except (Malformed, TooLarge) as error:
        raise click.BadParameter(error.message, ctx, param) from error


def read_json(given: str) -> bytes:
    """Read JSON that was typed, or lies where it says.

    Raises:
        Malformed: It is none, or hostile; the text shows the place.
        TooLarge: It is more than a body may have.
    """
    if given == "-":
        text, where = _read(sys.stdin.buffer), "standard input"
    elif given.startswith("@"):
        where = given[1:]
        try:
            with Path(where).open("rb") as file:
                text = _read(file)
        except OSError as error:
            raise Malformed(f"expected a file with JSON behind the @: {where}: {error.strerror or error}") from error
    else:
        text, where = given.encode("utf-8", "surrogateescape"), ""
    check_json(text, where)
    return text


def _read(file: Any) -> bytes:
    # One byte more than fits is enough to know.
    text: bytes = file.read(limits.BODY_BYTES + 1)
    return text


def check_json(text: bytes, where: str = "") -> None:
    """Look whether *text* is JSON that can be kept.

    Args:
        text: What was given.
        where: Where it lies, empty for what was typed.

    Raises:
        Malformed: It is none; the text shows the place.
        TooLarge: It is more than a body may have.
    """
    behind = f" in {where}" if where else ""
    if len(text) > limits.BODY_BYTES:
        raise TooLarge(f"expected JSON of at most {limits.BODY_BYTES // limits.KIB} KiB{behind}, found more")
    try:
        parse_json(text)
    except Malformed as refused:
        try:
            json.loads(text.decode("utf-8"))
        except json.JSONDecodeError as error:
            _refuse(error, plain=error.doc, typed=not where, behind=behind)
        except (ValueError, RecursionError):  # not for its place
            pass
        raise Malformed(f"{refused}{f' ({where})' if where else ''}") from refused


def _refuse(error: json.JSONDecodeError, *, plain: str, typed: bool, behind: str) -> NoReturn:
    line = (plain.splitlines() or [""])[min(error.lineno, max(len(plain.splitlines()), 1)) - 1]
    begin = max(0, error.colno - 1 - SHOWN_CHARACTERS // 2)
    shown = line[begin : begin + SHOWN_CHARACTERS]
    place = f"line {error.lineno}, column {error.colno}" if "\n" in plain else f"column {error.colno}"
    said = f"expected JSON{behind}, found a fault at {place}: {error.msg}"
    hint = ""
    if typed and plain.strip() and plain.strip()[0] not in '{["':
        hint = f"\nA text is in double quotes, and in single ones for the shell: '{json.dumps(plain, ensure_ascii=False)}'"
    elif typed and plain.strip()[:1] in ("{", "["):
        hint = "\nPut the whole of it into single quotes, so that the shell hands on the double ones."
    raise Malformed(f"{said}\n  {shown}\n  {' ' * (error.colno - 1 - begin)}^{hint}") from error
