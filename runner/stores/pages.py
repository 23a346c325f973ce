"""Page tokens: where a page ended, and which question it belonged to. Opaque outside, checked when they come back.

A token is a position, never a right: whoever makes one up sees nothing that the question itself would not show him.
"""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Annotated, Final, TypeAlias, TypeVar

from pydantic import Field, JsonValue, TypeAdapter, ValidationError
from pydantic_core import to_json

from asyncflow import limits
from asyncflow.errors import Malformed

T = TypeVar("T")

# What every store binds as a number: 64 bits, signed.
_Integer: TypeAlias = Annotated[int, Field(ge=-(2**63), lt=2**63)]

# The last line of a page of instances: created_at in microseconds, id, workflow.
Place: TypeAlias = tuple[int, str, str]
PLACE: Final[TypeAdapter[Place]] = TypeAdapter(tuple[_Integer, str, str])
# The last line of a page of history: its `n`.
NUMBER: Final[TypeAdapter[int]] = TypeAdapter(_Integer)

_TOKEN: Final[TypeAdapter[tuple[int, str, JsonValue]]] = TypeAdapter(tuple[int, str, JsonValue])
# The first item of each token, raised when what stands in it changes: old tokens are then refused, not misread.
_FORM: Final = 1
# Two names of 128 characters and a number are 500 of them in base64.
_TOKEN_CHARACTERS_MAX: Final = 2_000


def check_page_size(size: int) -> None:
    """Refuse a page size outside 1 to 1,000: `Malformed`."""
    if not 1 <= size <= limits.PAGE_SIZE_MAX:
        raise Malformed(f"a page has 1 to {limits.PAGE_SIZE_MAX} lines, not {size}")


def list_question(workflows: Sequence[str] | None, status: str | None, filter: str) -> JsonValue:
    """Return what a token of a list belongs to; the order of *workflows* says nothing."""
    names: JsonValue = None if workflows is None else [*sorted(set(workflows))]
    return [names, status, filter]


def make_token(question: JsonValue, place: JsonValue) -> str:
    """Make the token of the page behind *place*, for the same *question* alone."""
    return urlsafe_b64encode(to_json([_FORM, _digest(question), place])).decode().rstrip("=")


def read_token(question: JsonValue, token: str, shape: TypeAdapter[T]) -> T:
    """Return the place in a token that `make_token` made for this *question*; `Malformed` if it is none."""
    if len(token) <= _TOKEN_CHARACTERS_MAX:
        try:
            text = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
            form, digest, place = _TOKEN.validate_json(text, strict=True)
            if (form, digest) == (_FORM, _digest(question)):
                return shape.validate_json(to_json(place), strict=True)
        except (ValueError, ValidationError):
            pass  # no base64, no JSON, or not ours: the same answer to all
    raise Malformed("the page token is none of this list: ask for the first page again, with no token")


def _digest(question: JsonValue) -> str:
    return hashlib.sha256(to_json(question)).hexdigest()[:16]
