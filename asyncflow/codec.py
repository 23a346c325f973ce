"""The document as JSON and back.

Empty fields are left out (rule 1); times are RFC 3339 in UTC. `encode` gives everything but the state, which stays the text it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from pydantic_core import from_json, to_json

from asyncflow.errors import Failure, Unavailable
from asyncflow.instance import (
    FORMAT_VERSION,
    Cancelling,
    Control,
    Failing,
    Frame,
    Instance,
    Lease,
    Message,
    Seen,
    Signal,
    Status,
    Stray,
    Thread,
    ThreadStatus,
    Undo,
)

JsonObject = dict[str, Any]
_PLAIN = Frame()


def encode(instance: Instance) -> bytes:
    """Give the document's JSON text, without the state."""
    return to_json(_instance(instance))


def document(instance: Instance) -> JsonObject:
    """Give the whole document as JSON values, state included: what a person reads."""
    whole: JsonObject = from_json(encode(instance))
    whole["state"] = from_json(instance.state)
    return whole


def _failure(failure: Failure | None) -> JsonObject | None:
    return None if failure is None else failure.model_dump()


def _signal(signal: Signal | None) -> JsonObject | None:
    if signal is None:
        return None
    packed: JsonObject = {"kind": signal.kind}
    if signal.value is not None:
        packed["value"] = signal.value
    if signal.failure is not None:
        packed["failure"] = _failure(signal.failure)
    return packed


def _undo(undo: Undo) -> JsonObject:
    packed: JsonObject = {"at": undo.at, "visit": undo.visit, "done": undo.done}
    if undo.items:
        packed["items"] = undo.items
    return packed


def _frame(frame: Frame) -> JsonObject:
    packed: JsonObject = {"at": frame.at} if frame.at else {}
    if frame.items:
        packed["items"] = frame.items
    if frame.undos:
        packed["undos"] = [_undo(entry) for entry in frame.undos]
    if frame.keys is not None:
        packed["keys"] = frame.keys
    if frame.key is not None:
        packed["key"] = frame.key
    if frame.begun:
        packed["begun"] = frame.begun
    if frame.size:
        packed["size"] = frame.size
    if frame.phase:
        packed["phase"] = frame.phase
    if frame.before:
        packed["before"] = frame.before
    if frame.cancelled:
        packed["cancelled"] = True
    if frame.error is not None:
        packed["error"] = _failure(frame.error)
    if frame.after is not None:
        packed["after"] = _signal(frame.after)
    return packed


def _lease(lease: Lease) -> JsonObject:
    packed: JsonObject = {"token": lease.token}
    if lease.till is not None:
        packed["till"] = lease.till
    if lease.by:
        packed["by"] = lease.by
    if lease.alone:
        packed["alone"] = True
    if lease.cancel:
        packed["cancel"] = True
    if lease.grace is not None:
        packed["grace"] = lease.grace
    return packed


def _thread(thread: Thread) -> JsonObject:
    packed: JsonObject = {
        "id": thread.id,
        "status": thread.status,
        "position": thread.position,
        "visit": thread.visit,
        "since": thread.since,
    }
    if thread.name != thread.id:
        packed["name"] = thread.name
    if thread.root:
        packed["root"] = thread.root
    if thread.deadlines is not None:
        packed["deadlines"] = thread.deadlines
    if thread.parent is not None:
        packed["parent"] = thread.parent
    if thread.attempt:
        packed["attempt"] = thread.attempt
    if thread.retry_at is not None:
        packed["retry_at"] = thread.retry_at
    if thread.doubt:
        packed["doubt"] = True
    if thread.losses:
        packed["losses"] = thread.losses
    if thread.result is not None:
        packed["result"] = from_json(thread.result)
    if thread.error is not None:
        packed["error"] = _failure(thread.error)
    if thread.lease is not None:
        packed["lease"] = _lease(thread.lease)
    if thread.stray is not None:
        packed["stray"] = {"tries": thread.stray.tries, "retry_at": thread.stray.retry_at}
    frames = thread.frames
    if len(frames) > 1 or frames[0] != _PLAIN:  # most threads are outside of anything that remembers
        packed["frames"] = [_frame(frame) for frame in frames]
    return packed


def _message(message: Message) -> JsonObject:
    packed: JsonObject = {"id": message.id, "kind": message.kind, "at": message.at}
    for name in ("name", "keyed", "hash", "token", "lost", "fault"):
        value = getattr(message, name)
        if value:
            packed[name] = value
    for name in ("caller", "thread", "took_ms"):
        value = getattr(message, name)
        if value is not None:
            packed[name] = value
    if message.value is not None:
        packed["value"] = from_json(message.value)
    if message.failure is not None:
        packed["failure"] = _failure(message.failure)
    return packed


def _seen(seen: Seen) -> JsonObject | str:
    if not seen.status:
        return seen.id
    packed: JsonObject = {"id": seen.id, "at": seen.at, "hash": seen.hash, "status": seen.status}
    if seen.dropped:
        packed["dropped"] = True
    elif seen.answer is not None:
        packed["answer"] = seen.answer
    return packed


def _control(control: Control) -> JsonObject:
    packed: JsonObject = {}
    if control.pause is not None:
        packed["pause"] = {"since": control.pause}
    if control.cancel is not None:
        cancel = control.cancel
        packed["cancel"] = {"since": cancel.since, "pc": cancel.pc}
        if cancel.main is not None:
            packed["cancel"]["main"] = _signal(cancel.main)
        if cancel.error is not None:
            packed["cancel"]["error"] = _failure(cancel.error)
    if control.failing is not None:
        failing = control.failing
        packed["failing"] = {"since": failing.since, "thread": failing.thread, "error": _failure(failing.error)}
    return packed


def _instance(instance: Instance) -> JsonObject:
    packed: JsonObject = {
        "workflow": instance.workflow,
        "id": instance.id,
        "uid": instance.uid,
        "version": instance.version,
        "status": instance.status,
        "pc": instance.pc,
        "rev": instance.rev,
        "created_at": instance.created_at,
        "updated_at": instance.updated_at,
        "threads": [_thread(thread) for thread in instance.threads.values()],
    }
    if instance.input is not None:
        packed["input"] = instance.input
    if instance.output is not None:
        packed["output"] = instance.output
    if instance.due_at is not None:
        packed["due_at"] = instance.due_at
    if instance.expires_at is not None:
        packed["expires_at"] = instance.expires_at
    if instance.start_key is not None:
        packed["start_key"] = instance.start_key
    if instance.entries:
        packed["entries"] = instance.entries
    if instance.labels:
        packed["labels"] = instance.labels
    if instance.outbox:
        packed["outbox"] = instance.outbox
    if instance.promises:
        packed["promises"] = instance.promises
    if instance.error is not None:
        packed["error"] = _failure(instance.error)
    if instance.inbox:
        packed["inbox"] = [_message(message) for message in instance.inbox]
    if instance.seen:
        packed["seen"] = [_seen(seen) for seen in instance.seen]
    if instance.undos:
        packed["undos"] = [_undo(undo) for undo in instance.undos]
    control = instance.control
    if control.pause is not None or control.cancel is not None or control.failing is not None:
        packed["control"] = _control(control)
    return packed


# -- back --------------------------------------------------------------------------------------------------------------


def decode(text: bytes | Mapping[str, Any], state: bytes) -> Instance:
    """Give the instance that *text* (JSON text, or its values) and the *state*'s JSON text describe. It owns its data.

    Raises:
        Unavailable: the document's format is newer than this code, or it is not such a document (rule 23). It stays as it is.
    """
    try:
        packed: Any = from_json(text) if isinstance(text, bytes) else from_json(to_json(text))
    except ValueError as error:
        raise Unavailable(f"the document cannot be read: it is no JSON: {error}") from error
    version = packed.get("version") if isinstance(packed, dict) else None
    if not isinstance(version, int):
        raise Unavailable(f"the document cannot be read: expected an object with a version, found {str(packed)[:80]}")
    if version > FORMAT_VERSION:
        raise Unavailable(
            f"expected a document of format {FORMAT_VERSION} or older, found {version!r} in "
            f"{packed.get('workflow')}/{packed.get('id')}: run a newer asyncflow",
            details={"version": version},
        )
    try:
        return _read_instance(packed, state)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise Unavailable(
            f"the document of {packed.get('workflow')}/{packed.get('id')} cannot be read: {type(error).__name__}: {error}"
        ) from error


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _read_failure(packed: Any) -> Failure | None:
    return None if packed is None else Failure.model_validate(packed)


def _need_failure(packed: Any) -> Failure:
    return Failure.model_validate(packed)


def _read_signal(packed: Any) -> Signal | None:
    if packed is None:
        return None
    return Signal(packed["kind"], packed.get("value"), _read_failure(packed.get("failure")))


def _read_undo(packed: Any) -> Undo:
    items = [(at, key, item) for at, key, item in packed.get("items", ())]
    return Undo(packed["at"], packed["visit"], packed["done"], items)


def _read_frame(packed: Any) -> Frame:
    frame = Frame(
        at=packed.get("at", ""),
        items=[(at, key) for at, key in packed.get("items", ())],
        undos=[_read_undo(entry) for entry in packed.get("undos", ())],
        error=_read_failure(packed.get("error")),
        after=_read_signal(packed.get("after")),
    )
    for name in ("keys", "key", "begun", "size", "phase", "before", "cancelled"):
        if name in packed:
            setattr(frame, name, packed[name])
    return frame


def _read_lease(packed: Any) -> Lease | None:
    if packed is None:
        return None
    return Lease(
        packed["token"],
        _time(packed.get("till")),
        packed.get("by"),
        packed.get("alone", False),
        packed.get("cancel", False),
        _time(packed.get("grace")),
    )


def _read_thread(packed: Any) -> Thread:
    deadlines = packed.get("deadlines")
    stray = packed.get("stray")
    parent = packed.get("parent")
    return Thread(
        id=packed["id"],
        name=packed.get("name", packed["id"]),
        root=packed.get("root", ""),
        status=ThreadStatus(packed["status"]),
        position=packed["position"],
        visit=packed["visit"],
        since=_instant(packed["since"]),
        parent=None if parent is None else (parent[0], parent[1]),
        deadlines=None if deadlines is None else {name: _time(at) for name, at in deadlines.items()},
        attempt=packed.get("attempt", 0),
        retry_at=_time(packed.get("retry_at")),
        doubt=packed.get("doubt", False),
        losses=packed.get("losses", 0),
        error=_read_failure(packed.get("error")),
        result=to_json(packed["result"]) if "result" in packed else None,
        lease=_read_lease(packed.get("lease")),
        stray=None if stray is None else Stray(stray["tries"], _instant(stray["retry_at"])),
        frames=[_read_frame(frame) for frame in packed.get("frames", ({},))],
    )


def _read_message(packed: Any) -> Message:
    message = Message(packed["id"], packed["kind"], _instant(packed["at"]), lain=True)
    for name in ("caller", "thread", "name", "keyed", "hash", "token", "lost", "fault", "took_ms"):
        if name in packed:
            setattr(message, name, packed[name])
    if "value" in packed:
        message.value = to_json(packed["value"])
    message.failure = _read_failure(packed.get("failure"))
    return message


def _read_seen(packed: Any) -> Seen:
    if isinstance(packed, str):
        return Seen(packed)
    return Seen(
        packed["id"],
        _time(packed.get("at")),
        packed.get("hash", ""),
        packed.get("status", 0),
        packed.get("answer"),
        packed.get("dropped", False),
    )


def _read_control(packed: Any) -> Control:
    control = Control()
    if "pause" in packed:
        control.pause = _instant(packed["pause"]["since"])
    if "cancel" in packed:
        cancel = packed["cancel"]
        control.cancel = Cancelling(
            _instant(cancel["since"]), cancel["pc"], _read_signal(cancel.get("main")), _read_failure(cancel.get("error"))
        )
    if "failing" in packed:
        failing = packed["failing"]
        control.failing = Failing(_instant(failing["since"]), failing["thread"], _need_failure(failing["error"]))
    return control


def _list(packed: Mapping[str, Any], name: str, read: Callable[[Any], Any]) -> list[Any]:
    return [read(entry) for entry in packed.get(name, ())]


def _read_instance(packed: Mapping[str, Any], state: bytes) -> Instance:
    start_key = packed.get("start_key")
    return Instance(
        workflow=packed["workflow"],
        id=packed["id"],
        uid=packed["uid"],
        created_at=_instant(packed["created_at"]),
        updated_at=_instant(packed["updated_at"]),
        state=state,
        version=packed["version"],
        status=Status(packed["status"]),
        input=packed.get("input"),
        output=packed.get("output"),
        error=_read_failure(packed.get("error")),
        threads={thread["id"]: _read_thread(thread) for thread in packed["threads"]},
        inbox=_list(packed, "inbox", _read_message),
        outbox=list(packed.get("outbox", ())),
        promises=dict(packed.get("promises", {})),
        seen=_list(packed, "seen", _read_seen),
        control=_read_control(packed.get("control", {})),
        undos=_list(packed, "undos", _read_undo),
        pc=packed["pc"],
        rev=packed["rev"],
        entries=packed.get("entries", 0),
        due_at=_time(packed.get("due_at")),
        labels=dict(packed.get("labels", {})),
        expires_at=_time(packed.get("expires_at")),
        start_key=None if start_key is None else (start_key[0], start_key[1]),
    )
