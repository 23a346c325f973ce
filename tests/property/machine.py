"""Who goes on when: the threads of an interpreted program under a virtual clock (PROTOCOL 10, 12, 13, 16, 29 to 32)."""

import copy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.property.ends import Ends
from tests.property.programs import Item, Program, Refusal, State, WaitCase, events_of, handle, note
from tests.property.threads import DEFAULT_DELAYS, AtSelect, AtStep, Entry, Gone, Place, Raised, Signal, Stopped, Thread

GROWTH = 8  # a policy's delay grows to eight times the first
MAX_TURNS = 5_000  # decisions in one call; programs are bounded, so more is a fault of the generator


@dataclass(eq=False)
class Message:
    """An event, or the outcome of an action (*block* with *error*, or the state it left)."""

    at: datetime
    event: str = ""
    value: Any = None
    thread: str | None = None
    answer: tuple[str, Any] = ("Pending", None)
    block: AtStep | None = None
    owner: Thread | None = None
    error: Raised | None = None
    state: State | None = None


@dataclass(frozen=True)
class Seen:
    """What can be seen of an instance between two calls."""

    status: str
    state: State
    output: Any
    error: tuple[str, str] | None
    waiting: frozenset[str]
    threads: tuple[tuple[str, str], ...]
    now: datetime
    steps: tuple[str, ...] = field(default=())


class Machine(Ends):
    """One instance. The verbs are those of a simulation; *skip_backoff* is its argument."""

    def __init__(self, program: Program, *, skip_backoff: bool = True) -> None:
        super().__init__(program)
        self.skip_backoff = skip_backoff
        self.events = events_of(program)
        self.steps: list[str] = []
        self.inbox: list[Message] = []
        self.settle()

    # -- verbs ---------------------------------------------------------------------------------------------------------

    def send(self, event: str, value: Any = None, thread: str | None = None) -> tuple[str, Any]:
        """Deliver *event*; gives ("ok", answer) or the name of the refusal."""
        if self.ended:
            return ("Ended", None)
        if event not in self.events:
            return ("NotFound", None)
        message = Message(self.now, event, value, thread)
        self.inbox.append(message)
        self.settle()
        return message.answer

    def advance(self, by: timedelta) -> None:
        until = self.now + by
        while not self.ended:
            times = [t for t in (self.next_deadline(), self.next_retry()) if t is not None and t <= until]
            if not times:
                break
            self.now = max(self.now, min(times))
            self.settle()
        self.now = max(self.now, until)

    def cancel(self) -> str:
        if self.ended:
            return "Ended"
        if not self.cancelling:
            self.cancelling = True
            for thread in list(self.threads):
                if not thread.shielded:
                    self.stop(thread)
            self.settle()
        return "ok"

    def stopped(self) -> list[tuple[str, bool]]:
        """Threads that are parked or in backoff, and whether their step is plain."""
        blocks = [(thread.id, thread.block) for thread in self.threads]
        return [(name, b.plain) for name, b in blocks if isinstance(b, AtStep) and (b.parked or b.retry_at)]

    def retry(self, thread_id: str) -> None:
        """Try a parked thread again with a fresh count, one in backoff now with its count as it is."""
        block = next(thread.block for thread in self.threads if thread.id == thread_id)
        assert isinstance(block, AtStep)
        block.attempt = 0 if block.parked else block.attempt
        block.parked = block.retry_at = None
        self.settle()

    def skip(self, thread_id: str) -> None:
        """Go on behind the plain step at which a thread is parked or in backoff."""
        thread = next(thread for thread in self.threads if thread.id == thread_id)
        thread.outcome = (None,)
        self.settle()

    def look(self) -> Seen:
        error = self.failure or next((error for t in self.threads if (error := parked(t.block))), None)
        return Seen(
            status="Paused" if any(parked(t.block) for t in self.threads) else self.status,
            state=copy.deepcopy(self.state),
            output=self.output,
            error=(error.type, error.message) if error else None,
            waiting=frozenset(
                case.event
                for thread in self.threads
                if isinstance(thread.block, AtSelect)
                for case in thread.block.cases
                if case.kind == "on"
            ),
            threads=tuple((thread.id, thread.block.path if thread.block else "") for thread in self.threads),
            now=self.now,
            steps=tuple(self.steps),
        )

    # -- deciding ------------------------------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        return self.status != "Running"

    def settle(self) -> None:
        """Go on until nothing more happens by itself."""
        for _ in range(MAX_TURNS):
            if self.ended:
                break
            if self.decide() or self.perform():
                continue
            retry, deadline = self.next_retry(), self.next_deadline()
            if retry is None or not self.skip_backoff:
                break
            self.now = max(self.now, min(retry, deadline or retry))
        else:
            raise AssertionError("the program does not come to rest")
        on_the_way = any(isinstance(t.block, AtStep) and not t.block.parked for t in self.threads)
        for message in list(self.inbox):
            if self.ended or (not on_the_way and message.event != "later"):
                message.answer = ("Ended" if self.ended else "NotAwaited", None)
                self.inbox.remove(message)

    def decide(self) -> bool:
        """Make the next decision: a thread walks, a message or timer is handled, a condition is true."""
        if self.failing:
            return self.fail()
        return self.walk_all() or self.next_message_or_timer() or self.next_condition()

    def fail(self) -> bool:
        """An error has left main or a Go thread: results count, nobody walks, then everything is undone."""
        for message in self.inbox:
            if message.block is not None:
                self.inbox.remove(message)
                self.handle_outcome(message, message.block)
                return True
        assert self.failing is not None
        self.undo_everything(self.failing)
        return True

    def walk_all(self) -> bool:
        """Every thread that can walks until it blocks, in order; then those go on that waited for what has ended."""
        walkers = [thread for thread in self.threads if thread.outcome is not None]
        for thread in list(self.threads):
            if thread.outcome is not None and thread in self.threads and not (self.ended or self.failing):
                self.walk(thread)
        waiters = [] if self.failing else [thread for thread in self.threads if thread.outcome is None]
        ended = [(thread, outcome) for thread in waiters if (outcome := self.end_of_wait(thread, thread.block))]
        for thread, outcome in ended:
            self.go_on(thread, outcome)
        return bool(walkers or ended) or any(thread.outcome is not None for thread in self.threads)

    def next_message_or_timer(self) -> bool:
        """Handle the earliest message or due timer; the message first at the same instant."""
        message = min(filter(self.can_handle, self.inbox), key=lambda m: m.at, default=None)
        deadline = self.next_deadline()
        if message is not None and (deadline is None or message.at <= deadline):
            self.inbox.remove(message)
            self.handle_message(message)
            return True
        if deadline is None or deadline > self.now:
            return False
        for thread in self.threads:
            if isinstance(thread.block, AtSelect) and deadline in thread.block.deadlines:
                self.win(thread, thread.block, thread.block.cases[thread.block.deadlines.index(deadline)])
                return True
        raise AssertionError("a deadline without a thread")

    def can_handle(self, message: Message) -> bool:
        return message.block is not None or self.taker(message) is not None

    def taker(self, message: Message) -> tuple[Thread, AtSelect, WaitCase] | None:
        for thread in self.threads:
            if isinstance(thread.block, AtSelect) and message.thread in (None, thread.id):
                for case in thread.block.cases:
                    if case.kind == "on" and case.event == message.event:
                        return thread, thread.block, case
        return None

    def handle_message(self, message: Message) -> None:
        taker = self.taker(message)
        if message.block is not None:
            self.handle_outcome(message, message.block)
        elif taker is not None:
            thread, block, case = taker
            try:
                if case.event == "x0":
                    note(self.state, case.label, case.effects, Item)
                    answer = None
                elif case.event == "ping":
                    answer = None
                else:
                    answer = handle(self.state, case.event, message.value, self.item(block.item))
            except Refusal:
                message.answer = ("Rejected", None)
                return
            message.answer = ("ok", answer)
            thread.outcome = (case,)
            self.drop_gone()

    def win(self, thread: Thread, block: AtSelect, case: WaitCase) -> None:
        if case.handler:
            note(self.state, case.label, case.effects, Item)
        thread.outcome = (case,)
        self.drop_gone()

    def next_condition(self) -> bool:
        for thread in self.threads:
            if isinstance(thread.block, AtSelect):
                for case in thread.block.cases:
                    at = Place(thread, "", [], thread.block.item)
                    if case.kind == "when" and self.test(case.cond, at):
                        self.win(thread, thread.block, case)
                        return True
        return False

    def next_deadline(self) -> datetime | None:
        blocks = [thread.block for thread in self.threads if not self.failing]
        times = [t for block in blocks if isinstance(block, AtSelect) for t in block.deadlines if t is not None]
        return min(times, default=None)

    def next_retry(self) -> datetime | None:
        blocks = [thread.block for thread in self.threads]
        return min((b.retry_at for b in blocks if isinstance(b, AtStep) and b.retry_at), default=None)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def perform(self) -> bool:
        """Take the plain step that is there the longest and all others that are due, run them, lay the results down."""
        due = [
            (thread, thread.block)
            for thread in self.threads
            if isinstance(thread.block, AtStep) and not thread.block.parked
            if thread.block.retry_at is None or thread.block.retry_at <= self.now
        ]
        plain = sorted((pair for pair in due if pair[1].plain), key=lambda pair: pair[1].visit)[:1]
        taken = [*plain, *(pair for pair in due if not pair[1].plain)]
        for _, block in taken:
            block.taken, block.retry_at = True, None
        results = [self.act(thread, block) for thread, block in taken]
        own = results.pop(0) if plain else None
        self.inbox += results
        if own is not None:
            self.handle_message(own)
        return bool(due)

    def act(self, thread: Thread, block: AtStep) -> Message:
        """Run the action of *block*: its failure, or the state it leaves."""
        node = block.step
        block.attempt += 1
        self.steps.append(f"undo {node.name}" if block.undoes else node.name)
        message = Message(self.now, block=block, owner=thread)
        state = copy.deepcopy(self.state)
        if block.undoes is not None:
            item = block.undoes.item
            note(state, f"undo {node.label}" + (f"[{item.key}]{item.n}" if item else ""), (), Item)
        elif block.attempt <= node.fails:
            message.error = Raised(node.error, node.label)
        elif node.style == "plain":
            label, item = node.label, self.item(block.item, state)
            if item is not None:
                item.n += 1
                label += f"[{item.key}]{item.n}"
            note(state, label, node.effects, Item)
        message.state = state
        return message

    def handle_outcome(self, message: Message, block: AtStep) -> None:
        thread = message.owner
        assert thread is not None
        if thread not in self.threads or thread.block is not block or isinstance(thread.outcome, Gone):
            return
        block.taken = False
        outcome: tuple[None] | Signal | None = (None,)
        if message.error is not None:
            outcome = self.after_failure(block, message.error)
        else:
            self.apply(message, block)
            self.drop_gone()
        if self.failing or thread not in self.threads or isinstance(thread.outcome, Gone):
            return  # a loop whose item is gone raises the cancel that is owed itself
        if thread.owed and not thread.shields:
            thread.owed, block.retry_at, block.parked = False, None, None
            outcome = Stopped()
        if block.undoes is not None and thread.outcome is None:
            self.move(thread, outcome)
        else:
            self.go_on(thread, outcome)

    def apply(self, message: Message, block: AtStep) -> None:
        """A step has ended well: its result changes the state, its undo is remembered."""
        node = block.step
        if block.plain:
            assert message.state is not None
            self.state = message.state
        elif node.style == "into":
            self.state.last = node.label
        elif (item := self.item(block.item)) is not None:
            item.n += 10
        else:
            note(self.state, node.label, node.effects, Item)
        if node.undo and block.undoes is None:
            block.frame.append(Entry(self.tick(), node, copy.copy(self.item(block.item))))

    def after_failure(self, block: AtStep, error: Raised) -> Raised | None:
        policy = block.policy
        known = {"Exception": True, "Bang": error.type == "Bang", "Boom": error.type in ("Bang", "Boom")}
        if error.type == "TerminalError" or not known[policy.on]:
            return error
        if block.attempt < policy.max_attempts:
            first = timedelta(minutes=policy.delay) if policy.delay else DEFAULT_DELAYS[0]
            most = first * GROWTH if policy.delay else DEFAULT_DELAYS[1]
            block.retry_at = self.now + min(most, first * 2 ** (block.attempt - 1))
            return None
        if policy.exhausted == "raise":
            return error
        block.parked = error
        return None


def parked(block: object) -> Raised | None:
    return block.parked if isinstance(block, AtStep) else None
