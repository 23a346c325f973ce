"""What SQLite says, in words that help: every error of the driver becomes an `Unavailable` at its edge."""

from typing import Final

import apsw

from asyncflow.errors import Unavailable

# Faults of one row, not of the file: the other writes of the same transaction are tried again without it.
ROW_FAULTS: Final = (
    apsw.BindingsError, apsw.ConstraintError, apsw.MismatchError, apsw.RangeError, apsw.TooBigError,
    OverflowError, TypeError, ValueError,
)  # fmt: skip
# The file itself is broken: nothing is written to it any more.
BROKEN: Final = (apsw.CorruptError, apsw.NotADBError)

_ADVICE: Final[tuple[tuple[type[apsw.Error], str], ...]] = (
    (apsw.FullError, "the disk is full: nothing is lost, make room and it goes on"),
    (apsw.BusyError, "another process holds it locked: end whatever keeps a transaction open"),
    (apsw.LockedError, "another connection holds it locked: end whatever keeps a transaction open"),
    (apsw.ReadOnlyError, "it is read-only: let this user write the file and its folder"),
    (apsw.PermissionsError, "no permission: let this user write the file and its folder"),
    (apsw.CantOpenError, "it cannot be opened: does the folder exist, and may this user write there?"),
    (apsw.CorruptError, "it is corrupt and was left as it is: restore a copy, or rescue what is left by `.recover`"),
    (apsw.NotADBError, "it is no SQLite database, and was left as it is: name another file"),
    (apsw.NoMemError, "no memory"),
    (apsw.IOError, "the disk failed"),
)


def unavailable(error: Exception, path: str) -> Unavailable:
    """Say what *error* means for the user of the file *path*; SQLite's own words stand at the end."""
    for kind, advice in _ADVICE:
        if isinstance(error, kind):
            return Unavailable(f"{path}: {advice} ({error})")
    return Unavailable(f"{path}: {type(error).__name__}: {error}")
