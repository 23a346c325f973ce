"""One instance at work in one request: the answers to its activity, and who is to be woken when it ends."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from asyncflow import limits
from asyncflow.definition import Definition
from asyncflow.errors import Unavailable
from asyncflow.instance import Message
from runner.stores.base import ENDED, Failed, Key, Outcome, Saved, Stored
from runner.work.activity import Activity, Begin, Gather, Gathered, Load, Look, Plan, Request, Save, Sleep, Stop, Unfit, View, Wake
from runner.work.aside import set_aside
from runner.work.asking import STORE_AWAY_SECONDS
from runner.work.telling import tell

if TYPE_CHECKING:
    from runner.work.request_worker import RequestWorker

LOG: Final = logging.getLogger("asyncflow")

SAVE_SECONDS: Final = 5.0
"""What a request keeps for the save after its last step: a step's timeout is at least this much shorter than the request."""
EARLY_SECONDS: Final = float(limits.CLOCK_SKEW_SECONDS)
"""How far the clocks of queue and store may differ: so much too early a delivery waits, since there is no other one."""


@dataclass(slots=True)
class Worked:
    """What one request has done for an instance."""

    attempts: int = 0
    """How many attempts it has begun."""
    saves: int = 0
    due: bool = False
    """It is due still: there was no room, or no time for a step."""
    refused: bool = False
    """Somebody was to be woken, and the scheduler has refused."""


class Mail:
    """What comes to a seat from other threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._laid = Gathered()
        self._ready = False
        self.abandoned = False
        """Nobody waits any longer for what runs."""

    def put(self, token: str, message: Message | None) -> None:
        """Lay down how an attempt has ended, to be taken with others that end now; None: it was stopped before its end."""
        with self._changed:
            if message is None:
                self._laid.released.append(token)
            else:
                self._laid.messages.append(message)

    def deliver(self) -> None:
        """Let what was laid down be taken, in one."""
        with self._changed:
            if self._laid.messages or self._laid.released:
                self._ready = True
                self._changed.notify_all()

    def feed(self) -> None:
        """Let the seat look again: there may be a place, or there will be none any more."""
        with self._changed:
            self._ready = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Let the seat wait for nothing any more."""
        with self._changed:
            self.abandoned = True
            self._changed.notify_all()

    def take(self, seconds: float) -> Gathered:
        """Wait for anything, no longer than *seconds*, and give what there is."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self.abandoned, max(seconds, 0.0))
            gathered, self._laid = self._laid, Gathered()
            self._ready = False
            return gathered


class _Over(Exception):
    """The time of the request is over, at a moment when nothing is lost by it."""


class Seat:
    """Drives one instance until nothing is due or the time is over.

    Args:
        worker: Whose attempts and places these are.
        until: When the last step has to have ended, by the monotonic clock.
    """

    def __init__(self, worker: RequestWorker, definition: Definition[Any], key: Key, plan: Plan, *, until: float) -> None:
        self.key = key
        self.mail = Mail()
        self.reserved = 0
        """How many places are kept for attempts that are about to begin."""
        self._worker = worker
        self._definition = definition
        self._plan = plan
        self._until = until
        self._end = until + SAVE_SECONDS
        self._waited = False
        self._flying: set[str] = set()
        self._at_stake = False
        """There is a result that is not saved yet, or a save nobody knows the outcome of."""
        self._wake: Wake | None = None
        """What the activity said last of when the instance is due."""
        self._had_room = True
        self._hinted = False
        self._worked = Worked()

    def run(self) -> Worked:
        """Work until the end, and wake somebody for what is left.

        Raises:
            Unavailable: the store is away, or this process cannot begin steps.
        """
        self._work()
        while self._again():
            self._work()
        return self._worked

    # -- the loop ------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        self._wake = None
        loop = Activity(self._definition, self.key, self._plan).run()
        try:
            request = next(loop)
            while True:
                if isinstance(request, Look):
                    now = self._worker.store.now()
                    with self._worker.deciding:
                        request = loop.send(self._view(now))
                else:
                    request = loop.send(self._answer(request))
        except StopIteration:
            pass
        except _Over:
            self._wake = Wake(self.key, self._worker.store.now(), starved=True)
        finally:
            loop.close()

    def _again(self) -> bool:
        """Whether to look once more; if not, somebody has been woken for what is left."""
        wake, worker = self._wake, self._worker
        if wake is None:
            return False
        if wake.starved:
            return self._starved()
        if wake.why == "deletion":
            return False
        ahead = (wake.at - worker.store.now()).total_seconds()
        idle = not self._worked.saves and not self._worked.attempts
        if ahead <= EARLY_SECONDS and idle and not self._waited and time.monotonic() + ahead < self._until:
            self._waited = True
            self.mail.take(ahead)
            return True
        if wake.why == "new" or ahead <= EARLY_SECONDS:
            self._hint(wake.at)
        return False

    def _starved(self) -> bool:
        """It is due, and there was no place or no time for its step."""
        worker = self._worker
        if not worker.healthy:
            raise Unavailable("hung actions keep all threads of this process: see its log")
        left = self._until - time.monotonic()
        if not self._had_room and not worker.draining and left > 0:
            worker.starve(self)
            self.mail.take(left)
            if not self._is_over():
                return True
        elif not worker.draining and not self._worked.saves and left > worker.step_seconds:
            # With that much time left any step can be begun that a request can run at all.
            LOG.error("%s/%s is due and cannot be taken within a request: is a step's timeout too long?", *self.key)
            self._worked.due = True
            return False
        self._worked.due = True
        self._hint(worker.store.now())
        return False

    def _is_over(self) -> bool:
        return self._worker.draining or time.monotonic() >= self._until

    def _hint(self, at: datetime) -> None:
        if not self._worker.wake(self.key, at):
            self._worked.refused = True

    # -- answers -------------------------------------------------------------------------------------------------------

    def _answer(self, request: Request) -> Any:
        match request:
            case Load():
                return self._load()
            case Save():
                return self._save(request)
            case Begin():
                self._begin(request)
            case Gather():
                return self._gather(request.until)
            case Stop():
                self._worker.actions.stop(cancelled=request.cancelled, gone=request.gone)
            case Sleep():
                self._rest(request.seconds)
            case Wake():
                self._note(request)
            case Unfit():
                self._set_aside(request)
            case Look():
                raise AssertionError("a look is answered by the loop, which holds the lock of decisions")
        return None

    def _view(self, now: datetime) -> View:
        worker = self._worker
        self._wake = None
        left = self._until - time.monotonic()
        if self._is_over() and not self._at_stake and not self._flying and self._worked.saves:
            raise _Over
        room = worker.room
        self._had_room = room > 0
        return View(
            now=now,
            room=room,
            sync=worker.healthy,
            reserve=self._reserve,
            tokens=worker.token,
            jitter=worker.jitter(),
            process=worker.process,
            dead=worker.dead,
            cancelled=worker.actions.cancelled,
            until=now + timedelta(seconds=left),
        )

    def _reserve(self, places: int) -> None:
        self._worker.reserve(self, places)

    def _load(self) -> Stored | None:
        while True:
            try:
                return self._worker.store.get(*self.key)
            except Unavailable as error:
                if not self._at_stake and not self._flying:
                    raise
                LOG.warning("%s/%s cannot be loaded, trying again: %s", *self.key, error)
                self._rest(STORE_AWAY_SECONDS)

    def _rest(self, seconds: float) -> None:
        """Wait before the store is asked again.

        Raises:
            Unavailable: the request is over; what was not saved is lost, and its lease lapses.
        """
        left = self._end - time.monotonic()
        if left <= 0 or self.mail.abandoned:
            raise Unavailable(f"the store is away: what was done for {self.key.workflow}/{self.key.id} could not be saved")
        time.sleep(min(seconds, left))

    def _save(self, request: Save) -> Outcome:
        write, worker = request.write, self._worker
        outcome = worker.committer.save(write)
        if isinstance(outcome, Saved):
            self._at_stake = False
            self._worked.saves += 1
            tell(self.key, request.notices)
            worker.bell.tell(request.answers)
            worker.bell.ring(self.key, ended=write.record.status in ENDED)
        elif isinstance(outcome, Failed):
            if not (outcome.in_doubt or self._at_stake or self._flying):
                raise outcome.error  # nothing is lost by it: the queue brings it again
            LOG.warning("%s/%s could not be saved, trying again: %s", *self.key, outcome.error)
            self._at_stake = self._at_stake or outcome.in_doubt
        return outcome

    def _begin(self, request: Begin) -> None:
        tokens = [run.token for run in request.runs]
        self._flying.update(tokens)
        self._worked.attempts += len(tokens)
        self._worker.own(self, tokens)
        self._worker.actions.begin(request.runs)

    def _gather(self, until: datetime | None) -> Gathered:
        self._worker.feed()  # what it did not take is for others
        seconds = self._end - time.monotonic()
        if until is not None:
            seconds = min(seconds, (until - self._worker.store.now()).total_seconds())
        gathered = self.mail.take(seconds)
        ended = [message.token for message in gathered.messages] + gathered.released
        self._flying.difference_update(ended)
        if ended:
            self._at_stake = True
        elif self.mail.abandoned or time.monotonic() >= self._end:
            raise _Over
        return gathered

    def _note(self, wake: Wake) -> None:
        self._wake = wake
        if wake.starved and self._flying and not self._worker.draining:
            if not self._worker.room:
                self._worker.starve(self)
            elif not self._hinted:
                # Its other threads go on elsewhere meanwhile: here is no time left for their steps.
                self._hinted = True
                self._hint(wake.at)

    def _set_aside(self, request: Unfit) -> None:
        at = set_aside(self._worker.store, request, self._worker.jitter())
        if at is not None:
            self._hint(at)
