"""The log of `serve`, `worker` and `dev`: one line for each record on stderr, JSON unless a person looks at it."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from pydantic_core import to_jsonable_python

from runner.commands.output import visible

_STANDARD: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"})
"""What every record has; the rest is what its caller has added: instance, thread, step."""
_NAMES: Final = {"thread_id": "thread"}
"""Fields that cannot be called by their name in a record."""


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    added = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return {_NAMES.get(name, name): to_jsonable_python(value, fallback=str) for name, value in added.items()}


class JsonLines(logging.Formatter):
    """`{"time", "level", "logger", "message", …}` and what a record carries besides; the traceback as `error`."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in _fields(record).items() if name not in line}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class PlainLines(logging.Formatter):
    """`12:30:05 info     message  instance=PizzaOrder/o-1`, for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line, with the traceback below it."""
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")  # noqa: DTZ006 - the clock on the wall
        fields = "".join(f"  {name}={value}" for name, value in _fields(record).items())
        text = visible(f"{time} {record.levelname.lower():<8} {record.getMessage()}{fields}")
        return f"{text}\n{visible(self.formatException(record.exc_info))}" if record.exc_info else text


def set_up_logging(level: str, stream: TextIO | None = None, *, as_json: bool = False) -> None:
    """Send everything of *level* and above to *stream* (stderr).

    Args:
        level: debug, info, warning or error.
        stream: Where to.
        as_json: JSON lines also where it is a terminal.
    """
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PlainLines() if stream.isatty() and not as_json else JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)
    # What it says at this level is ours to say, in our words.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
