"""A plain recursive interpreter of abstract programs: what a workflow means, without documents, positions or leases.

Each thread is a generator that walks its statements and yields what it is blocked at; the machine decides who goes on.
It was written from the documents alone, so that an agreement with the engine says something (PROTOCOL 11).
"""

import dataclasses
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from tests.property.programs import (
    NEVER,
    START,
    Break,
    Continue,
    Each,
    For,
    Go,
    Handler,
    If,
    Item,
    Join,
    Node,
    Parallel,
    Raise,
    Return,
    Select,
    Seq,
    State,
    Step,
    Switch,
    Try,
    WaitCase,
    holds,
    note,
)
from tests.property.threads import (
    BASES,
    DEFAULT_POLICY,
    AtFork,
    AtJoin,
    AtSelect,
    AtStep,
    Broke,
    Continued,
    Fork,
    Frame,
    Gone,
    Guarded,
    Place,
    Raised,
    Ready,
    Ref,
    Returned,
    Signal,
    Stopped,
    Thread,
    Walk,
)


class Walker:
    """The meaning of the statements; `Machine` adds who runs when."""

    state: State
    threads: list[Thread]
    now: datetime
    ticks: int

    def tick(self) -> int:
        self.ticks += 1
        return self.ticks

    def item(self, ref: Ref | None, state: State | None = None) -> Item | None:
        return None if ref is None else getattr(state or self.state, ref.over)[ref.key]

    def body(self, body: list[Node], at: Place) -> Walk:
        for node in body:
            yield from getattr(self, f"do_{type(node).__name__.lower()}")(node, at)

    def guarded(self, walk: Walk) -> Guarded:
        """Walk, and give what left it; only a vanished item goes through."""
        try:
            yield from walk
        except Gone:
            raise
        except Signal as signal:
            return signal
        return None

    def test(self, cond: tuple[str, ...], at: Place) -> bool:
        return holds(self.state, cond, self.item(at.item))

    # -- simple statements ---------------------------------------------------------------------------------------------

    def do_step(self, node: Step, at: Place) -> Walk:
        item = at.item if node.on_item else None
        yield AtStep(node, at.path(node.name), item, at.frame, node.policy or at.policy, self.tick())

    def do_seq(self, node: Seq, at: Place) -> Walk:
        names = [node.name] if node.named else []
        yield from self.body(node.body, at.within(*names, policy=node.policy or at.policy))

    def do_if(self, node: If, at: Place) -> Walk:
        for n, (cond, body) in enumerate(node.arms):
            if self.test(cond, at):
                yield from self.body(body, at.within(node.name, *([f"or{n}"] if n else [])))
                return
        yield from self.body(node.orelse or [], at.within(node.name, "else"))

    def do_switch(self, node: Switch, at: Place) -> Walk:
        inside = at.within(*([node.name] if node.named else []))
        for n, (cond, body) in enumerate(node.cases):
            if self.test(cond, at):
                yield from self.body(body, inside.within(f"case{n}"))
                return
        yield from self.body(node.default or [], inside.within("default"))

    def do_select(self, node: Select, at: Place) -> Walk:
        deadlines = [self.deadline(case) for case in node.cases]
        self.tick()
        won = yield AtSelect(at.path(node.name), node.cases, deadlines, at.item)
        yield from self.body(won.body, at.within(node.name, *([] if node.short else [won.name])))

    def deadline(self, case: WaitCase) -> datetime | None:
        if case.kind not in ("after", "at") or case.minutes == NEVER:
            return None
        return (self.now if case.kind == "after" else START) + timedelta(minutes=case.minutes)

    def do_return(self, node: Return, at: Place) -> Walk:
        yield from ()
        raise Returned(len(self.state.log) if node.value is None else node.value)

    def do_raise(self, node: Raise, at: Place) -> Walk:
        yield from ()
        raise Raised(node.error, node.label)

    def do_break(self, node: Break, at: Place) -> Walk:
        yield from ()
        raise Broke

    def do_continue(self, node: Continue, at: Place) -> Walk:
        yield from ()
        raise Continued

    # -- loops ---------------------------------------------------------------------------------------------------------

    def do_for(self, node: For, at: Place) -> Walk:
        counter = str(node.tag)
        while node.leaves or self.test(("below", counter, str(node.limit)), at):
            try:
                yield from self.body([node.tick], at.within(node.name))
                if node.leaves and not self.test(("below", counter, str(node.limit)), at):
                    return
                yield from self.body(node.body, at.within(node.name))
            except Broke:
                return
            except Continued:
                continue

    def keys(self, over: str) -> Iterator[Any]:
        """Keys of a dict as they are now, of those that are still there; indexes of a list as it grows."""
        if over == "items":
            yield from (key for key in list(self.state.items) if key in self.state.items)
        n = 0
        while over == "rows" and n < len(self.state.rows):
            yield n
            n += 1

    def do_each(self, node: Each, at: Place) -> Walk:
        if node.parallel > 1:
            yield from self.each_parallel(node, at)
            return
        thread, shields = at.thread, at.thread.shields
        for key in self.keys(node.over):
            ref = Ref(node.over, key)
            thread.refs.append(ref)
            try:
                yield from self.body(node.body, at.within(node.name, item=ref))
            except Broke:
                return
            except Continued:
                pass
            except Gone as gone:
                if gone.ref is not ref:
                    raise
                thread.shields = shields
                if self.due_cancel(thread):
                    raise Stopped from None
            finally:
                thread.refs.remove(ref)

    # -- threads -------------------------------------------------------------------------------------------------------

    def do_go(self, node: Go, at: Place) -> Walk:
        yield from ()
        key = str(len(self.state.log)) if node.dynamic else node.key
        if node.key is None or node.key in self.state.items:
            name = node.name if key is None else f"{node.name}/{quote(key, safe='')}"
            thread = self.spawn(name, at, ref=Ref("items", node.key) if node.key else None, go=node)
            item = thread.refs[-1] if node.key else at.item
            guard = [f"guard{node.tag}"] if node.key else []
            start = Place(thread, at.within(*guard, node.name).prefix, thread.frames[0], item, at.policy)
            thread.gen = self.whole(node.body, start)

    def spawn(self, name: str, at: Place, *, ref: Ref | None = None, go: Go | None = None) -> Thread:
        own = f"{at.thread.id}/{name}" if at.thread.id != "main" else name
        taken = {thread.id for thread in self.threads}
        numbers = (f"{own}#{n}" for n in range(2, len(taken) + 3))
        thread_id = own if own not in taken else next(new for new in numbers if new not in taken)
        refs = [*at.thread.refs, *([ref] if ref else [])]
        thread = Thread(thread_id, go=go, creator=at.thread, refs=refs, inherited=len(refs))
        self.threads.append(thread)
        return thread

    def branch(self, fork: Fork, name: str, body: list[Node], at: Place, ref: Ref | None = None) -> None:
        thread = self.spawn(name, at, ref=ref)
        thread.fork, thread.shielded = fork, at.thread.shields > 0 or at.thread.shielded
        fork.children.append(thread)
        item = thread.refs[-1] if ref else at.item
        thread.gen = self.whole(body, dataclasses.replace(at, thread=thread, frame=thread.frames[0], item=item))

    def do_parallel(self, node: Parallel, at: Place) -> Walk:
        fork = Fork(at.frame)
        for branch in node.branches:
            self.branch(fork, f"{node.name}/{branch.name}", [branch], at.within(node.name))
        yield AtFork(at.path(node.name), fork)

    def each_parallel(self, node: Each, at: Place) -> Walk:
        fork = Fork(at.frame, limit=node.parallel)
        fork.todo = (
            (f"{node.name}/{quote(str(key), safe='')}", node.body, at.within(node.name, item=Ref(node.over, key)))
            for key in self.keys(node.over)
        )
        self.begin_items(fork)
        if fork.children:
            yield AtFork(at.path(node.name), fork)

    def begin_items(self, fork: Fork) -> None:
        while len(fork.children) < fork.limit:
            new = next(fork.todo, None)
            if new is None:
                return
            self.branch(fork, new[0], new[1], new[2], ref=new[2].item)

    def do_join(self, node: Join, at: Place) -> Walk:
        block = AtJoin(at.path(node.name), node)
        if not self.joined(at.thread, node):
            yield block

    def joined(self, thread: Thread, node: Join) -> bool:
        around: list[Thread] = []
        up: Thread | None = thread
        while up is not None:
            around.append(up)
            up = up.creator
        if node.targets:
            return not any(other.go is go for other in self.threads for go in node.targets)
        return not any(other.go is not None and other not in around for other in self.threads)

    # -- errors --------------------------------------------------------------------------------------------------------

    def do_try(self, node: Try, at: Place) -> Walk:
        frame: Frame = []
        outer = at.frame
        at.thread.frames.append(frame)
        try:
            leaving = yield from self.phases(node, at.within(*([node.name] if node.named else []), frame=frame))
        finally:
            at.thread.frames.pop()
            outer.extend(frame)
        if leaving is not None:
            raise leaving

    def phases(self, node: Try, at: Place) -> Guarded:
        leaving = yield from self.guarded(self.body(node.body, at))
        leaving = yield from self.undone(leaving, at)
        handler = next((h for h in node.handlers if isinstance(leaving, Raised | Stopped) and matches(h, leaving)), None)
        if handler is not None and isinstance(leaving, Raised | Stopped):
            leaving = yield from self.guarded(self.handled(handler, leaving, at))
            leaving = yield from self.undone(leaving, at)
        if node.final is not None:
            at.thread.shields += 1
            yield Ready()
            own = yield from self.guarded(self.body(node.final, at.within(node.final_name)))
            at.thread.shields -= 1
            cancel = self.due_cancel(at.thread)
            if own is not None:
                return (yield from self.undone(own, at))
            return Stopped() if cancel else leaving
        return leaving

    def handled(self, handler: Handler, leaving: Raised | Stopped, at: Place) -> Walk:
        yield Ready()
        if handler.noted:
            note(self.state, f"caught {leaving.type} {leaving.message}", (), Item)
            yield Ready(last=True)
        yield from self.body(handler.body, at.within(handler.name))

    def due_cancel(self, thread: Thread) -> bool:
        """At the end of a Finally or an undo: whether a cancel becomes what follows."""
        if thread.shields or not thread.owed:
            return False
        thread.owed = False
        return True

    def undone(self, leaving: Signal | None, at: Place) -> Guarded:
        """Undo the entries of the frame if an error or a cancel leaves, last finished first."""
        if not isinstance(leaving, Raised | Stopped) or not at.frame:
            return leaving
        at.thread.shields += 1
        while at.frame:
            entry = max(at.frame, key=lambda e: e.seq)
            yield AtStep(entry.step, f"undo {entry.step.name}", None, [], DEFAULT_POLICY, self.tick(), undoes=entry)
            at.frame.remove(entry)
        at.thread.shields -= 1
        return Stopped() if self.due_cancel(at.thread) else leaving

    def undoes_itself(self, thread: Thread) -> bool:
        raise NotImplementedError

    def whole(self, body: list[Node], at: Place) -> Walk:
        """The walk of a thread: its definition is the outermost Try."""
        leaving = yield from self.guarded(self.body(body, at))
        if self.undoes_itself(at.thread):
            leaving = yield from self.undone(leaving, at)
        if isinstance(leaving, Raised | Stopped):
            raise leaving
        return leaving.value if isinstance(leaving, Returned) else None


def matches(handler: Handler, leaving: Raised | Stopped) -> bool:
    return bool(set(handler.errors) & set(BASES[leaving.type]))
