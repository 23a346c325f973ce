"""What a child made by fork must make anew: locks that a thread of its parent may hold, threads it does not have."""

import os
import weakref
from typing import Protocol


class Renewable(Protocol):
    """Something whose locks and threads are those of one process."""

    def begin_anew(self) -> None:
        """Forget the parent's locks, threads, and whatever was under way there."""
        ...


_all: "weakref.WeakSet[Renewable]" = weakref.WeakSet()


def renew_after_fork(thing: Renewable) -> None:
    """Let *thing* begin anew in every child made by fork, as long as it lives."""
    _all.add(thing)


def _renew_all() -> None:
    for thing in list(_all):
        thing.begin_anew()


os.register_at_fork(after_in_child=_renew_all)
