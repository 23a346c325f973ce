"""What Firestore says, in words that help: every error of the client becomes one of the store's at the driver's edge."""

import re
from typing import Final

from google.api_core import exceptions as api
from pydantic import JsonValue

from asyncflow.errors import AsyncflowError, Malformed, TooLarge, Unavailable
from runner.stores.firestore_url import FirestoreUrl

IN_DOUBT: Final[dict[str, JsonValue]] = {"in_doubt": True}
"""The details of an error after which the change may have been made."""

AGAIN: Final = (api.Aborted, api.ResourceExhausted)
"""Surely nothing was stored, and another try may go better: contention, and a quota of this moment."""
DOUBTFUL: Final = (
    api.ServiceUnavailable, api.DeadlineExceeded, api.InternalServerError, api.Unknown, api.Cancelled, api.DataLoss,
)  # fmt: skip
"""The answer was lost, or there was none: what was asked may have been done."""

_NO_DATABASE = re.compile(r"\bdatabase\b.*\bdoes not exist\b", re.IGNORECASE | re.DOTALL)
_TOO_LARGE = re.compile(
    r"maximum entity size|longer than \d+ bytes|exceeds the (maximum|limit)|exceeds maximum size|larger than max|too big",
    re.IGNORECASE,
)


def too_large(error: api.GoogleAPICallError) -> bool:
    """Tell whether a document or a request was over a limit: no other try will go better."""
    return isinstance(error, (api.InvalidArgument, api.ResourceExhausted)) and bool(_TOO_LARGE.search(error.message or ""))


class Refused(Exception):
    """A commit whose precondition does not hold: surely nothing of it was stored."""


def refused(error: api.GoogleAPICallError) -> bool:
    """Tell whether a commit met another document than it expected: not a database that is missing or of the wrong kind."""
    said = error.message or ""
    match error:
        case api.AlreadyExists():
            return True
        case api.FailedPrecondition():
            return "Datastore" not in said and "index" not in said
        case api.NotFound():
            return not _NO_DATABASE.search(said)
        case _:
            return False


def error_of(error: api.GoogleAPICallError, url: FirestoreUrl, *, in_doubt: bool = False) -> AsyncflowError:
    """Say what *error* means for whoever uses the store at *url*; Firestore's own words stand at the end."""
    if in_doubt:
        return Unavailable(f"{_where(url)}: whether it was written is unknown: {error}", details=IN_DOUBT)
    if too_large(error):
        return TooLarge(f"{_where(url)} does not take that much in one document or request: {error}")
    if isinstance(error, api.InvalidArgument):
        return Malformed(f"{_where(url)} cannot store or look for that: {error}")
    return Unavailable(f"{_where(url)}: {_advice(error, url)} ({error})")


def _where(url: FirestoreUrl) -> str:
    return f"Firestore {url.project}/{url.database}"


def _advice(error: api.GoogleAPICallError, url: FirestoreUrl) -> str:
    said = error.message or ""
    match error:
        case api.NotFound() if _NO_DATABASE.search(said):
            return "there is no such database: make it (gcloud firestore databases create), or name another by ?database="
        case api.FailedPrecondition() if "index" in said:
            return (
                f"an index is missing, or is still being built: deploy the firestore.indexes.json of the collection"
                f" {url.collection!r}, which `asyncflow doctor --indexes` prints, and wait until it is ready"
            )
        case api.FailedPrecondition() if "Datastore" in said:
            return "the database is in Datastore mode: a store needs one in native mode"
        case api.PermissionDenied():
            return "no permission: give this account the role Cloud Datastore User (roles/datastore.user)"
        case api.Unauthenticated():
            return "the credentials were refused: log in again, or mend the service account"
        case api.ResourceExhausted():
            return "a quota is used up: nothing is lost, it goes on when there is room again"
        case api.Aborted():
            return "too many write the same instance at once: nothing is lost, try again"
        case _:
            return "it does not answer: nothing is lost, try again"
