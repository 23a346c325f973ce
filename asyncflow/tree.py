"""The linked tree: every statement at its place, with its path, its address and what comes next.

A `Scope` is what was linked in one go: the definition, or the body of one live item. Statements stay plain data; what the walk
needs hangs on their `Place`.

Path and address: users see the path (`shopping/customer decides`); the address is the path with the kinds of what is transparent
there (`shopping/try/pay`), so that each statement has one of its own (rule 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from asyncflow.errors import Problem
from asyncflow.handlers import event_name
from asyncflow.retry import DEFAULT_RETRY

if TYPE_CHECKING:
    from datetime import timedelta

    from asyncflow.retry import Retry

END: Final = "/end"
"""The address behind the last statement of a thread. No name is empty, so no statement of the user's has such an address."""

UNDO: Final = "/undo"
"""What a position inside an undo has behind its step's address (rule 4)."""

FORKS: Final = frozenset({"parallel", "foreach"})
"""Statements whose children are threads that it waits for (foreach: with parallel > 1)."""


class ItemGone(LookupError):
    """The key or index of an item is no longer in the state."""


class ItemsFailed(Exception):
    """The `items` of a loop, or the body made for an item, raised: the thread that stands there is parked."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Region:
    """A stretch of the tree that is left as a whole: a thread, a loop, an item in order, a Try."""

    __slots__ = ("depth", "kind", "outer", "place")

    def __init__(self, kind: str, place: Place | None, outer: Region | None) -> None:
        self.kind = kind
        """thread, loop, each, try."""
        self.place = place
        self.outer = outer
        self.depth: int = (outer.depth if outer is not None and kind != "thread" else 0) + (kind != "loop")
        """How many frames a thread in here has."""


class Case:
    """One case of a Select at its place."""

    __slots__ = ("event", "first", "handler", "kind", "name", "path", "statement")

    def __init__(self, statement: Any, name: str, path: str, first: Place) -> None:
        self.statement = statement
        self.kind: str = statement.kind
        self.name = name
        self.path = path
        self.first = first
        self.handler: Callable[..., Any] | None = statement.handler
        self.event: str | None = event_name(statement.event, statement.handler) if self.kind == "on" else None


class Arm:
    """One arm of an If or a Switch at its place; `cond` True is the last resort."""

    __slots__ = ("cond", "first", "path", "source")

    def __init__(self, path: str, cond: Any, first: Place, source: str) -> None:
        self.path = path
        self.cond = cond
        self.first = first
        self.source = source


class Branch:
    """One branch of a Parallel at its place."""

    __slots__ = ("at", "first", "name")

    def __init__(self, name: str, at: str, first: Place) -> None:
        self.name = name
        self.at = at
        self.first = first


class Settings:
    """What the `With`s around a statement say; the innermost wins."""

    __slots__ = ("idempotent", "persist", "retry", "timeout")

    def __init__(self, outer: Settings | None = None, defaults: Any = None) -> None:
        self.retry: Retry | None = outer.retry if outer else None
        self.timeout: timedelta | None = outer.timeout if outer else None
        self.idempotent: bool | None = outer.idempotent if outer else None
        self.persist: str | None = outer.persist if outer else None
        if defaults is not None:
            for name in self.__slots__:
                said = getattr(defaults, name)
                if said is not None:
                    setattr(self, name, said)


NO_SETTINGS: Final = Settings()


class Place:
    """One statement at its place."""

    __slots__ = (
        "arms", "at", "branches", "cases", "clauses", "final", "first", "idempotent", "inner", "kind", "name", "next",
        "path", "plain", "region", "retry", "settings", "statement", "timeout", "undo",
    )  # fmt: skip

    next: Place
    region: Region

    def __init__(self, kind: str, statement: Any, name: str, path: str, at: str) -> None:
        self.kind = kind
        self.statement = statement
        self.name = name
        self.path = path
        self.at = at
        self.first: Place | None = None
        self.final: Place | None = None
        self.inner: Region | None = None
        self.arms: list[Arm] = []
        self.cases: list[Case] = []
        self.clauses: list[Place] = []
        self.branches: list[Branch] = []
        self.undo: Place | None = None
        self.plain = True
        self.retry: Retry = DEFAULT_RETRY
        self.timeout: timedelta | None = None
        self.idempotent = True
        self.settings = NO_SETTINGS
        """ForEach, Go of items: what the `With`s around it say, for the steps of an item's body."""

    def __repr__(self) -> str:
        return f"<{self.kind} {self.at!r}>"

    @property
    def source(self) -> str:
        """`file:line` of the statement."""
        return str(getattr(self.statement, "source", ""))


class Scope:
    """The places that were linked together: of the definition, or of the body of one item."""

    __slots__ = ("_items", "first", "places", "problems")

    def __init__(self) -> None:
        self.places: dict[str, Place] = {}
        self.first: Place
        self.problems: list[Problem] = []
        self._items: dict[tuple[str, str | int], tuple[Any, Scope]] = {}

    def item(self, at: str, key: str | int) -> Scope:
        """The scope of the live item under *key* of the statement at *at*; bound again when the object is another one.

        Raises:
            ItemGone: there is nothing under the key any more.
            ItemsFailed: `items` or the body raised.
            LookupError: this code has no such statement (rule 24).
        """
        place = self.places.get(at)
        if place is None or place.kind not in ("foreach", "go"):
            raise LookupError(f"no statement with items at {at!r}")
        try:
            container = place.statement.items()
        except Exception as error:
            raise ItemsFailed(place.path) from error
        try:
            item = container[key]
        except (KeyError, IndexError, TypeError):
            self._items.pop((at, key), None)
            raise ItemGone(f"{at}/{key}") from None
        cached = self._items.get((at, key))
        if cached is not None and cached[0] is item:
            return cached[1]
        try:
            scope = bind(place, item)
        except Exception as error:
            raise ItemsFailed(place.path) from error
        self._items[at, key] = (item, scope)
        return scope

    def forget(self) -> None:
        """Drop the bodies of live items: the state has been replaced."""
        if self._items:
            self._items.clear()


def bind(place: Place, item: Any) -> Scope:
    """Link the body of a ForEach or a Go of items for one *item*."""
    statement = place.statement
    make = statement.body if place.kind == "foreach" else statement.item_body
    thread = place.kind == "go" or statement.parallel > 1
    region = Region("thread" if thread else "each", place, None if thread else place.region)
    after = end_of(region) if thread else again(place, region)
    return link((make(item),), path=place.path, at=place.at, region=region, after=after, settings=place.settings)


def end_of(region: Region) -> Place:
    """The place behind a thread's last statement."""
    end = Place("end", None, "", "", END)
    end.region = region
    return end


def again(place: Place, region: Region) -> Place:
    """The place behind the last statement of an item in order: on to the next item."""
    back = Place("again", place.statement, "", place.path, place.at + "//again")
    back.region = region
    back.next = place
    return back


def link_definition(section: Any) -> Scope:
    """Link a whole definition: main's thread."""
    region = Region("thread", None, None)
    return link((section,), path="", at="", region=region, after=end_of(region))


def link(statements: Sequence[Any], *, path: str, at: str, region: Region, after: Place, settings: Settings = NO_SETTINGS) -> Scope:
    """Link *statements* below *path*; `problems` says what is doubled."""
    linker = _Linker()
    linker.name(statements, {}, path)
    linker.scope.places[after.at] = after
    linker.scope.first = linker.block(statements, path, at, region, settings, after)
    return linker.scope


def join_path(prefix: str, name: str) -> str:
    """A path one name longer."""
    return f"{prefix}/{name}" if prefix else name


def _types_name(types: Iterable[type[BaseException]]) -> str:
    return "|".join(one.__name__ for one in types)


class _Linker:
    """Two passes: names forward (so that a second `after` is `after 2`), places backward (so that `next` is there)."""

    def __init__(self) -> None:
        self.scope = Scope()
        self.names: dict[int, str] = {}
        self.finals: dict[int, str] = {}
        """What the Finally of each Try is called, by the Try."""

    # -- names ---------------------------------------------------------------------------------------------------------

    def problem(self, path: str, message: str, source: str) -> None:
        self.scope.problems.append(Problem(path=path, message=message, source=source))

    def name(self, statements: Sequence[Any], taken: dict[str, str], path: str) -> None:
        """Give each statement its name among its siblings; what is transparent shares the namespace *taken*."""
        for statement in statements:
            if id(statement) in self.names:
                self.problem(path, "one statement object stands in two places: make a new one for each", statement.source)
                continue
            kind: str = statement.kind
            if kind == "section":
                self._look_at_section(statement, path)
            if kind == "section" and statement.name is None:
                self.names[id(statement)] = ""
                self.name(statement.body, taken, path)
            elif kind in ("try", "switch") and statement.name is None:
                if kind in taken:
                    text = f"the name {kind!r}, by which a {kind.capitalize()} without a name is called, is taken: it needs a name"
                    self.problem(path, text, statement.source)
                taken[kind] = statement.source
                self.names[id(statement)] = ""
                self._name_parts(statement, taken, path)
            else:
                name = self._take(statement, statement.name, kind, taken, path)
                self._name_parts(statement, {}, join_path(path, name))

    def _look_at_section(self, section: Any, path: str) -> None:
        for text in section.problems:
            self.problem(path, text, section.source)
        if section.defaults is not None and section.defaults.persist is not None:
            self.problem(path, "With(persist=…) comes with a later release: it is not there yet", section.source)

    def _take(self, part: Any, name: str | None, kind: str, taken: dict[str, str], path: str) -> str:
        """Reserve a name, or the kind with a number."""
        if name is None:
            name, number = kind, 1
            while name in taken:
                number += 1
                name = f"{kind} {number}"
        elif name in taken:
            self.problem(
                join_path(path, name), f"the name {name!r} is taken by {taken[name]}: name one of them otherwise", part.source
            )
        taken[name] = part.source
        self.names[id(part)] = name
        return name

    def _name_parts(self, statement: Any, taken: dict[str, str], path: str) -> None:
        kind = statement.kind
        if kind in ("section", "for", "atomic") or (kind == "go" and statement.items is None):
            self.name(statement.body, taken, path)
        elif kind == "parallel":
            self.name(statement.branches, taken, path)
        elif kind == "try":
            self.name(statement.body, taken, path)
            for clause in statement.handlers:
                own = self._take(clause, None, f"except {_types_name(clause.types)}", taken, path)
                self.name(clause.body, {}, join_path(path, own))
            if statement.final is not None:
                final, number = "finally", 1
                while final in taken:
                    number += 1
                    final = f"finally {number}"
                taken[final] = statement.source
                self.finals[id(statement)] = final
                self.name(statement.final, {}, join_path(path, final))
        elif kind == "if":
            self.name(statement.arms[0].body, taken, path)
            for arm in statement.arms[1:]:
                own = self._take(arm, arm.name, "elif", taken, path)
                self.name(arm.body, {}, join_path(path, own))
            if statement.otherwise is not None:
                if "else" in taken:
                    self.problem(join_path(path, "else"), "the name 'else' is taken", statement.source)
                self.name(statement.otherwise, {}, join_path(path, "else"))
        elif kind == "switch":
            for case in statement.cases:
                own = self._take(case, case.name, "default", taken, path)
                self.name(case.body, {}, join_path(path, own))
        elif kind == "select":
            for case in statement.cases:
                own = self._take(case, self._case_name(case), case.kind, taken, path)
                self.name(case.body, {}, join_path(path, own))
        elif kind in ("waitevent", "waitfor", "waituntil"):
            self.names[id(statement.case)] = self.names[id(statement)]
            self.name(statement.case.body, taken, path)

    @staticmethod
    def _case_name(case: Any) -> str | None:
        return event_name(case.event, case.handler) if case.kind == "on" else case.name

    # -- places --------------------------------------------------------------------------------------------------------

    def block(self, statements: Sequence[Any], path: str, at: str, region: Region, settings: Settings, after: Place) -> Place:
        """Link a body, last statement first; give its first place."""
        for statement in reversed(statements):
            after = self.statement(statement, path, at, region, settings, after)
        return after

    def statement(self, statement: Any, path: str, at: str, region: Region, settings: Settings, after: Place) -> Place:
        kind: str = statement.kind
        name = self.names.get(id(statement), "")
        if kind == "section":
            inside = settings if statement.defaults is None else Settings(settings, statement.defaults)
            if not name:
                return self.block(statement.body, path, at, region, inside, after)
            place = Place(kind, statement, name, join_path(path, name), join_path(at, name))
            place.region, place.next = region, after
            place.first = self.block(statement.body, place.path, place.at, region, inside, after)
            self.scope.places[place.at] = place
            return place
        transparent = not name
        place = Place(
            kind,
            statement,
            name,
            path if transparent else join_path(path, name),
            join_path(at, kind if transparent else name),
        )
        place.region = region
        place.next = after
        self.scope.places[place.at] = place
        build = _BUILD.get(kind)
        if build is not None:
            build(self, place, settings)
        return place

    def _step(self, place: Place, settings: Settings) -> None:
        step = place.statement
        place.plain = step.then is None and step.into is None
        idempotent = step.idempotent if step.idempotent is not None else settings.idempotent
        place.idempotent = idempotent is not False
        place.retry = step.retry or settings.retry or DEFAULT_RETRY
        place.timeout = step.timeout or settings.timeout
        if step.undo is not None:
            undo = Place("undo", step, place.name, place.path + UNDO, place.at + UNDO)
            undo.region = place.region
            undo.retry, undo.timeout = place.retry, place.timeout
            place.undo = undo

    def _waits(self, place: Place, settings: Settings) -> None:
        single = place.kind != "select"
        for case in place.statement.cases:
            name = self.names.get(id(case), case.kind)
            path = place.path if single else join_path(place.path, name)
            at = place.at if single else join_path(place.at, name)
            first = self.block(case.body, path, at, place.region, settings, place.next)
            place.cases.append(Case(case, name, path, first))

    def _if(self, place: Place, settings: Settings) -> None:
        statement = place.statement
        for number, arm in enumerate(statement.arms):
            name = "" if number == 0 else self.names.get(id(arm), "elif")
            path = join_path(place.path, name) if name else place.path
            at = join_path(place.at, name) if name else place.at
            first = self.block(arm.body, path, at, place.region, settings, place.next)
            place.arms.append(Arm(path, arm.cond, first, arm.source))
        if statement.otherwise is not None:
            path = join_path(place.path, "else")
            first = self.block(statement.otherwise, path, join_path(place.at, "else"), place.region, settings, place.next)
            place.arms.append(Arm(path, True, first, statement.source))

    def _switch(self, place: Place, settings: Settings) -> None:
        for case in place.statement.cases:
            name = self.names.get(id(case), "default")
            path = join_path(place.path, name)
            first = self.block(case.body, path, join_path(place.at, name), place.region, settings, place.next)
            place.arms.append(Arm(path, getattr(case, "cond", True), first, case.source))

    def _for(self, place: Place, settings: Settings) -> None:
        place.inner = Region("loop", place, place.region)
        place.first = self.block(place.statement.body, place.path, place.at, place.inner, settings, place)

    def _foreach(self, place: Place, settings: Settings) -> None:
        place.settings = settings
        if place.statement.parallel == 1:
            # Also out here, for a thread whose item is gone: it goes on with the next.
            back = again(place, Region("each", place, place.region))
            self.scope.places[back.at] = back

    def _go(self, place: Place, settings: Settings) -> None:
        if place.statement.items is None:
            place.inner = Region("thread", place, None)
            place.first = self.block(place.statement.body, place.path, place.at, place.inner, settings, self._end(place.inner))
        else:
            place.settings = settings

    def _parallel(self, place: Place, settings: Settings) -> None:
        for number, branch in enumerate(place.statement.branches, 1):
            region = Region("thread", place, None)
            name = self.names.get(id(branch)) or f"branch {number}"
            at = join_path(place.at, name)
            first = self.statement(branch, place.path, place.at, region, settings, self._end(region))
            place.branches.append(Branch(name, at, first))

    def _end(self, region: Region) -> Place:
        # All ends of threads share an address: a thread that stands there needs no more than that.
        end = end_of(region)
        self.scope.places.setdefault(END, end)
        return end

    def _try(self, place: Place, settings: Settings) -> None:
        statement = place.statement
        inner = place.inner = Region("try", place, place.region)
        tried = Place("tried", statement, "", place.path, place.at + "//tried")
        tried.region, tried.next = inner, place.next
        self.scope.places[tried.at] = tried
        place.first = self.block(statement.body, place.path, place.at, inner, settings, tried)
        for clause in statement.handlers:
            name = self.names.get(id(clause), "except")
            caught = Place("except", clause, name, join_path(place.path, name), join_path(place.at, name))
            caught.region = inner
            caught.next = self.block(clause.body, caught.path, caught.at, inner, settings, tried)
            self.scope.places[caught.at] = caught
            place.clauses.append(caught)
        if statement.final is not None:
            final = self.finals.get(id(statement), "finally")
            path, at = join_path(place.path, final), join_path(place.at, final)
            place.final = self.block(statement.final, path, at, inner, settings, tried)

    def _atomic(self, place: Place, settings: Settings) -> None:
        place.first = self.block(place.statement.body, place.path, place.at, place.region, settings, place.next)


_BUILD: Final[dict[str, Callable[[_Linker, Place, Settings], None]]] = {
    "step": _Linker._step,
    "select": _Linker._waits,
    "waitevent": _Linker._waits,
    "waitfor": _Linker._waits,
    "waituntil": _Linker._waits,
    "if": _Linker._if,
    "switch": _Linker._switch,
    "for": _Linker._for,
    "foreach": _Linker._foreach,
    "go": _Linker._go,
    "parallel": _Linker._parallel,
    "try": _Linker._try,
}
"""What each kind of statement links besides itself."""


# -- in the order of the source ------------------------------------------------------------------------------------------

PSEUDO: Final = frozenset({"end", "again", "tried", "except", "undo"})
"""Places that are no statements of the user's."""


def in_order(scope: Scope) -> list[Place]:
    """The statements of a scope in the order in which they are written."""
    places = [place for place in scope.places.values() if place.kind not in PSEUDO]
    # They were linked back to front, each before its body: the order of a reversed post-order walk.
    return _ordered(places)


def _ordered(places: list[Place]) -> list[Place]:
    found: list[Place] = []
    by_statement = {id(place.statement): place for place in places}
    inner: set[int] = set()

    def note_parts(statement: Any) -> None:
        for part in parts_of(statement):
            inner.add(id(part))
            if id(part) not in by_statement:
                note_parts(part)  # a section without a name

    for place in places:
        note_parts(place.statement)
    tops = [place.statement for place in reversed(places) if id(place.statement) not in inner]

    def add(statement: Any) -> None:
        place = by_statement.get(id(statement))
        if place is not None:
            found.append(place)
        for part in parts_of(statement):
            add(part)

    for top in tops:
        add(top)
    return found


def parts_of(statement: Any) -> list[Any]:
    """The statements directly inside another, transparent sections included."""
    parts: list[Any] = []
    for name in ("body", "branches", "otherwise", "final"):
        value = getattr(statement, name, None)
        if isinstance(value, tuple):
            parts += value
    for name in ("arms", "cases", "handlers"):
        for part in getattr(statement, name, None) or ():
            parts += part.body
    if statement.kind == "try" and statement.final is not None:
        return [*statement.body, *(one for clause in statement.handlers for one in clause.body), *statement.final]
    if statement.kind == "if":
        return [*(one for arm in statement.arms for one in arm.body), *(statement.otherwise or ())]
    return parts
