"""A registered workflow: its tree, events, queries, output; and its bodies, the objects that run.

`Definition.of(cls)` registers a class once and reports every problem it has. A `Body` is an object of the class with a tree of its
own; one serves one run at a time, and a class keeps some of them idle.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar, cast, get_args, get_origin
from weakref import WeakKeyDictionary

from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_json

from asyncflow.errors import DefinitionError, NotFound, Problem
from asyncflow.handlers import (
    GENERATOR,
    MISSING,
    QUERY_MARK,
    EventSpec,
    Input,
    QuerySpec,
    adapter_of,
    declared_events,
    event_spec,
    members_of,
    read_json,
    signature_of,
)
from asyncflow.instance import Thread
from asyncflow.state import StateCodec
from asyncflow.tree import FORKS, ItemGone, Place, Scope, bind, in_order, link_definition
from asyncflow.workflow import CURRENT, ReadsState, Workflow

W = TypeVar("W", bound=Workflow)

POOLED_BODIES: Final = 32
"""How many idle bodies a class keeps: more would only hold memory, a body is rebuilt in microseconds to milliseconds."""

_set = object.__setattr__


class Body(Generic[W]):
    """An object of the class with its tree. `text` is the state it was last known to hold, as JSON."""

    __slots__ = ("_fresh", "definition", "dirty", "extra", "root", "state", "text")

    def __init__(self, definition: Definition[W], state: W, root: Scope) -> None:
        self.definition = definition
        self.state = state
        self.root = root
        self.text = b""
        self._fresh: Workflow | None = None
        """What `text` was read back as."""
        self.dirty = False
        """User code has run on the state since `text`."""
        self.extra: dict[str, Any] | None = None

    def put(self, text: bytes) -> None:
        """Replace everything the object holds by the state in *text*.

        Raises:
            InvalidState: the state does not fit the class (rule 23).
        """
        fresh, self.extra = self.definition.codec.parse(text)
        self._take(fresh, text)

    def revert(self) -> None:
        """Go back to `text`: what user code has changed since is dropped."""
        self.put(self.text)

    def sync(self) -> bytes:
        """Write the state, and validate it from what was written. The object stays as it is until `renew`.

        Raises:
            InvalidState: and the object still holds what user code left; `revert` drops it.
        """
        if self.dirty:
            codec = self.definition.codec
            text = codec.dump(self.state, self.extra)
            self._fresh, _ = codec.parse(text)
            self.text = text
            self.dirty = False
        return self.text

    def renew(self) -> None:
        """Hold what was read back by `sync`: what runs on is what is saved. Places found before are stale afterwards."""
        if self._fresh is not None and not self.dirty:
            self._take(self._fresh, self.text)

    def _take(self, fresh: Workflow, text: bytes) -> None:
        state = self.state
        _set(state, "__dict__", fresh.__dict__)
        _set(state, "__pydantic_fields_set__", fresh.__pydantic_fields_set__)
        _set(state, "__pydantic_extra__", fresh.__pydantic_extra__)
        _set(state, "__pydantic_private__", None)
        self.text = text
        self.dirty = False
        self._fresh = None
        self.root.forget()

    def scope_of(self, thread: Thread) -> Scope:
        """The innermost scope a thread runs in, by its items.

        Raises:
            ItemGone: one of its items is no longer there.
            ItemsFailed: `items` or a body of them raised.
            LookupError: this code has no such statement.
        """
        scope = self.root
        for frame in thread.frames:
            for at, key in frame.items:
                scope = scope.item(at, key)
            if frame.key is not None:
                scope = scope.item(frame.at, frame.key)
        return scope

    def place_of(self, thread: Thread) -> Place | None:
        """Where a thread stands, or None where this code knows no such place.

        Raises:
            ItemGone: one of its items is no longer there.
            ItemsFailed: `items` or a body of them raised.
        """
        top = thread.frames[-1]
        if top.phase == "undo" and top.undos:
            return self._undo_place(thread)
        try:
            place = self.scope_of(thread).places.get(thread.position)
        except ItemGone:
            raise
        except LookupError:
            return None
        if place is None or place.region.depth == len(thread.frames):
            return place
        # A fork has a frame of its own while it waits. Else what is around the place is not what the thread was in.
        waits = place.kind in FORKS and place.region.depth + 1 == len(thread.frames) and top.at == place.at
        return place if waits else None

    def _undo_place(self, thread: Thread) -> Place | None:
        entry = thread.frames[-1].undos[-1]
        scope: Scope = self.root
        for at, _key, kept in entry.items:
            place = scope.places.get(at)
            if place is None or at not in self.definition.items:
                return None
            try:
                scope = bind(place, read_json(self.definition.items[at], to_json(kept)))
            except Exception:  # noqa: BLE001 - newer code may take the item as it was for no item, or make no body of it
                return None
        place = scope.places.get(entry.at)
        return None if place is None else place.undo


class Definition(Generic[W]):
    """One workflow class, registered."""

    _known: typing.ClassVar[WeakKeyDictionary[type[Workflow], Definition[Any]]] = WeakKeyDictionary()

    def __init__(self, cls: type[W]) -> None:
        self.cls = cls
        self.name = cls.__workflow_name__
        self.labels = cls.__workflow_labels__
        self.items: dict[str, TypeAdapter[Any]] = {}
        """The type of the items of each ForEach and Go of items, by address."""
        self.blanks: dict[str, Scope] = {}
        """The bodies of items, linked for a blank item, by address."""
        self.gos: dict[str, list[str]] = {}
        """The addresses of the Go statements, by name and by path."""
        self.events: dict[str, EventSpec] = {}
        self.queries: dict[str, QuerySpec] = {}
        self.problems: list[Problem] = []
        self.output: TypeAdapter[Any] = TypeAdapter(Any)
        self._pool: list[Body[W]] = []
        self.codec = StateCodec(cls)
        self.tree = self._build_tree(_blank(cls))
        self._read_output()
        self._read_queries()

    @classmethod
    def of(cls, workflow: type[W]) -> Definition[W]:
        """Give the definition of a class, registering it at the first call.

        Raises:
            DefinitionError: with every problem it has, each with path and source line.
        """
        known = cls._known.get(workflow)
        if known is None:
            from asyncflow.checks import check  # noqa: PLC0415 - checks read definitions

            known = Definition(workflow)
            problems = check(known)
            if problems:
                raise DefinitionError(problems)
            # Two threads may register one class at once: both definitions are the same, and one of them stays.
            known = cls._known.setdefault(workflow, known)
        return cast("Definition[W]", known)

    # -- bodies --------------------------------------------------------------------------------------------------------

    def body(self, text: bytes) -> Body[W]:
        """Take a body out of the pool, holding the state in *text*. Give it back with `release`.

        Raises:
            InvalidState: the state does not fit the class (rule 23).
        """
        try:
            body = self._pool.pop()
        except IndexError:
            state = _blank(self.cls)
            body = Body(self, state, link_definition(state.definition()))
        body.put(text)
        return body

    def release(self, body: Body[W]) -> None:
        """Put a body back; nobody may use it any more."""
        if len(self._pool) < POOLED_BODIES:
            self._pool.append(body)

    # -- registration --------------------------------------------------------------------------------------------------

    def problem(self, path: str, message: str, source: str) -> None:
        """Note one thing that is wrong."""
        self.problems.append(Problem(path=path, message=message, source=source))

    def source_of_definition(self) -> str:
        """Where `definition()` is written."""
        code = getattr(self.cls.definition, "__code__", None)
        return f"{code.co_filename}:{code.co_firstlineno}" if code else f"{self.cls.__module__}.{self.cls.__qualname__}"

    def _build_tree(self, blank: W) -> Scope:
        try:
            section = self._quietly(blank.definition)
        except Exception as error:  # noqa: BLE001 - whatever definition() raises is a problem of it
            self.problem("", _reading(error, "definition()"), raised_at(error) or self.source_of_definition())
            return Scope()
        from asyncflow.statements import Statement  # noqa: PLC0415

        if not isinstance(section, Statement):
            self.problem("", f"definition() gives {type(section).__name__}, expected S(…)", self.source_of_definition())
            return Scope()
        scope = link_definition(section)
        self._explore(scope, [blank])
        return scope

    @staticmethod
    def _quietly(function: Callable[[], Any]) -> Any:
        token = CURRENT.set(None)
        try:
            return function()
        finally:
            CURRENT.reset(token)

    def _explore(self, scope: Scope, blanks: list[Any]) -> None:
        """Collect what the definition has, also inside the bodies of items, each bound to a blank item."""
        self.problems += scope.problems
        for place in list(scope.places.values()):
            if place.kind == "go":
                for name in {place.name, place.path}:
                    self.gos.setdefault(name, []).append(place.at)
            if place.kind == "foreach" or (place.kind == "go" and place.statement.items is not None):
                self._explore_items(place, blanks)

    def _explore_items(self, place: Place, blanks: list[Any]) -> None:
        statement = place.statement
        make = statement.body if place.kind == "foreach" else statement.item_body
        if statement.items is None or make is None:
            return
        annotation = _item_type(statement.items, make, blanks)
        if annotation is MISSING:
            self.problem(
                place.path,
                "the type of its items is unknown: annotate the body's parameter, or let items return a field",
                place.source,
            )
            annotation = Any
        try:
            self.items[place.at] = adapter_of(annotation)
        except TypeError as error:
            self.problem(place.path, f"its items: {error}", place.source)
            return
        item = _blank_of(annotation)
        try:
            scope = self._quietly(lambda: bind(place, item))
        except Exception as error:  # noqa: BLE001 - whatever the body raises is a problem of it
            self.problem(place.path, _reading(error, "its body"), raised_at(error) or place.source)
            return
        self.blanks[place.at] = scope
        self._explore(scope, [*blanks, item])

    def _read_output(self) -> None:
        result = signature_of(self.cls.definition).result
        arguments = get_args(result)
        annotation = arguments[0] if get_origin(result) is not None and arguments else Any
        try:
            self.output = adapter_of(annotation)
        except TypeError as error:
            self.problem("", f"the output: {error}", self.source_of_definition())

    def _read_queries(self) -> None:
        for name, method in inspect.getmembers(self.cls, inspect.isfunction):
            if not getattr(method, QUERY_MARK, False):
                continue
            signature = signature_of(method)
            try:
                if signature.required > 1 or signature.is_async:
                    raise TypeError("a query is a plain method without input")
                if signature.is_generator:
                    raise TypeError(f"the query {GENERATOR}")
                self.queries[name] = QuerySpec(name, name, adapter_of(signature.result), inspect.getdoc(method))
            except TypeError as error:
                code = method.__code__
                self.problem(name, str(error), f"{code.co_filename}:{code.co_firstlineno}")

    def scopes(self) -> list[Scope]:
        """The definition's scope and those of all items, bound to blanks."""
        return [self.tree, *self.blanks.values()]

    def places(self) -> list[Place]:
        """Every place of the definition, inside items too."""
        return [place for scope in self.scopes() for place in scope.places.values()]

    def in_order(self) -> list[Place]:
        """The statements in the order in which they are written, those of items where their loop stands."""
        found: list[Place] = []

        def add(scope: Scope) -> None:
            for place in in_order(scope):
                found.append(place)
                if place.at in self.blanks:
                    add(self.blanks[place.at])

        if self.tree.places:
            add(self.tree)
        return found

    def add_event(self, name: str, path: str, handler: Callable[..., Any] | None, source: str) -> None:
        """Note that an event is awaited at *path*.

        Raises:
            TypeError: its handler cannot be one, or differs from another handler of the same event.
        """
        spec = event_spec(name, handler)
        known = self.events.get(name)
        if known is None:
            self.events[name] = known = spec
        elif known.signature != spec.signature:
            raise TypeError(
                f"it has another input, output, role or queue at {known.sources[0]}: "
                "one event name has one of each in the whole workflow"
            )
        known.awaited_at.append(path)
        known.sources.append(source)

    def no_event(self, said: str, name: str | None = None) -> NotFound:
        """The refusal of an event that nothing in the tree awaits.

        Args:
            said: What was asked for, in the asker's words.
            name: The event's name, where that is another one.
        """
        known = ", ".join(sorted(self.events)) or "none"
        for cls in self.classes():
            for event, method in declared_events(cls):
                if event == (name or said) or method == said:
                    return NotFound(
                        f"{self.name} has no event {said!r} in its tree: {cls.__name__}.{method} is one, but no statement "
                        f"awaits it; it has: {known}"
                    )
        return NotFound(f"{self.name} has no event {said!r}; it has: {known}")

    def classes(self, at: str | None = None) -> list[type[Any]]:
        """The class and those of its items; with *at* of the items around that address alone."""
        around = [one for address, one in self.items.items() if at is None or at.startswith(f"{address}/")]
        items = [one for adapter in around for one in members_of(adapter._type)]  # noqa: SLF001
        return [one for one in dict.fromkeys([self.cls, *items]) if isinstance(one, type)]

    def start_input(self) -> Input | None:
        """What a start over HTTP takes: the input of `start`, else None (the fields without default)."""
        start = getattr(self.cls, "start", None)
        if start is None or not inspect.ismethod(start):
            return None
        return Input.of(signature_of(start))


# -- blanks ------------------------------------------------------------------------------------------------------------


def _blank(cls: type[W]) -> W:
    """An object of the class with its methods and without state."""
    blank = cls.__new__(cls)
    _set(blank, "__pydantic_fields_set__", set())
    _set(blank, "__pydantic_extra__", None)
    _set(blank, "__pydantic_private__", None)
    return blank


def _blank_of(annotation: Any) -> Any:
    origin = get_origin(annotation) or annotation
    if isinstance(origin, type):
        try:
            return origin.__new__(origin)  # type: ignore[call-overload]
        except TypeError:
            return object()
    return object()


class _Field:
    """Stands for the value of a field while the type of items is looked for."""

    __slots__ = ("annotation",)

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation


def _item_type(items: Callable[[], Any], make: Callable[[Any], Any], blanks: list[Any]) -> Any:
    """The type of the items: of the body's parameter, else of the field that *items* returns."""
    signature = signature_of(make)
    if signature.parameters and signature.parameters[0][1] is not MISSING:
        return signature.parameters[0][1]
    annotation = signature_of(items).result
    if annotation is MISSING:
        annotation = _returned_field(items, blanks)
    while get_origin(annotation) is typing.Annotated:
        annotation = get_args(annotation)[0]
    arguments = get_args(annotation)
    return arguments[-1] if arguments else MISSING


def _returned_field(items: Callable[[], Any], blanks: list[Any]) -> Any:
    """Call *items* on blanks whose fields are stand-ins, and see which one comes back."""
    held = [blank for blank in blanks if hasattr(type(blank), "model_fields")]
    for blank in held:
        fields = type(blank).model_fields
        _set(blank, "__dict__", {name: _Field(field.annotation) for name, field in fields.items()})
    try:
        found = items()
    except Exception:  # noqa: BLE001 - anything else than returning a field is no answer
        return MISSING
    finally:
        for blank in held:
            _set(blank, "__dict__", {})
    return found.annotation if isinstance(found, _Field) else MISSING


def _reading(error: BaseException, what: str) -> str:
    if isinstance(error, ReadsState):
        return f"{what} {error}: it is built once, without state; put what depends on the state into a callable"
    if isinstance(error, AttributeError) and isinstance(error.obj, BaseModel):
        return _no_attribute(type(error.obj), error.name or "", what)
    return f"{what} raises {type(error).__name__}: {error}"


def _no_attribute(cls: type[BaseModel], name: str, what: str) -> str:
    if name in cls.model_fields:
        text = f"{what} reads the field {name!r} of the item {cls.__name__}"
        return f"{text}: it is built once, without state; put what depends on the state into a callable"
    from difflib import get_close_matches  # noqa: PLC0415 (only a mistake needs it)

    near = get_close_matches(name, [one for one in dir(cls) if not one.startswith("_")], n=1)
    return f"{what} asks for {cls.__name__}.{name}, which is not there" + (f": did you mean {near[0]}?" if near else "")


def raised_at(error: BaseException) -> str:
    """`file:line` of the user's code that raised."""
    found = ""
    step = error.__traceback__
    while step is not None:
        filename = step.tb_frame.f_code.co_filename
        if "pydantic" not in filename and not filename.startswith(_OWN_FOLDER):
            found = f"{filename}:{step.tb_lineno}"
        step = step.tb_next
    return found


_OWN_FOLDER: Final = __file__.rsplit("definition.py", 1)[0]
