"""How a store lies in Firestore: names of documents, their fields, and what the indexes sort by. Needs no client library.

One document for each instance, in one collection. Below it, where history is kept, one document for each write with
entries, and a marker once the instance has ended, by which old history is found.
"""

import zlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, unquote

from runner.stores.base import Key
from runner.stores.encoding import micros

SHARDS: Final = 8
"""In how many parts the due work of one workflow is indexed: one ascending index takes 500 writes a second, these eight 4,000."""

CREATED: Final = ("workflow", "uid", "born", "created_at", "due_shard")
"""Fields that only the create writes. `born` is random: an id that is used again is another instance with another history."""
SAVED: Final = (
    "status", "rev", "saves", "updated_at", "due_at", "saved_due_at", "expires_at", "expiry", "labels", "holders",
    "unplaced", "unfit", "reason", "tries", "history_since", "document", "state",
)  # fmt: skip
"""Fields that each save writes, or removes where they have no value."""
MARKED: Final = ("status", "due_at", "saved_due_at", "expiry", "unfit", "reason", "tries", "saves")
"""Fields that a mark on an instance changes that this code cannot read."""
SUMMARY: Final = ("workflow", "status", "document", "created_at", "updated_at", "labels", "reason")
"""What a line of a list needs: all but the state."""

ENTRIES: Final = ("at", "entries")
"""Fields of a document of history: when the write was, and the JSON of its entries."""
MARKER: Final = "ended"
"""The field of the marker of an ended instance: `sortable` of the earliest write that still has entries."""

# n goes to 2^63.
_NUMBER_DIGITS: Final = 19
# The years 1 to 9999 in microseconds.
_MOMENT_DIGITS: Final = 18
_FIRST_MOMENT: Final = micros(datetime.min.replace(tzinfo=UTC))


def document_id(workflow: str, id: str) -> str:
    """Name the document of an instance.

    Documents of one instant are listed by their names, so the id stands first; `!` is before all characters of an id,
    and at the end it keeps the name clear of those that Firestore reserves (`__…__`).
    """
    return f"{_percent(id)}!{_percent(workflow)}!"


def key_of(name: str) -> Key:
    """Return the instance of the document with that full name, or that lies above it."""
    part = next(part for part in reversed(name.split("/")) if part.endswith("!"))
    id_, workflow, _ = part.split("!")
    return Key(unquote(workflow, errors="surrogatepass"), unquote(id_, errors="surrogatepass"))


def shard_of(workflow: str, id: str) -> str:
    """Return the part of the index of due work that an instance is in: always the same, on every machine."""
    return f"{_percent(workflow)}/{zlib.crc32(id.encode(errors='surrogatepass')) % SHARDS}"


def shards_of(workflows: Iterable[str]) -> list[str]:
    """Return all parts of the index of due work that *workflows* have."""
    return [f"{_percent(workflow)}/{number}" for workflow in sorted(set(workflows)) for number in range(SHARDS)]


def sortable(workflow: str, since: int | None = None) -> str:
    """Return a text that sorts by workflow and then by the instant *since* 1970 in microseconds; None: before all instants."""
    return f"{_percent(workflow)}/" + ("" if since is None else f"{since - _FIRST_MOMENT:0{_MOMENT_DIGITS}d}")


def history_id(born: str, last: int) -> str:
    """Name the document with entries up to the number *last*. The marker is named *born* alone, so it comes before all of them."""
    return f"{born}-{last:0{_NUMBER_DIGITS}d}"


def history_end(born: str) -> str:
    """Return a name behind all documents of history of one instance."""
    return f"{born}."


def quoted(name: str) -> str:
    """Return the name of a field as a path of fields has it: bare where it is a word."""
    if name.isidentifier() and name.isascii():
        return name
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _percent(word: str) -> str:
    return quote(word, safe="", errors="surrogatepass")
