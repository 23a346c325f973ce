"""What a request says, checked once: its sender, body, key, preconditions and query. Everything behind it trusts it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from flask import Request
from werkzeug.exceptions import RequestURITooLarge, UnsupportedMediaType
from werkzeug.http import parse_dict_header

from asyncflow import limits
from asyncflow.errors import InvalidInput, Malformed, PreconditionFailed
from runner.json_text import parse_json

TARGET_CHARACTERS_MAX: Final = 8_000
"""Path and query together, as proxies allow: what stands there may come back in an error, or be laid down."""
THREAD_CHARACTERS_MAX: Final = 2_000
"""The id of a thread is names and keys of the workflow; one that lies with a message takes room in the document."""
KEY_CHARACTERS_MAX: Final = 255
"""As the services that brought the header allow; a thousand of them are kept with an instance."""

_KEY: Final = re.compile(r"[\x21-\x7e]+")
_PC: Final = re.compile(r"\d{1,16}", re.ASCII)
"""As many digits as 2^53 - 1 has, beyond which no program counter is."""
_SECONDS: Final = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)
_YES_NO: Final = {"1": True, "true": True, "0": False, "false": False}


def check_target(request: Request) -> None:
    """Refuse a path with query that is longer than any that means something: `RequestURITooLarge`."""
    length = len(request.path) + len(request.query_string)
    if length > TARGET_CHARACTERS_MAX:
        raise RequestURITooLarge(f"expected path and query of at most {TARGET_CHARACTERS_MAX} characters")


def check_query(request: Request, *names: str) -> None:
    """Refuse a query parameter that means nothing here: passed over, it would be taken for heeded.

    Raises:
        Malformed: there is one besides *names*.
    """
    for name in request.args:
        if name not in names:
            raise Malformed(f"expected {', '.join(names) or 'nothing'} behind the ?, found {name[:100]!r}")


def thread_of(said: object) -> str | None:
    """Give the id of a thread that a caller names, None where he names none.

    Raises:
        InvalidInput: it can be no id.
    """
    if said is not None and not (isinstance(said, str) and len(said) <= THREAD_CHARACTERS_MAX):
        refuse_input("thread", f"expected the id of a thread, a string of at most {THREAD_CHARACTERS_MAX} characters")
    return said


def read_body(request: Request) -> bytes | None:
    """Give the JSON text of a request, None where it has no body. Its size is looked at before it is read.

    Raises:
        TooLarge, RequestEntityTooLarge: it has more than 256 KiB.
        UnsupportedMediaType: it is something else than plain `application/json`.
        Malformed: it is no JSON, or hostile.
    """
    # One more than may be: of a body without a length werkzeug gives this much and is silent about the rest.
    request.max_content_length = limits.BODY_BYTES + 1
    body = request.get_data()
    if not body:
        return None
    if request.mimetype != "application/json":
        raise UnsupportedMediaType(f"expected Content-Type: application/json, found {request.mimetype or 'none'!r}")
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if charset not in ("utf-8", "utf8") or encoding != "identity":
        raise UnsupportedMediaType(f"expected plain UTF-8, found charset {charset!a} and encoding {encoding!a}")
    parse_json(body)
    return body


def read_object(request: Request, *names: str) -> dict[str, Any]:
    """Give a body that is an object with some of these *names*, or nothing.

    Raises:
        InvalidInput: it is something else. Besides, all that `read_body` raises.
    """
    body = read_body(request)
    value = None if body is None else parse_json(body)
    if value is None:
        return {}
    if not isinstance(value, dict):
        refuse_input("", f"expected an object with {', '.join(names) or 'nothing'}")
    for name in value:
        if name not in names:
            refuse_input(name[:100], f"expected {', '.join(names) or 'nothing'}, found another name")
    return value


def refuse_input(path: str, message: str) -> NoReturn:
    """Raise the refusal of a body for what is at *path*."""
    where = f"{path}: " if path else ""
    raise InvalidInput(f"the input does not fit: {where}{message}", errors=[{"path": path, "message": message}])


def idempotency_key(request: Request) -> str | None:
    """Give the `Idempotency-Key`, None where there is none; `Malformed` if it cannot be one."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (len(key) <= KEY_CHARACTERS_MAX and _KEY.fullmatch(key)):
        raise Malformed(f"expected an Idempotency-Key of 1 to {KEY_CHARACTERS_MAX} visible ASCII characters")
    return key


def expected_pc(request: Request) -> int | None:
    """Give the program counter that `If-Match` asks for, None where any will do.

    Raises:
        PreconditionFailed: it names a tag that no instance ever has.
        Malformed: several tags.
    """
    header = request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return None
    if "," in header:
        raise Malformed("expected one entity tag in If-Match, found several")
    tag = header.strip()
    if len(tag) < 3 or tag[0] + tag[-1] != '""' or not _PC.fullmatch(tag[1:-1]):
        raise PreconditionFailed(f'expected If-Match to be an ETag of this instance, as "17", found {tag[:100]!a}')
    return int(tag[1:-1])


def patience(request: Request) -> float:
    """Give how many seconds the caller of an event waits: `Prefer: wait=SECONDS`, at most 60; 10 unless he says it."""
    said = parse_dict_header(request.headers.get("Prefer", "")).get("wait")
    return float(limits.PATIENCE_SECONDS) if said is None else _seconds("Prefer: wait", said)


@dataclass(frozen=True, slots=True)
class LongPoll:
    """A question for what is newer: how many seconds to wait for a program counter above `since`."""

    seconds: float
    since: int


def long_poll(request: Request) -> LongPoll | None:
    """Give what `?wait=…&since=…` asks for, None where the instance is wanted as it is."""
    wait, since = request.args.get("wait"), request.args.get("since")
    if since is None:
        if wait is not None:
            raise Malformed("expected ?wait= together with ?since=, the pc that is known already")
        return None
    if not _PC.fullmatch(since):
        raise Malformed(f"expected since to be a pc, a whole number, found {since[:100]!a}")
    return LongPoll(0.0 if wait is None else _seconds("wait", wait), int(since))


def _seconds(name: str, said: str) -> float:
    if not _SECONDS.fullmatch(said):
        raise Malformed(f"expected {name} to be seconds, as 30, found {said[:100]!a}")
    return min(float(said), float(limits.PATIENCE_MAX_SECONDS))


def is_rehearsal(request: Request) -> bool:
    """Tell whether only the outcome is wanted (`?dry_run=1`)."""
    said = request.args.get("dry_run", "0").lower()
    if said not in _YES_NO:
        raise Malformed(f"expected dry_run to be 1 or 0, found {said[:100]!a}")
    return _YES_NO[said]


def refuse_rehearsal(request: Request) -> None:
    """Refuse `?dry_run=1` where it would not be heeded: starts and events run the user's code."""
    if is_rehearsal(request):
        raise Malformed("dry_run is for the operators' words alone; starts and events cannot be tried")


def page_of(request: Request) -> tuple[int, str | None]:
    """Give page size and page token of a list; the store looks whether they can be such."""
    said = request.args.get("page_size")
    if said is not None and not re.fullmatch(r"\d{1,9}", said, re.ASCII):
        raise Malformed(f"expected page_size to be a whole number, found {said[:100]!a}")
    return limits.PAGE_SIZE if said is None else int(said), request.args.get("page_token") or None


def has_already(request: Request, pc: int) -> bool:
    """Tell whether the caller has the instance at *pc* already (`If-None-Match`); weak tags are as good here."""
    header = request.headers.get("If-None-Match")
    if header is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or f'"{pc}"' in tags
