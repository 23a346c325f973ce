"""Ids of instances: what can be one, and what a start takes when nobody named one."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final

from asyncflow.errors import Malformed

ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")
NO_IDS: Final = frozenset({"docs", "definition", "graph"})
"""What stands in the place of an id in HTTP paths."""


def check_id(id: str) -> None:
    """Check an id once, at the edge.

    Raises:
        Malformed: it cannot be one.
    """
    if not ID.match(id) or id in NO_IDS:
        none_of = ", ".join(sorted(NO_IDS))
        raise Malformed(f"an id matches [A-Za-z0-9_-]{{1,128}} and is none of {none_of}; found {id[:200]!a}")


def id_for(id: str | None, key: str | None) -> str:
    """Give the id of a start: as given, else made from the idempotency key's hash, else random (rule 27).

    Raises:
        Malformed: the given one cannot be one.
    """
    if id is None:
        if key is None:
            return secrets.token_urlsafe(16).replace("_", "-").strip("-") or secrets.token_hex(16)
        return hashlib.sha256(key.encode()).hexdigest()[:32]
    check_id(id)
    return id
