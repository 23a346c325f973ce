"""Every error that asyncflow raises, each with its HTTP code, and `Failure`, an error as it is stored."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from traceback import TracebackException
from typing import Any, Self, TypeAlias

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, JsonValue

from asyncflow import limits

ErrorTypes: TypeAlias = tuple[type[BaseException], ...]

# Their schemas are built at first use: most programs import all and need few.
_LAZY = ConfigDict(defer_build=True)
_CUT = "…"
_START_OF_TIME = datetime(1970, 1, 1, tzinfo=UTC)


class Problem(BaseModel):
    """One thing that is wrong with a definition: the path of the statement, what, and `file:line`."""

    model_config = _LAZY

    path: str
    message: str
    source: str


class Awaited(BaseModel):
    """What an instance would take now: an event, the thread that waits, who may send it, the schema of its input."""

    model_config = _LAZY

    event: str
    thread: str
    role: list[str] | None
    # Only JSON calls it "schema": as an attribute that name belongs to BaseModel.
    schema_: dict[str, JsonValue] | None = Field(validation_alias=AliasChoices("schema", "schema_"), serialization_alias="schema")


class Failure(BaseModel):
    """An error as it is stored: what an `Except` handler gets and what the instance shows.

    `type` is the class's name, `bases` are the qualified names of the class and its bases, `code` is an HTTP status,
    `path` and `attempt` say where it was raised, `at` when.
    """

    model_config = _LAZY

    type: str
    bases: list[str]
    message: str
    code: int
    details: JsonValue
    path: str
    attempt: int
    at: datetime
    traceback: str

    @classmethod
    def of(cls, error: BaseException, *, path: str, attempt: int, at: datetime) -> Self:
        """Make the stored form of *error*, raised at *path* in that *attempt*.

        Whatever the exception holds, the result is JSON that a document can keep: texts are cut to their limits (of a
        traceback the end is kept), and details that are no JSON, or too large, are left out.
        """
        return cls(
            type=_clean(error.__class__.__name__),
            bases=[qualified_name(base) for base in error.__class__.__mro__ if base is not object],
            message=_start_of(_message_of(error), limits.ERROR_TEXT_BYTES),
            code=_status_of(error),
            details=_stored_details(getattr(error, "details", None)),
            path=path,
            attempt=attempt,
            at=at,
            traceback=_end_of("".join(TracebackException.from_exception(error).format()), limits.TRACEBACK_BYTES),
        )

    def matches(self, types: ErrorTypes) -> bool:
        """Tell whether an `Except` for *types* takes this error: by name, so that it works after a reload."""
        return any(qualified_name(wanted) in self.bases for wanted in types)


def qualified_name(cls: type[Any]) -> str:
    """Name a class by module and qualified name, as `Failure.bases` does."""
    return f"{cls.__module__}.{cls.__qualname__}"


class AsyncflowError(Exception):
    """The root of all. `code` is an HTTP status, `details` is any JSON that goes with the message.

    A subclass may set another `code` as its class's default.
    """

    message: str
    code: int = 500
    details: JsonValue = None

    def __init__(self, message: str, /, *, code: int | None = None, details: JsonValue = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        if details is not None:
            self.details = details

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Without calling __init__, whose arguments a subclass may have changed.
        return _restored, (self.__class__, self.args), self.__dict__


class DefinitionError(AsyncflowError):
    """A workflow that cannot work: all its `problems` at once, each with path and source line. Mend the code."""

    problems: list[Problem]

    def __init__(self, problems: Sequence[Problem] | str, /, *, code: int | None = None, details: JsonValue = None) -> None:
        self.problems = [] if isinstance(problems, str) else list(problems)
        lines = [f"{problem.path or '(definition)'}: {problem.message} ({problem.source})" for problem in self.problems]
        super().__init__(problems if isinstance(problems, str) else "\n".join(lines), code=code, details=details)


class Rejected(AsyncflowError):
    """Raised by a handler: the event is refused with this code, nothing has changed."""

    code = 409


class TerminalError(AsyncflowError):
    """Raised by an action: never retried; the nearest `Try` catches it, else the instance fails."""


class Uncertain(TerminalError):
    """Whether a step with `idempotent=False` took effect is unknown: find out before you repeat it."""


class Lost(AsyncflowError):
    """An attempt whose worker went away; the step is tried again."""

    code = 503


class Cancelled(BaseException):
    """Raised at the blocked statement by a cancel. Not an Exception: `Except(Exception, …)` does not swallow it."""

    message: str
    code: int = 409
    details: JsonValue = None

    def __init__(self, message: str = "the workflow is cancelled", /) -> None:
        super().__init__(message)
        self.message = message


class RunawayWorkflow(AsyncflowError):
    """One write walked too many statements and changed nothing: a loop without a statement that blocks."""


class Malformed(AsyncflowError):
    """No JSON, hostile JSON, or an id, page token or filter that cannot be one."""

    code = 400


class Unauthorized(AsyncflowError):
    """No credentials, or none that are known. Kept for authentication, which a later release brings."""

    code = 401


class Forbidden(AsyncflowError):
    """The caller may not do that: it is a page of another site, or came under a foreign name of this host."""

    code = 403


class NotFound(AsyncflowError):
    """There is no such workflow, instance, event, query or promise."""

    code = 404


class AlreadyExists(AsyncflowError):
    """The id is taken by another instance."""

    code = 409


class NotApplicable(AsyncflowError):
    """The verb does not fit: `retry` of a thread that is neither parked nor in backoff."""

    code = 409


class NotAwaited(AsyncflowError):
    """Nobody waits for the event, and nobody is on the way to it; `awaits` says what would be taken now."""

    code = 409
    awaits: list[Awaited]

    def __init__(
        self, message: str, /, *, awaits: Sequence[Awaited] = (), code: int | None = None, details: JsonValue = None
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.awaits = list(awaits)


class Ended(AsyncflowError):
    """The instance has ended; its document does not change any more."""

    code = 410


class PreconditionFailed(AsyncflowError):
    """The instance has changed since the `pc` that was named: look again."""

    code = 412


class TooLarge(AsyncflowError):
    """A body or a document beyond its limit."""

    code = 413


class InvalidInput(AsyncflowError):
    """An input that its schema refuses; `errors` says where and why, each as `{path, message}`."""

    code = 422

    def __init__(
        self,
        message: str,
        /,
        *,
        errors: Sequence[Mapping[str, str]] | None = None,
        code: int | None = None,
        details: JsonValue = None,
    ) -> None:
        if errors is not None:
            details = {"errors": [{"path": error["path"], "message": error["message"]} for error in errors]}
        super().__init__(message, code=code, details=details)

    @property
    def errors(self) -> list[dict[str, str]]:
        """What is wrong, each as `{path, message}`; empty where the message says all."""
        errors = self.details.get("errors") if isinstance(self.details, dict) else None
        if not isinstance(errors, list):
            return []
        return [{key: str(text) for key, text in error.items()} for error in errors if isinstance(error, dict)]


class InvalidState(AsyncflowError, ValueError):
    """A state or a result that cannot be stored: no JSON, or not valid. The message names the place; nothing has changed."""

    # Also a ValueError, as what pydantic and json raise for the same.


class KeyReused(AsyncflowError):
    """The idempotency key came before, with another body."""

    code = 422


class Full(AsyncflowError):
    """The inbox or the document has no room: send again later."""

    code = 429


class HandlerFailed(AsyncflowError):
    """A handler raised something else than `Rejected`; it is the `__cause__`. Nothing has changed."""


class Unavailable(AsyncflowError):
    """The store is away, the process is draining, or this code cannot read the instance: try again later."""

    code = 503


class AnswerDropped(AsyncflowError):
    """The event was handled long ago; its answer is no longer kept."""

    code = 410


class WorkflowFailed(AsyncflowError):
    """The instance whose result was asked for has failed; `failure` says why."""

    failure: Failure

    def __init__(
        self,
        reason: Failure | str,
        /,
        *,
        failure: Failure | None = None,
        code: int | None = None,
        details: JsonValue = None,
    ) -> None:
        message = reason if isinstance(reason, str) else f"{reason.type}: {reason.message}"
        super().__init__(message, code=code, details=details)
        if not isinstance(reason, str):
            failure = reason
        # Told without one (by a server that keeps it to itself), the failure is this error's own.
        self.failure = failure or Failure.of(self, path="", attempt=0, at=_START_OF_TIME)


class WorkflowCancelled(AsyncflowError):
    """The instance whose result was asked for was cancelled."""

    code = 409


class Pending(AsyncflowError):
    """Not a failure: stored and to be handled. The same call with this `idempotency_key` gives the answer."""

    code = 202
    idempotency_key: str

    def __init__(self, message: str, /, *, idempotency_key: str = "", code: int | None = None, details: JsonValue = None) -> None:
        super().__init__(message, code=code, details=details)
        self.idempotency_key = idempotency_key


# Stored failures name these classes by their public address, so that a move between files orphans none of them.
for _public in list(globals().values()):
    if isinstance(_public, type) and issubclass(_public, BaseException):
        _public.__module__ = "asyncflow"


def _restored(cls: type[AsyncflowError], args: tuple[Any, ...]) -> AsyncflowError:
    return cls.__new__(cls, *args)


def _message_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide the error it belongs to
        return f"<{error.__class__.__name__} that cannot be shown>"


def _status_of(error: BaseException) -> int:
    code: object = getattr(error, "code", None)
    # Others have a `code` too that is no HTTP status: SystemExit, drivers of databases.
    return code if isinstance(code, int) and not isinstance(code, bool) and 100 <= code <= 599 else 500


def _clean(text: str) -> str:
    """Replace what restricted JSON (rule 5) cannot hold: lone surrogates and NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _start_of(text: str, most: int) -> str:
    data = _clean(text).encode()
    return data.decode() if len(data) <= most else data[: most - len(_CUT.encode())].decode(errors="ignore") + _CUT


def _end_of(text: str, most: int) -> str:
    data = _clean(text).encode()
    kept = data[len(data) - most + len(_CUT.encode()) :]
    return data.decode() if len(data) <= most else _CUT + kept.decode(errors="ignore")


def _stored_details(details: object) -> JsonValue:
    try:
        text = json.dumps(details, allow_nan=False, ensure_ascii=False) if _is_restricted(details) else "null"
        return json.loads(text) if len(text.encode()) <= limits.ERROR_DETAILS_BYTES else None
    except (ValueError, RecursionError):
        return None


def _is_restricted(value: object, depth: int = 1) -> bool:
    """Tell whether *value* is restricted JSON (rule 5) as it stands, without a conversion that would change it."""
    match value:
        case None | bool():
            return True
        case str():
            return "\0" not in value
        case int():
            return abs(value) <= limits.JSON_INTEGER_MAX
        case float():
            return math.isfinite(value)
        case list():
            return depth <= limits.STATE_DEPTH and all(_is_restricted(item, depth + 1) for item in value)
        case dict():
            return depth <= limits.STATE_DEPTH and all(
                isinstance(key, str) and "\0" not in key and _is_restricted(item, depth + 1) for key, item in value.items()
            )
        case _:
            return False
