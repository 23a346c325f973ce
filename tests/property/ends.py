"""How threads go on, are stopped and end, and what becomes of the instance (PROTOCOL 29 to 32)."""

from typing import Any

from tests.property.interpreter import Walker
from tests.property.programs import START, Item, Program, State
from tests.property.threads import (
    AtFork,
    AtJoin,
    AtStep,
    Block,
    Frame,
    Gone,
    Place,
    Raised,
    Ready,
    Ref,
    Signal,
    Stopped,
    Thread,
    Walk,
)


class Ends(Walker):
    """An instance without a schedule."""

    def __init__(self, program: Program) -> None:
        self.state = State(items={key: Item(key) for key in program.keys}, rows=[Item(f"r{n}") for n in range(program.rows)])
        self.now, self.ticks = START, 0
        self.status = "Running"
        self.output: Any = None
        self.failure: Raised | None = None
        self.kept: Frame = []  # undo entries of Go threads that ended well
        self.cancelling = False
        self.main_end: tuple[str, Any] | None = None  # what main made of a cancel
        self.go_error: Raised | None = None
        self.failing: Raised | None = None
        self.undoer: Thread | None = None
        main = Thread("main")
        main.gen = self.whole(program.body, Place(main, "", main.frames[0]))
        self.threads = [main]

    # -- going on ------------------------------------------------------------------------------------------------------

    def go_on(self, thread: Thread, outcome: tuple[None] | Signal | None) -> None:
        """An error and a cancel leave statements at once; what follows them is walked to when its turn has come."""
        if isinstance(outcome, Signal) and thread.outcome is None:
            self.move(thread, outcome)
        elif thread.outcome is None:
            thread.outcome = outcome

    def end_of_wait(self, thread: Thread, block: Block | None) -> tuple[None] | Signal | None:
        """What a thread goes on with that has waited for others to end; None if it waits on."""
        if isinstance(block, AtJoin) and self.joined(thread, block.join):
            return (None,)
        if not isinstance(block, AtFork):
            return None
        if block.fork.error is None and (thread.shields or not thread.owed):
            self.begin_items(block.fork)
        if block.fork.children:
            return None
        if block.fork.error is not None:
            thread.owed = thread.owed and thread.shields > 0
            return block.fork.error
        return Stopped() if self.due_cancel(thread) else (None,)

    def walk(self, thread: Thread) -> None:
        """Walk on from a block with what came of it, until the next."""
        outcome, thread.outcome = thread.outcome, None
        self.move(thread, outcome)
        while isinstance(thread.block, Ready) and not thread.block.last and self.take_turn(thread):
            self.move(thread, None)

    def take_turn(self, thread: Thread) -> bool:
        """Whether *thread* can walk on; then what it walks on with is taken."""
        had, thread.outcome = thread.outcome, None
        return had is not None

    def move(self, thread: Thread, outcome: tuple[object] | Signal | None) -> None:
        """Go on to the next block, or only to the Except or Finally that takes over."""
        assert thread.gen is not None
        try:
            if isinstance(outcome, Signal):
                thread.block = thread.gen.throw(outcome)
            else:
                thread.block = thread.gen.send(outcome[0] if outcome else None)
            thread.outcome = (None,) if isinstance(thread.block, Ready) else None
        except StopIteration as end:
            self.end_thread(thread, None, end.value)
        except (Raised, Stopped) as signal:
            self.end_thread(thread, signal, None)
        self.drop_gone()

    # -- the ends ------------------------------------------------------------------------------------------------------

    def stop(self, thread: Thread) -> None:
        """A cancel reaches *thread*: at once, or after what it is inside."""
        if thread.cancelled or thread not in self.threads:
            return
        thread.cancelled = True
        block = thread.block
        runs = isinstance(block, AtStep) and block.taken
        if thread.shields or isinstance(block, AtFork) or runs or isinstance(thread.outcome, Gone):
            thread.owed = True
        elif thread.outcome is not None:
            thread.outcome = Stopped()
        else:
            if isinstance(block, AtStep):
                block.retry_at = block.parked = None
            self.move(thread, Stopped())
        if isinstance(block, AtFork) and not thread.shields and thread.block is block:
            for child in list(block.fork.children):
                self.stop(child)

    def undoes_itself(self, thread: Thread) -> bool:
        return self.cancelling and thread.fork is None

    def end_thread(self, thread: Thread, signal: Raised | Stopped | None, value: Any) -> None:
        self.threads.remove(thread)
        if thread is self.undoer:
            pass
        elif thread.fork is not None:
            self.end_branch(thread, signal)
        elif isinstance(signal, Raised) and not self.cancelling:
            self.kept += entries_of(thread)
            self.failing = signal
        elif thread.go is not None:
            self.kept += entries_of(thread)
            if isinstance(signal, Raised):
                self.go_error = self.go_error or signal
        elif thread.id == "main":
            self.main_end = ("Failed", signal) if isinstance(signal, Raised) else ("Finished", value)
            self.main_end = ("Cancelled", None) if isinstance(signal, Stopped) else self.main_end
        self.check_end()

    def check_end(self) -> None:
        """Under a cancel the end of main waits for the other threads."""
        if self.main_end is not None and (not self.threads or not self.cancelling):
            self.end_instance(*self.main_end)

    def end_branch(self, thread: Thread, signal: Raised | Stopped | None) -> None:
        fork = thread.fork
        assert fork is not None
        fork.children.remove(thread)
        fork.frame += entries_of(thread)
        if isinstance(signal, Raised) and fork.error is None:
            fork.error = signal
            for sibling in list(fork.children):
                self.stop(sibling)

    def end_instance(self, status: str, value: Any) -> None:
        if self.cancelling and self.kept:
            self.undo_kept()
            return
        if self.go_error is not None and status != "Failed":
            status, value = "Failed", self.go_error
        self.status = status
        self.output = value if status == "Finished" else None
        self.failure = value if status == "Failed" else None
        self.threads = []

    def undo_kept(self) -> None:
        """A thread of its own undoes what is left of the instance; its end comes back to `end_instance`."""
        self.undoer = thread = Thread("main")
        frame, self.kept = self.kept, []
        thread.gen = self.last_undo(Place(thread, "", frame))
        self.threads = [thread]

    def last_undo(self, at: Place) -> Walk:
        yield from self.undone(Stopped(), at)

    def undo_everything(self, error: Raised) -> None:
        """An error has left main or a Go thread, and nothing runs any more: undo what threads have finished; fail."""
        for thread in self.threads:
            self.kept += entries_of(thread)
        self.main_end, self.failing, self.cancelling = ("Failed", error), None, True
        self.threads = []
        self.check_end()

    def drop_gone(self) -> None:
        """End what stands inside an item whose key is gone, in this very write."""
        for thread in list(self.threads):
            lost = next((n for n, ref in enumerate(thread.refs) if self.is_gone(ref)), None)
            if lost is None or isinstance(thread.outcome, Gone):
                continue
            if lost >= thread.inherited:
                thread.owed = thread.owed or isinstance(thread.outcome, Stopped)
                thread.outcome = Gone(thread.refs[lost])
            elif thread in self.threads:
                self.vanish(thread)

    def is_gone(self, ref: Ref) -> bool:
        return ref.over == "items" and ref.key not in self.state.items

    def vanish(self, thread: Thread) -> None:
        self.threads.remove(thread)
        if thread.fork is not None:
            self.end_branch(thread, None)
        else:
            self.kept += entries_of(thread)
        self.check_end()


def entries_of(thread: Thread) -> Frame:
    """All entries of *thread*, out of its frames."""
    found = [entry for frame in thread.frames for entry in frame]
    for frame in thread.frames:
        frame.clear()
    return found
