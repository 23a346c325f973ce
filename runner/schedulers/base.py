"""The contract of every scheduler: what brings wake-ups, and what it has to be told for that.

A wake-up is a hint that says "look at this document": it carries the key and nothing else. It may come late, twice, out of
order or not at all; it costs time then, never an instance, since the sweeper finds in the store what is due (rules 7, 21).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Final, Literal

from asyncflow import limits
from runner.stores.base import Key

REQUEST: Final = timedelta(seconds=limits.REQUEST_SECONDS)
"""How long a request may take unless told otherwise."""
KEY_CHARACTERS_MIN: Final = 32
"""Of a key that deliveries are signed with: 32 random characters cannot be guessed."""
WAKE_PATH: Final = "/tasks/wake"
"""Where a scheduler that delivers over HTTP brings its wake-ups, behind the base address of the app."""
SWEEP_PATH: Final = "/tasks/sweep"
"""What a cron job calls there, to find what was not woken."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a scheduler reaches the app, how it proves that it is itself, and how long a request may take.

    Args:
        base_url: The address of the app as the scheduler sees it, with the prefix it is mounted under, if any.
        audience: Of its OIDC tokens; default: *base_url*.
        service_account: The e-mail address of the account in whose name it delivers; None: no OIDC tokens.
        hmac_keys: What deliveries are signed with, the new key first; empty: they are not signed.
        request: How long a request to the app may take.
        verified_by: Who looks at the signatures of OIDC tokens: the app, or the platform in front of it, which lets nobody else
            in and takes the signatures off, as Cloud Run does for a service that is not public.
    """

    base_url: str | None = None
    audience: str | None = None
    service_account: str | None = None
    hmac_keys: tuple[str, ...] = ()
    request: timedelta = REQUEST
    verified_by: Literal["app", "platform"] = "app"

    @property
    def expected_audience(self) -> str:
        """Whom the tokens of deliveries are for."""
        return self.audience or self.base_url or ""

    @property
    def verified(self) -> bool:
        """Whether a delivery can prove that it is one."""
        return self.service_account is not None or bool(self.hmac_keys)


class Scheduler(ABC):
    """Brings wake-ups. Its methods may be called from any thread."""

    delivers: ClassVar[bool]
    """Whether it brings them over HTTP, to `/tasks/wake` of whatever process is there; else to workers of this process."""

    @abstractmethod
    def wake(self, key: Key, at: datetime) -> bool:
        """Have somebody look at *key* at *at*, at once where that has passed; True when it was accepted.

        False: it was refused, or lies beyond what the scheduler can keep; that is left to the sweeper. Never raises, and
        gives up within seconds: the save came first, and must not fail by this. Repeating it does no harm.
        """

    def faults(self) -> list[str]:
        """Say what keeps wake-ups from being brought now, each with what to do; empty: nothing. Asks whoever brings them."""
        return []

    @abstractmethod
    def close(self) -> None:
        """Give back threads and connections; closing twice does nothing."""
