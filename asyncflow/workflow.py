"""`Workflow`, the class a user writes, and `Context`, what its running code may know."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from asyncflow.errors import AsyncflowError, DefinitionError, Problem

if TYPE_CHECKING:
    from logging import Logger
    from random import Random

    from asyncflow.statements import Section

RESERVED = frozenset({"context", "definition"})
"""Names of Workflow that a field may not hide."""

LOGGER_NAME = "asyncflow.workflow"


class Context:
    """What a running action or handler may know. `self.context` outside of one raises.

    `idempotency_key` is the same for every attempt of a step and for nothing else: hand it to the service you call. `random` and
    `uuid()` are seeded by it, so a repeated attempt draws the same. `cancelled` turns true when the step should stop.
    """

    __slots__ = (
        "_cancelled", "_logger", "_random", "attempt", "caller", "id", "idempotency_key", "now", "step", "thread", "workflow",
    )  # fmt: skip

    def __init__(
        self,
        *,
        id: str,
        workflow: str,
        thread: str,
        step: str,
        attempt: int,
        now: datetime,
        caller: str | None,
        idempotency_key: str,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self.id = id
        self.workflow = workflow
        self.thread = thread
        self.step = step
        self.attempt = attempt
        self.now = now
        self.caller = caller
        self.idempotency_key = idempotency_key
        self._cancelled = cancelled
        self._random: Random | None = None
        self._logger: Logger | None = None

    @property
    def random(self) -> Random:
        """A generator seeded by the idempotency key."""
        if self._random is None:
            from random import Random  # noqa: PLC0415 (few actions draw; its module is dear to import)

            self._random = Random(self.idempotency_key)  # noqa: S311 - it has to repeat, not to be secret
        return self._random

    def uuid(self) -> UUID:
        """A UUID (version 4) drawn from `random`: the same in every attempt."""
        return UUID(int=self.random.getrandbits(128), version=4)

    @property
    def logger(self) -> Logger:
        """A logger that adds instance, thread and step to every record."""
        if self._logger is None:
            import logging  # noqa: PLC0415 (as above)

            extra = {"instance": f"{self.workflow}/{self.id}", "thread_id": self.thread, "step": self.step}
            self._logger = logging.LoggerAdapter(logging.getLogger(LOGGER_NAME), extra)  # type: ignore[assignment]
        assert self._logger is not None
        return self._logger

    @property
    def cancelled(self) -> bool:
        """Whether a cancel has come, or the lease was lost: finish soon, the result may not count."""
        return self._cancelled is not None and self._cancelled()


CURRENT: ContextVar[Context | Callable[[], Context] | None] = ContextVar("asyncflow_context", default=None)
"""The context of the code that runs now, or what makes it when it is asked for; it follows into threads and tasks."""


class ReadsState(AttributeError):
    """A field was read on a blank: `definition()` must be a function of the code alone."""


class Workflow(BaseModel):
    """Fields are the state; `definition` is the body.

    `class Order(Workflow, name="Order", labels=("customer",))`: the workflow's name (default: the class's), and the fields by
    which instances are found on every store. Reserved: `context`, `definition` and BaseModel's own names.
    """

    # An unknown field is a mistake of a caller; those of a stored document are carried beside the object (rule 5).
    model_config = ConfigDict(
        extra="forbid",
        ser_json_inf_nan="constants",
        ser_json_bytes="base64",
        val_json_bytes="base64",
        # Schemas are built at first use or at registration, whichever comes first: importing a module of workflows stays quick.
        defer_build=True,
    )

    __workflow_name__: ClassVar[str] = "Workflow"
    __workflow_labels__: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, *, name: str | None = None, labels: Collection[str] = (), **kwargs: Any) -> None:
        try:
            super().__init_subclass__(**kwargs)
        except TypeError as error:
            if "takes no keyword arguments" not in str(error):
                raise
            unknown = ", ".join(f"{one}=" for one in kwargs)
            text = f"the class {cls.__name__} is given {unknown}: a workflow takes name= and labels=, and what pydantic configures"
            raise TypeError(text) from None
        cls.__workflow_name__ = name or cls.__name__
        cls.__workflow_labels__ = (labels,) if isinstance(labels, str) else tuple(labels)
        annotations: dict[str, Any] = inspect.get_annotations(cls)
        problems = [
            Problem(
                path="",
                message=f"the field {field!r} hides a name of {'Workflow' if field in RESERVED else 'BaseModel'}: rename it",
                source=f"{cls.__module__}.{cls.__qualname__}",
            )
            for field in annotations
            if field in RESERVED or (hasattr(BaseModel, field) and not field.startswith("_") and field != "model_config")
        ]
        if problems:
            raise DefinitionError(problems)

    @property
    def context(self) -> Context:
        """What the running action or handler may know.

        Raises:
            AsyncflowError: outside of one, also in `definition()`, in queries and in conditions of `When` and `WaitUntil`.
        """
        context = CURRENT.get()
        if context is None:
            raise AsyncflowError(
                "self.context is there only while an action, a handler or a callable of the walk runs "
                "(not in definition(), queries, or conditions of When and WaitUntil, which nothing wakes when the clock moves)"
            )
        if not isinstance(context, Context):
            context = context()
            CURRENT.set(context)  # asked twice, it is the same one: its random goes on where it was
        return context

    def definition(self) -> Section[Any]:
        """Give the tree of statements. It is called on an object without state: read no field here."""
        raise NotImplementedError(f"{type(self).__name__} has no definition()")

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in type(self).model_fields:
                raise ReadsState(f"reads the field {name!r}", name=name, obj=self)
            return super().__getattr__(name)
