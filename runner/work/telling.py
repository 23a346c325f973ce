"""What the log tells an operator of instances: one line for each notice of a write, once that is saved.

A line names the instance and what went wrong, and never a value of a state. Ordinary saves have no notices and cost nothing here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from asyncflow import limits
from asyncflow.activation import Notice
from asyncflow.errors import Failure
from asyncflow.instance import Thread, ThreadStatus
from runner.stores.base import Key

LOG: Final = logging.getLogger("asyncflow")

ERROR_CHARACTERS: Final = 300
"""Of an error's message: the whole is in the instance and in its history."""


def tell(key: Key, notices: Sequence[Notice]) -> None:
    """Write what an operator has to know of a write of *key* that was saved."""
    name = f"{key.workflow}/{key.id}"
    for notice in notices:
        level, text, fields = _LINES[notice.kind](notice)
        LOG.log(level, "%s: %s", name, text, extra={"instance": name, **fields})


_Line = tuple[int, str, dict[str, Any]]


def _failed(notice: Notice) -> _Line:
    """An attempt failed: also what follows it."""
    thread, failure = notice.thread, notice.failure
    assert thread is not None
    assert failure is not None
    what = "was lost" if failure.type == "Lost" else "failed"
    text = f"attempt {notice.attempt} of {notice.path} {what} ({_error(failure)}); {_what_follows(thread, notice.attempt, failure)}"
    return logging.WARNING, text, _fields(notice)


def _what_follows(thread: Thread, attempt: int, failure: Failure) -> str:
    if thread.lease is not None and thread.attempt == attempt + 1:
        return "the next attempt begins at once"
    if thread.error is None or (thread.error.at, thread.error.message) != (failure.at, failure.message):
        return "no other attempt follows"  # it is in the tree, where a Try may take it
    if thread.status is ThreadStatus.Paused:
        return f"the thread {thread.id} is parked: it waits for a retry or a skip"
    return f"the next attempt is at {_shown(thread.retry_at)}" if thread.retry_at is not None else "no other attempt follows"


def _parked(notice: Notice) -> _Line:
    assert notice.failure is not None
    assert notice.thread is not None
    text = f"the thread {notice.thread.id} is parked at {notice.path} ({_error(notice.failure)}): it waits for a retry or a skip"
    return logging.WARNING, text, _fields(notice)


def _lost(notice: Notice) -> _Line:
    text = f"attempt {notice.attempt} at {notice.path}, which this code does not know, has ended: whether it took effect is unknown"
    return logging.WARNING, text, _fields(notice)


def _stray(notice: Notice) -> _Line:
    assert notice.thread is not None
    assert notice.thread.stray is not None
    text = (
        f"this code has no statement {notice.path!r}, at which the thread {notice.thread.id} stands: it is looked for again and "
        f"again for about three hours, then the thread is parked"
    )
    return logging.WARNING, text, _fields(notice)


def _ended(notice: Notice) -> _Line:
    error = "" if notice.failure is None else f" ({_error(notice.failure)})"
    where = f" at {notice.failure.path}" if notice.failure is not None and notice.failure.path else ""
    return logging.ERROR, f"has failed{where}{error}", _fields(notice)


def _large(notice: Notice) -> _Line:
    most = limits.DOCUMENT_BYTES // limits.KIB
    text = f"its document has {notice.size // limits.KIB} KiB now: each save writes all of it, and more than {most} KiB are refused"
    return logging.WARNING, text, {"bytes": notice.size}


_LINES: Final = {"failed": _failed, "parked": _parked, "lost": _lost, "stray": _stray, "ended": _ended, "large": _large}


def _fields(notice: Notice) -> dict[str, Any]:
    fields: dict[str, Any] = {"path": notice.path or (notice.failure.path if notice.failure is not None else "")}
    if notice.thread is not None:
        fields["thread_id"] = notice.thread.id
    if notice.attempt:
        fields["attempt"] = notice.attempt
    if notice.failure is not None:
        fields["error_type"] = notice.failure.type
    return fields


def _error(failure: Failure) -> str:
    message = " ".join(failure.message.split())
    cut = message if len(message) <= ERROR_CHARACTERS else message[: ERROR_CHARACTERS - 1] + "…"
    return f"{failure.type}: {cut}" if cut else failure.type


def _shown(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
