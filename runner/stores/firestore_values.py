"""Values and documents in Firestore's own form, and how large Firestore counts them.

Made of the plain protocol buffers: the wrappers that the client library lays around them cost more than the call itself.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from google.cloud.firestore_v1.types import common, document, write

from runner.stores.base import Label

Value: Any = document.Value.pb()
Document: Any = document.Document.pb()
MapValue: Any = document.MapValue.pb()
ArrayValue: Any = document.ArrayValue.pb()
DocumentWrite: Any = write.Write.pb()
Precondition: Any = common.Precondition.pb()

Fields: TypeAlias = dict[str, Any]

DOCUMENT_BYTES_MAX: Final = 1_048_576
"""A document with its name, as `document_bytes` counts."""

_MAP_BYTES: Final = 32
_NUMBER_BYTES: Final = 8
_NAME_BYTES: Final = 16


# -- making ------------------------------------------------------------------------------------------------------------


def text(content: bytes) -> Any:
    """Make a value that gives back *content* byte for byte: readable in the console where it is UTF-8."""
    try:
        return Value(string_value=content)
    except UnicodeDecodeError:
        return Value(bytes_value=content)


def integer(number: int) -> Any:
    """Make an integer of 64 bits; ValueError if it has more."""
    return Value(integer_value=number)


def truth(value: bool) -> Any:
    """Make true or false."""
    return Value(boolean_value=value)


def instant(micros: int | None) -> Any:
    """Make a time from microseconds since 1970; null from None."""
    return Value(null_value=0) if micros is None else Value(timestamp_value=timestamp(micros))


def timestamp(micros: int) -> dict[str, int]:
    """Give *micros* since 1970 as protocol buffers write it."""
    seconds, rest = divmod(micros, 1_000_000)
    return {"seconds": seconds, "nanos": rest * 1_000}


def scalar(value: Label) -> Any:
    """Make the value of a label, of its own type."""
    match value:
        case None:
            return Value(null_value=0)
        case bool():  # before int, of which it is one in Python
            return truth(value)
        case int():
            return integer(value)
        case float():
            return Value(double_value=value)
        case str():
            return Value(string_value=value)


def mapping(values: Mapping[str, Label]) -> Any:
    """Make a map."""
    return Value(map_value=MapValue(fields={name: scalar(value) for name, value in values.items()}))


def words(values: Iterable[str]) -> Any:
    """Make a list of strings."""
    return Value(array_value=ArrayValue(values=[Value(string_value=value) for value in values]))


# -- reading -----------------------------------------------------------------------------------------------------------


def micros_of(at: Any) -> int:
    """Return a protocol buffer's time in microseconds since 1970."""
    return int(at.seconds) * 1_000_000 + int(at.nanos) // 1_000


def bytes_of(value: Any) -> bytes:
    """Return what `text` was made of."""
    return bytes(value.bytes_value) if value.HasField("bytes_value") else str(value.string_value).encode()


def micros_at(fields: Mapping[str, Any], name: str) -> int | None:
    """Return the time in a field; None if there is none."""
    if name not in fields or not fields[name].HasField("timestamp_value"):
        return None
    return micros_of(fields[name].timestamp_value)


def label_of(value: Any) -> Label:
    """Return what `scalar` was made of."""
    match value.WhichOneof("value_type"):
        case "boolean_value":
            return bool(value.boolean_value)
        case "integer_value":
            return int(value.integer_value)
        case "double_value":
            return float(value.double_value)
        case "string_value":
            return str(value.string_value)
        case _:
            return None


# -- counting ----------------------------------------------------------------------------------------------------------


def document_bytes(path: str, fields: Mapping[str, Any]) -> int:
    """Return what Firestore counts for a document at *path*, COLLECTION/ID/…, with these fields."""
    name = sum(_text_bytes(part) for part in path.split("/")) + _NAME_BYTES
    return name + sum(_text_bytes(field) + value_bytes(value) for field, value in fields.items()) + _MAP_BYTES


def value_bytes(value: Any) -> int:
    """Return what Firestore counts for a value; of a map a little more, since its own 32 bytes are not documented."""
    match value.WhichOneof("value_type"):
        case "string_value":
            return _text_bytes(value.string_value)
        case "bytes_value":
            return len(value.bytes_value)
        case "integer_value" | "double_value" | "timestamp_value":
            return _NUMBER_BYTES
        case "map_value":
            inner = value.map_value.fields.items()
            return _MAP_BYTES + sum(_text_bytes(name) + value_bytes(one) for name, one in inner)
        case "array_value":
            return sum(value_bytes(one) for one in value.array_value.values)
        case _:
            return 1


def _text_bytes(content: str) -> int:
    return len(content.encode()) + 1
