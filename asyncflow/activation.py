"""One look at one document: what is being decided, and the small moves decisions are made of.

An activation owns its instance: it was loaded for it, and is saved or dropped afterwards (rule 6). Nothing here looks at a clock:
`now` is an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias, TypeVar

from asyncflow import limits
from asyncflow.definition import Body, Definition
from asyncflow.errors import AsyncflowError, Failure, Full, InvalidState
from asyncflow.instance import ENDED, Frame, Instance, Message, Status, Thread, ThreadStatus
from asyncflow.tree import ItemGone, ItemsFailed, Place
from asyncflow.workflow import CURRENT, Context

T = TypeVar("T")

MAIN: Final = "main"
_RESUMING: Final = ThreadStatus.Resuming


class DecideAgain(Exception):
    """Several changes of one write left an invalid state: load again and decide with `careful`, one change at a time."""


class CallableFailed(Exception):
    """A callable of the tree raised; the thread that stands there is parked."""

    def __init__(self, cause: BaseException, path: str) -> None:
        super().__init__(path)
        self.cause = cause
        self.path = path


@dataclass(slots=True)
class Answer:
    """What the sender of a message is told."""

    status: int
    value: bytes | None = None
    """JSON text of the handler's value."""
    error: AsyncflowError | None = None
    dropped: bool = False


NoticeKind: TypeAlias = Literal["failed", "parked", "lost", "stray", "ended", "large"]


@dataclass(frozen=True, slots=True)
class Notice:
    """What an operator wants to know of a write, whether history is kept or not; told once it is saved."""

    kind: NoticeKind
    """An attempt failed; a thread stopped itself; an attempt ended at a place nobody knows; a place is not known; the instance
    has failed; the document is large."""
    thread: Thread | None = None
    path: str = ""
    attempt: int = 0
    failure: Failure | None = None
    size: int = 0
    """Bytes, of a large document."""


class Activation:
    """The instance under decision, its body, and what came of it so far."""

    __slots__ = (
        "_alone", "answers", "body", "careful", "changed", "cramped", "dead", "definition", "document", "encoded",
        "events", "history", "instance", "items_changed", "jitter", "leases", "notices", "now", "progress", "ready", "records",
        "size", "statements", "strays", "threads_ended",
    )  # fmt: skip

    def __init__(
        self,
        definition: Definition[Any],
        body: Body[Any],
        instance: Instance,
        now: datetime,
        *,
        careful: bool = False,
        dead: frozenset[str] = frozenset(),
        history: bool = True,
        jitter: float = 0.5,
        encoded: bool = True,
        size: int = 0,
        placed: bool = False,
    ) -> None:
        self.definition = definition
        self.body = body
        self.instance = instance
        self.now = max(now, instance.updated_at)
        self.careful = careful
        """Write and validate the state after every change of it, so that a fault is known to be of that change."""
        self.dead = dead
        """Processes whose locks are free: their leases lapse at once (rule 15)."""
        self.answers: dict[str, Answer] = {}
        self.records: list[dict[str, Any]] = []
        self.notices: tuple[Notice, ...] = ()
        self.history = history
        self.jitter = jitter
        """A random number in [0, 1), for the delays of retries; 0.5 is none."""
        self.cramped = False
        """There is no room left in the document: nothing may be added to it."""
        self.encoded = encoded
        """Whether `seal` writes the document as JSON, and checks its size."""
        self.size = size
        """How many bytes the document had when it was loaded."""
        self.events = False
        """An event was handled or laid down: it may not take the room of results and steps."""
        self.document = b""
        """The document as JSON, without the state, once it is sealed."""
        self.progress = False
        """Something has changed besides positions (rule 11)."""
        self.changed = False
        """Whether there is something to save."""
        self.statements = 0
        self.ready = True
        """A thread may be able to walk."""
        self.strays = not placed
        """Positions have not been looked up by this code yet (rule 24)."""
        self.items_changed = not placed
        """The state has changed since it was looked whether items are gone."""
        self.threads_ended = not placed
        """A thread has ended since it was looked who waited for it."""
        self.leases = False
        """A thread may have had a lease when this was loaded."""
        self._alone: Thread | None = None
        for thread in instance.threads.values():
            if thread.lease is not None:
                self.leases = True
                if thread.lease.alone:
                    self._alone = thread

    # -- counting and noting -------------------------------------------------------------------------------------------

    def touch(self) -> int:
        """Count a transition; give the new program counter."""
        self.changed = True
        self.instance.pc += 1
        return self.instance.pc

    def record(self, kind: str, thread: Thread | None = None, path: str = "", **fields: Any) -> None:
        """Note a transition for the history."""
        if self.history:
            entry: dict[str, Any] = {"n": 0, "at": self.now, "kind": kind}
            if thread is not None:
                entry["thread"] = thread.id
            if path:
                entry["path"] = path
            entry |= {name: value for name, value in fields.items() if value is not None}
            self.records.append(entry)
        self.changed = True

    def note_dropped(self, message: Message) -> None:
        """Note a result whose lease is gone, if this write is made anyway: it changes nothing (rule 14)."""
        changed = self.changed
        self.record(
            "refused", path=message.name, message_id=message.id, error={"message": "its lease is gone: the result is dropped"}
        )
        self.changed = changed

    def notice(self, kind: NoticeKind, thread: Thread | None = None, path: str = "", **fields: Any) -> None:
        """Note what an operator wants to know."""
        self.notices += (Notice(kind, thread, path, **fields),)

    # -- moving threads ------------------------------------------------------------------------------------------------

    def arrive(self, thread: Thread, place: Place, status: ThreadStatus) -> None:
        """Let a thread stand at a statement that blocks: a new visit."""
        thread.visit = self.touch()
        if thread.status is _RESUMING:
            thread.position, thread.status = place.at, status  # the rest was cleared when it set out
        else:
            self._stand(thread, place.at, status)
        thread.since = self.now

    def resume(self, thread: Thread, place: Place) -> None:
        """Let a thread be about to enter a statement."""
        self.touch()
        self._stand(thread, place.at, ThreadStatus.Resuming)
        self.ready = True

    def _stand(self, thread: Thread, at: str, status: ThreadStatus) -> None:
        thread.position = at
        thread.status = status
        thread.deadlines = None
        thread.attempt = 0
        thread.retry_at = None
        thread.doubt = False
        thread.losses = 0
        thread.error = None
        thread.result = None
        thread.lease = None
        thread.stray = None

    def park(self, thread: Thread, path: str, error: BaseException | Failure, *, attempt: int | None = None) -> None:
        """Stop a thread until an operator acts."""
        if isinstance(error, Failure):
            failure = error
        else:
            failure = self.failure(error, path, thread.attempt if attempt is None else attempt)
        thread.status = ThreadStatus.Paused
        thread.error = failure
        thread.lease = None
        thread.retry_at = None
        self.touch()
        if failure is not error:  # a failure that is given was noted with its attempt
            self.notice("parked", thread, path, attempt=thread.attempt, failure=failure)
            self.record("failed", thread, path, attempt=thread.attempt or None, error=failure.model_dump(exclude={"traceback"}))
        self.cut_tracebacks(thread)

    def cut_tracebacks(self, newest: Thread) -> None:
        """Keep the tracebacks of all threads within their limit: the newest gives way."""
        parked = [t for t in self.instance.threads.values() if t.error is not None and t is not newest]
        room = limits.TRACEBACKS_BYTES - sum(len(t.error.traceback) for t in parked if t.error)
        if newest.error is not None and len(newest.error.traceback) > room:
            newest.error = newest.error.model_copy(
                update={"traceback": newest.error.traceback[-max(room, 0) :] if room > 0 else ""}
            )

    def failure(self, error: BaseException, path: str, attempt: int = 0) -> Failure:
        """The stored form of an error raised at *path*."""
        return Failure.of(error, path=path, attempt=attempt, at=self.now)

    def alive(self, thread: Thread) -> bool:
        """Whether the thread is still in the document."""
        return self.instance.threads.get(thread.id) is thread

    def in_order(self) -> list[Thread]:
        """The threads, main first, then as they were created."""
        return list(self.instance.threads.values())

    def begin(self, name: str, root: str, key: str | int | None, maker: Thread, *, parent: bool, place: Place) -> Thread:
        """Make a thread below *maker*, about to enter *place*.

        Raises:
            Full: there are 1,000 threads already.
        """
        threads = self.instance.threads
        if len(threads) > limits.THREADS_BESIDES_MAIN:
            raise Full(
                f"expected at most {limits.THREADS_BESIDES_MAIN} threads besides main: begin fewer, or bound them with parallel="
            )
        own = name if key is None else f"{name}/{quoted(key)}"
        if maker.id != MAIN:
            own = f"{maker.id}/{own}"
        unique, number = own, 1
        while unique in threads:
            number += 1
            unique = f"{own}#{number}"
        top = Frame(items=item_chain(maker))
        if key is not None and root and self.body.definition.items.get(root) is not None:
            top.items = [*top.items, (root, key)]
        thread = Thread(
            id=unique,
            name=name,
            root=root,
            status=ThreadStatus.Resuming,
            position=place.at,
            visit=self.touch(),
            since=self.now,
            parent=(maker.id, maker.visit) if parent else None,
            frames=[top],
        )
        threads[unique] = thread
        self.ready = self.progress = True
        return thread

    # -- running the user's code ---------------------------------------------------------------------------------------

    def context(self, thread: Thread | None, path: str, message: Message | None = None) -> Context:
        """What a handler or a callable of the walk may know."""
        instance = self.instance
        if message is not None:
            key = f"{instance.uid}-{message.id}"
        else:
            key = f"{instance.uid}-{thread.visit if thread else 0}-{path}"
        return Context(
            id=instance.id,
            workflow=instance.workflow,
            thread=thread.id if thread else MAIN,
            step=path.rpartition("/")[2],
            attempt=1,
            now=self.now,
            caller=message.caller if message else None,
            idempotency_key=key,
        )

    def evaluate(self, thread: Thread, path: str, function: Callable[[], T]) -> T:
        """Call a callable of the tree, which changes nothing.

        Raises:
            CallableFailed: it raised.
        """
        token = CURRENT.set(lambda: self.context(thread, path))  # few conditions ask for it
        try:
            return function()
        except ItemGone:
            raise
        except ItemsFailed as failed:
            raise CallableFailed(failed.__cause__ or failed, failed.path) from failed.__cause__
        except Exception as error:
            raise CallableFailed(error, path) from error
        finally:
            CURRENT.reset(token)

    def look(self, path: str, condition: Any) -> bool:
        """Ask a condition of `When` or `WaitUntil`, which has no context.

        Raises:
            CallableFailed: it raised, or is no bool.
        """
        if condition is True:
            return True
        token = CURRENT.set(None)
        try:
            return truth(condition())
        except Exception as error:
            raise CallableFailed(error, path) from error
        finally:
            CURRENT.reset(token)

    def change(self, context: Context, function: Callable[..., Any], *arguments: Any, lazily: bool = False) -> Any:
        """Run user code that changes the state; whatever it raises, nothing is changed.

        Args:
            lazily: Do not write the state before: one of several results of a write.

        Raises:
            DecideAgain: a change before this one may have been at fault.
            InvalidState: (careful) the state it left cannot be stored; it has been dropped.
        """
        body = self.body
        if body.dirty and not lazily:
            self.sync()
        before = body.dirty
        body.dirty = True
        token = CURRENT.set(context)
        try:
            given = function(*arguments)
            sizes = self.check_items() if self.definition.items else ()
            if self.careful:
                body.sync()
                self.check_room(event=self.events)
        except BaseException:
            if before:
                raise DecideAgain from None
            body.revert()
            raise
        finally:
            CURRENT.reset(token)
        for frame, length in sizes:
            frame.size = length
        self.touch()
        self.progress = self.items_changed = True
        return given

    def check_room(self, *, event: bool = False) -> None:
        """Look whether the document still fits, event or not.

        Raises:
            Full: it would pass its limit.
        """
        from asyncflow.codec import encode  # noqa: PLC0415

        most = limits.DOCUMENT_EVENT_BYTES if event else limits.DOCUMENT_BYTES
        size = len(encode(self.instance)) + len(self.body.text)
        if size > most and (size > self.size or self.cramped):
            raise Full(f"expected a document of at most {most} bytes, found {size}: nothing has changed")

    def sync(self) -> None:
        """Write and validate the state now.

        Raises:
            DecideAgain: it cannot be stored.
        """
        if not self.body.dirty:
            return
        try:
            self.body.sync()
        except InvalidState as error:
            if self.careful:
                raise
            raise DecideAgain from error

    # -- items ---------------------------------------------------------------------------------------------------------

    def check_items(self) -> list[tuple[Frame, int]]:
        """Give how long the lists that are being walked are now, to be noted once the change is known to hold.

        Raises:
            ValueError: one has become shorter: whoever did it has failed.
        """
        sizes: list[tuple[Frame, int]] = []
        for thread in self.instance.threads.values():
            if len(thread.frames) > 1:
                sizes += [(frame, self._size(thread, frame)) for frame in thread.frames if frame.size]
        return sizes

    def _size(self, thread: Thread, frame: Frame) -> int:
        try:
            place = self._place_of_frame(thread, frame)
            length = len(place.statement.items())
        except Exception:  # noqa: BLE001 - it parks the thread that stands there, and never touches who changed the state
            return frame.size
        if length < frame.size:
            raise ValueError(
                f"the list that {place.path!r} walks has become shorter ({frame.size} -> {length}): "
                "while a loop walks it, it may only grow"
            )
        return length

    def _place_of_frame(self, thread: Thread, wanted: Frame) -> Place:
        scope = self.body.root
        for frame in thread.frames:
            for at, key in frame.items:
                scope = scope.item(at, key)
            if frame is wanted:
                return scope.places[frame.at]
            if frame.key is not None:
                scope = scope.item(frame.at, frame.key)
        raise LookupError(wanted.at)

    def place_of(self, thread: Thread) -> Place | None:
        """Where a thread stands, None where the code knows no such place or its item is gone."""
        top = thread.frames[0]
        if len(thread.frames) == 1 and not top.items and top.phase != "undo":
            place = self.body.root.places.get(thread.position)
            return place if place is None or place.region.depth == 1 else None
        try:
            return self.body.place_of(thread)
        except (ItemGone, ItemsFailed):
            return None

    # -- views ---------------------------------------------------------------------------------------------------------

    @property
    def held(self) -> Thread | None:
        """The thread whose plain step runs now (rule 13)."""
        thread = self._alone
        if thread is not None and (thread.lease is None or not thread.lease.alone):
            thread = self._alone = None
        return thread

    def hold(self, thread: Thread) -> None:
        """Note that the lease just given to *thread* is alone."""
        self._alone = thread

    def settle_status(self) -> None:
        """Show what the threads make of the instance."""
        instance = self.instance
        if instance.status in ENDED:
            return
        paused = instance.control.pause is not None
        for thread in instance.threads.values():
            paused = paused or thread.status is ThreadStatus.Paused
        for message in instance.inbox:
            paused = paused or message.kind == "pause"
        instance.status = Status.Paused if paused else Status.Running


def truth(value: Any) -> bool:
    """Insist on a bool: a forgotten call would be true for ever."""
    if value is True or value is False:
        return value
    raise TypeError(f"a condition gives a bool, this one gives {type(value).__name__}")


def item_chain(thread: Thread) -> list[tuple[str, str | int]]:
    """The items around a thread, outermost first."""
    chain = list(thread.frames[0].items)
    chain += [(frame.at, frame.key) for frame in thread.frames if frame.key is not None]
    return chain


def quoted(key: str | int) -> str:
    """A key as a part of a thread's id, percent-encoded."""
    from urllib.parse import quote  # noqa: PLC0415 - pure, and dear to import

    return quote(str(key), safe="")
