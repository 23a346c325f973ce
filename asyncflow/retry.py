"""How often, and how soon, a failed step is tried again."""

import math
from datetime import timedelta
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from asyncflow import limits

_NO_TIME = timedelta(0)
_LONGEST = timedelta(days=limits.RETRY_DELAY_MAX_DAYS)


class Retry(BaseModel):
    """The policy of a step: attempts, delays between them, which exceptions count, and what follows the last one.

    `max_attempts` counts the first attempt (None: never gives up). Exceptions that `on` does not name are raised at
    once. `exhausted="pause"` parks the thread until an operator acts, `"raise"` raises the last error into the tree.
    Raises pydantic's `ValidationError` (a `ValueError`) for a value out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    max_attempts: int | None = Field(default=limits.RETRY_ATTEMPTS, ge=1)
    delay: timedelta = Field(default=timedelta(seconds=limits.RETRY_DELAY_SECONDS), ge=_NO_TIME, le=_LONGEST)
    factor: float = Field(default=limits.RETRY_FACTOR, ge=1, allow_inf_nan=False)
    max_delay: timedelta = Field(default=timedelta(seconds=limits.RETRY_MAX_DELAY_SECONDS), ge=_NO_TIME, le=_LONGEST)
    jitter: float = Field(default=limits.RETRY_JITTER, ge=0, lt=1, allow_inf_nan=False)
    on: type[Exception] | tuple[type[Exception], ...] = Exception
    exhausted: Literal["pause", "raise"] = "pause"

    @property
    def on_types(self) -> tuple[type[Exception], ...]:
        """The exceptions that are tried again, always as a tuple."""
        return self.on if isinstance(self.on, tuple) else (self.on,)

    def delay_after(self, attempt: int, random: float) -> timedelta:
        """How long to wait after the failure of *attempt* (1 is the first).

        *random* in [0, 1) places the delay within the jitter: 0 is the shortest, 0.5 the plain delay. `max_delay` caps
        the growth and never `delay` itself.
        """
        first, cap = self.delay.total_seconds(), self.max_delay.total_seconds()
        if 0 < first < cap:
            # By logarithms, because factor ** attempt overflows long before an endless policy ends.
            capped = (attempt - 1) * math.log(self.factor) >= math.log(cap / first)
            seconds = cap if capped else first * self.factor ** (attempt - 1)
        else:
            seconds = first
        return timedelta(seconds=seconds * (1 + self.jitter * (2 * random - 1)))


# Constructed, not validated: that would build the schema in every program that imports this.
DEFAULT_RETRY: Final = Retry.model_construct()
