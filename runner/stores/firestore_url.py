"""The URL of a Firestore store: `firestore://PROJECT/COLLECTION?database=NAME`."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from asyncflow.errors import Malformed

FORM: Final = "firestore://PROJECT/COLLECTION?database=NAME"
DEFAULT_DATABASE: Final = "(default)"
"""What Firestore itself calls the database of a project that names none."""

_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,99}")
_COLLECTION = re.compile(r"(?!__)[A-Za-z0-9_-]{1,100}")
_DATABASE = re.compile(r"\(default\)|[A-Za-z0-9][A-Za-z0-9-]{0,99}")


@dataclass(frozen=True, slots=True)
class FirestoreUrl:
    """Where a store's documents lie: in one collection at the root of one database."""

    project: str
    collection: str
    database: str = DEFAULT_DATABASE

    @property
    def database_name(self) -> str:
        """The database's full name."""
        return f"projects/{self.project}/databases/{self.database}"

    @property
    def root(self) -> str:
        """The full name under which all documents of the database lie."""
        return f"{self.database_name}/documents"

    @property
    def history(self) -> str:
        """The name of the collection below each document that holds its history; its own, so that it can be asked as a group."""
        return history_of(self.collection)


def history_of(collection: str) -> str:
    """Return the name of the subcollections with the histories of the instances in *collection*."""
    return f"{collection}-history"


def parse_url(rest: str) -> FirestoreUrl:
    """Read what stands behind `firestore://`.

    Raises:
        Malformed: It is not PROJECT/COLLECTION with at most a database.
    """
    path, _, query = rest.partition("?")
    project, slash, collection = path.partition("/")
    if not slash or not _PROJECT.fullmatch(project) or not _COLLECTION.fullmatch(collection):
        raise Malformed(f"a Firestore store is {FORM}: one project, one collection at its root, and no more")
    if not query:
        return FirestoreUrl(project, collection)
    options = parse_qsl(query, keep_blank_values=True)
    if [name for name, _ in options] != ["database"] or not _DATABASE.fullmatch(options[0][1]):
        raise Malformed(f"a Firestore store is {FORM}: behind the question mark stands one database, and nothing else")
    return FirestoreUrl(project, collection, options[0][1])
