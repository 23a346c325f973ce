"""What commands ask of instances, wherever these are: on a store of this machine, or behind a server."""

from typing import Any, Protocol, TypeAlias

JsonObject: TypeAlias = dict[str, Any]

VERBS = ("cancel", "kill", "pause", "resume", "retry", "skip")
"""The operators' words that commands send."""


class Descriptions(Protocol):
    """What there is to know of workflows. Every method raises the errors of `asyncflow`, the same ones on both ways."""

    def workflows(self) -> list[JsonObject]:
        """Give `{name, description}` of every workflow that is known."""
        ...

    def docs(self, workflow: str) -> JsonObject:
        """Give what `asyncflow.docs` says of it."""
        ...

    def definition(self, workflow: str) -> JsonObject:
        """Give its tree, `{kind, name, path, body | cases}`."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


class Access(Descriptions, Protocol):
    """One way to instances, and all there is to know of their workflows."""

    def start(self, workflow: str, body: bytes | None, *, id: str | None, key: str | None) -> JsonObject:
        """Start an instance from JSON text and give it."""
        ...

    def send(
        self,
        workflow: str,
        id: str,
        event: str,
        body: bytes | None,
        *,
        thread: str | None,
        key: str | None,
        seconds: float,
    ) -> Any:
        """Deliver an event and give the handler's value, waiting for it as long as *seconds*."""
        ...

    def query(self, workflow: str, id: str, query: str) -> Any:
        """Give what a query says."""
        ...

    def get(self, workflow: str, id: str) -> JsonObject:
        """Give the instance."""
        ...

    def timers(self, workflow: str, id: str) -> list[JsonObject]:
        """Give the timers that wait, `{thread, path, at}`; none where this way does not know them."""
        ...

    def changed(self, workflow: str, id: str, since: int, seconds: float) -> JsonObject | None:
        """Wait until its `pc` is greater than *since* and give it; None if that has not come within *seconds*."""
        ...

    def page(
        self,
        workflow: str | None,
        *,
        status: str | None,
        filter: str | None,
        page_size: int,
        page_token: str | None,
        foreign: bool = False,
    ) -> JsonObject:
        """Give `{instances, next_page_token}`, the newest first; workflow None means all.

        With *foreign* also those of workflows that the code does not have, where this way can see them.
        """
        ...

    def history(self, workflow: str, id: str, *, page_size: int, page_token: str | None) -> JsonObject:
        """Give `{entries, next_page_token}`, the oldest first."""
        ...

    def operate(
        self,
        workflow: str,
        id: str,
        verb: str,
        *,
        thread: str | None = None,
        value: bytes | None = None,
        key: str | None = None,
        if_pc: int | None = None,
    ) -> tuple[JsonObject, bool]:
        """Say an operator's word; give the instance, and whether it is applied already (else it is laid down)."""
        ...

    def delete(self, workflow: str, id: str) -> None:
        """Delete an ended instance."""
        ...
