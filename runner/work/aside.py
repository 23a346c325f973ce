"""What becomes of a document that this code cannot read: tried again by the default policy, then parked (rule 23)."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from asyncflow import limits
from asyncflow.retry import DEFAULT_RETRY
from runner.stores.base import Store
from runner.work.activity import Unfit

LOG = logging.getLogger("asyncflow")


def set_aside(store: Store, request: Unfit, jitter: float) -> datetime | None:
    """Defer it, or park it when it was tried often enough; in columns alone, the document stays byte for byte.

    Args:
        jitter: Between 0 and 1.

    Returns:
        When it is to be looked at again; None: only when it is resumed, or was written by somebody else meanwhile.

    Raises:
        Unavailable: the store is away.
    """
    stored = request.stored
    record = stored.record
    name = f"{record.workflow}/{record.id}"
    LOG.warning("%s: %s", name, request.reason, extra={"instance": name})
    if not request.newer and stored.tries + 1 >= limits.RETRY_ATTEMPTS:
        store.park(record.workflow, record.id, stored.revision, request.reason)
        return None
    delay = DEFAULT_RETRY.delay_after(min(stored.tries + 1, limits.RETRY_ATTEMPTS), jitter)
    until = store.now() + max(delay, timedelta(seconds=limits.RETRY_DELAY_SECONDS))
    return until if store.defer(record.workflow, record.id, stored.revision, until=until) else None
