"""What brings wake-ups. `open_scheduler` makes a scheduler by its URL; `runner.schedulers.base` is the contract of all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from asyncflow import limits
from asyncflow.errors import Malformed
from runner.auth import is_loopback
from runner.durations import show_duration
from runner.schedulers.base import KEY_CHARACTERS_MIN, Scheduler, Terms
from runner.schedulers.local import LocalScheduler

__all__ = ["LOCAL", "check_scheduler", "delivers", "faults", "open_scheduler"]

LOCAL: Final = "local"
FORMS: Final = "local, or cloudtasks://PROJECT/LOCATION/QUEUE (several queues with commas)"
_CLOUD_TASKS: Final = "cloudtasks://"
# As the service takes them: its own refusals come only with the first task.
_PARTS: Final = re.compile(r"([a-z0-9.:-]{1,63})/([a-z0-9-]{1,63})/([A-Za-z0-9-]{1,100}(?:,[A-Za-z0-9-]{1,100})*)", re.ASCII)


def check_scheduler(given: object) -> str:
    """Give a scheduler's URL as it is.

    Raises:
        ValueError: It is none; the text says what would be.
    """
    if isinstance(given, str):
        if given == LOCAL:
            return given
        if given.startswith(_CLOUD_TASKS) and _PARTS.fullmatch(given.removeprefix(_CLOUD_TASKS)):
            return given
    raise ValueError(f"expected a scheduler: {FORMS}, found {given!r}")


def delivers(url: str) -> bool:
    """Whether the scheduler brings its wake-ups over HTTP: then steps run in requests, and there are no workers."""
    return url != LOCAL


def faults(url: str, terms: Terms, lease: timedelta) -> Iterator[tuple[str, str]]:
    """Give what cannot work together, each as the name of the setting at fault and what is wrong.

    Nothing of it matters to a scheduler that does not deliver.
    """
    if not delivers(url):
        return
    if terms.base_url is None:
        yield "base_url", f"expected the address at which {_CLOUD_TASKS} reaches this app, as https://shop.example.com, found none"
    else:
        parts = urlsplit(terms.base_url)
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            yield "base_url", f"expected https://, since deliveries carry what proves them, found {parts.scheme}://"
    if any(len(key) < KEY_CHARACTERS_MIN for key in terms.hmac_keys):
        yield "hmac_keys", f"expected keys of at least {KEY_CHARACTERS_MIN} characters each, found a shorter one"
    if terms.request >= lease:
        found = f"found {show_duration(terms.request)} and a lease of {show_duration(lease)}"
        yield "request_timeout", f"expected less than the lease, so that a request is over before another takes its step, {found}"
    dispatch = timedelta(seconds=limits.DISPATCH_SECONDS)
    if lease >= dispatch:
        yield "lease", f"expected less than {show_duration(dispatch)}, when a delivery is given up, found {show_duration(lease)}"


def open_scheduler(url: str, terms: Terms, *, now: Callable[[], datetime]) -> Scheduler:
    """Make a scheduler; only its own driver is imported.

    Args:
        url: `local`, `cloudtasks://PROJECT/LOCATION/QUEUE`.
        terms: For one that delivers over HTTP.
        now: The store's clock.

    Raises:
        Malformed: No such kind of scheduler.
    """
    try:
        check_scheduler(url)
    except ValueError as error:
        raise Malformed(str(error)) from error
    if not delivers(url):
        return LocalScheduler(now)
    from runner.schedulers.cloud_tasks import CloudTasks  # noqa: PLC0415 - only what is asked for

    project, location, queues = url.removeprefix(_CLOUD_TASKS).split("/")
    return CloudTasks(project, location, tuple(queues.split(",")), terms, now=now)
