"""Calls to Firestore: one client for each handle, every call with a deadline and a bounded number of tries of our own.

The client's own retries are never used. It repeats a commit whose answer was lost without a word, so that the second
answer "already written" would look like somebody else's write; and it repeats reads for five minutes.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import google.auth
import grpc
from google.api_core import exceptions as api
from google.auth.exceptions import GoogleAuthError
from google.cloud.firestore_v1.services.firestore import FirestoreClient
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcTransport
from google.cloud.firestore_v1.types import firestore as messages

from asyncflow.errors import Unavailable
from runner.forks import renew_after_fork
from runner.stores.firestore_clock import ServerClock
from runner.stores.firestore_errors import AGAIN, DOUBTFUL, Refused, error_of, refused, too_large
from runner.stores.firestore_url import FirestoreUrl
from runner.stores.firestore_values import micros_of

EMULATOR: Final = "FIRESTORE_EMULATOR_HOST"
"""HOST:PORT of an emulator, as the client libraries of all languages read it."""
TRIES: Final = 4
"""How often one call is made: enough for a server that changes its mind, or a connection that was cut while idle."""
CALL_SECONDS: Final = 10.0
"""How long one try may take; a usual one takes some ten milliseconds."""
CALLS_SECONDS: Final = 20.0
"""After this no further try is begun: a lease has room for several such calls, and callers for one."""
WAIT_SECONDS: Final = 0.1
"""How long the second try waits, doubled for each one after it, and shortened at random by up to a half."""

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # gRPC would wait up to two minutes before it looks for a server that has come back.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
# Never closed: a child made by fork must not touch what is its parent's.
_of_parents: list[FirestoreClient] = []

_Commit: Any = messages.CommitRequest.pb()
_BatchGet: Any = messages.BatchGetDocumentsRequest.pb()
_RunQuery: Any = messages.RunQueryRequest.pb()


def open_client(url: FirestoreUrl) -> FirestoreClient:  # noqa: ARG001 - what a test puts in its place may want it
    """Make the client of one handle: to an emulator where the environment names one, else with the host's credentials.

    Raises:
        Unavailable: There are no credentials.
    """
    host = os.environ.get(EMULATOR)
    if host:
        channel = grpc.insecure_channel(host, options=_OPTIONS)
        return FirestoreClient(transport=FirestoreGrpcTransport(channel=channel))
    try:
        credentials, _ = google.auth.default(scopes=FirestoreGrpcTransport.AUTH_SCOPES)
    except GoogleAuthError as error:
        raise Unavailable(
            f"no credentials for Firestore: on Google's machines give the service an account, elsewhere run `gcloud auth"
            f" application-default login`; for an emulator set {EMULATOR} ({error})"
        ) from error
    secure = FirestoreGrpcTransport.create_channel(credentials=credentials, options=_OPTIONS)
    return FirestoreClient(transport=FirestoreGrpcTransport(channel=secure))


class FirestoreCalls:
    """The calls of one handle on the database of *url*; safe in every thread.

    Raises:
        Unavailable: (the constructor) There are no credentials.
    """

    def __init__(self, url: FirestoreUrl) -> None:
        self.url = url
        self._closed = False
        self._metadata = [("google-cloud-resource-prefix", url.database_name)]
        if os.environ.get(EMULATOR):
            self._metadata.append(("authorization", "Bearer owner"))  # past any rules that it was given
        self.begin_anew()
        self._client: FirestoreClient | None = open_client(url)
        renew_after_fork(self)

    def begin_anew(self) -> None:
        """Leave the connection to the parent, which goes on to use it; this process makes one of its own."""
        client = getattr(self, "_client", None)
        if client is not None:
            _of_parents.append(client)
        self._client = None
        self._lock = threading.Lock()
        self.clock = ServerClock()

    def check_open(self) -> None:
        """Refuse to go on after `close`: `Unavailable`."""
        if self._closed:
            raise Unavailable("the store is closed")

    def close(self) -> None:
        """Give back the connection; closing twice does nothing."""
        with self._lock:
            self._closed = True
            client, self._client = self._client, None
        if client is not None:
            client.transport.close()  # type: ignore[no-untyped-call]

    # -- the calls -----------------------------------------------------------------------------------------------------

    def commit(self, writes: Sequence[Any]) -> list[int]:
        """Make all of *writes* or none, and give the update time of each in microseconds.

        Raises:
            Refused: A precondition does not hold.
            Unavailable: The store is away; `in_doubt` where it was perhaps stored, which after a lost answer holds for
                every later refusal too: it may be the echo of this very commit.
            TooLarge, Malformed: A document that Firestore does not take.
        """
        request = messages.CommitRequest.wrap(_Commit(database=self.url.database_name, writes=writes))
        error: api.GoogleAPICallError | None = None
        doubt = False
        for asked in self._tries():
            if doubt and self._closed:
                break
            try:
                answer = self._client_now().commit(request=request, retry=None, timeout=CALL_SECONDS, metadata=self._metadata)
            except api.GoogleAPICallError as failed:
                error = failed
                doubt = doubt or isinstance(failed, DOUBTFUL)
                if too_large(failed) or not isinstance(failed, (*AGAIN, *DOUBTFUL)):
                    break
            except ValueError:  # the channel was closed under this call, which was then not sent
                if not self._closed:
                    raise
                if not doubt:
                    self.check_open()
                break
            else:
                done = messages.CommitResponse.pb(answer)
                self.clock.hear(micros_of(done.commit_time), asked)
                return [micros_of(result.update_time) for result in done.write_results]
        assert error is not None
        if not doubt and refused(error):
            raise Refused from error
        raise error_of(error, self.url, in_doubt=doubt) from error

    def fetch(self, name: str, fields: Sequence[str] = ()) -> Any:
        """Give the document of that full *name*, or None; of its fields only *fields* if there are any.

        Raises:
            AsyncflowError: `Unavailable` for the most part.
        """
        found = self.fetch_all([name], fields)
        return found[0] if found else None

    def fetch_all(self, names: Sequence[str], fields: Sequence[str] = ()) -> list[Any]:
        """Give those of the documents *names* that are there, in any order; otherwise as `fetch`."""
        mask = {"field_paths": fields} if fields else None
        request = messages.BatchGetDocumentsRequest.wrap(
            _BatchGet(database=self.url.database_name, documents=names, mask=mask),
        )

        def read(client: FirestoreClient) -> Iterator[Any]:
            answers = client.batch_get_documents(request=request, retry=None, timeout=CALL_SECONDS, metadata=self._metadata)
            return map(messages.BatchGetDocumentsResponse.pb, answers)

        return [answer.found for answer in self._read(read) if answer.HasField("found")]

    def query(self, query: Any, parent: str = "") -> list[Any]:
        """Give the documents that *query* finds below *parent*, a full name (default: the root), in its order.

        Raises:
            AsyncflowError: `Unavailable` for the most part; `Malformed` for a value that cannot be asked for.
        """
        request = messages.RunQueryRequest.wrap(_RunQuery(parent=parent or self.url.root, structured_query=query))

        def read(client: FirestoreClient) -> Iterator[Any]:
            answers = client.run_query(request=request, retry=None, timeout=CALL_SECONDS, metadata=self._metadata)
            return map(messages.RunQueryResponse.pb, answers)

        return [answer.document for answer in self._read(read) if answer.HasField("document")]

    # -- trying again --------------------------------------------------------------------------------------------------

    def _read(self, read: Callable[[FirestoreClient], Iterable[Any]]) -> list[Any]:
        error: api.GoogleAPICallError | None = None
        for asked in self._tries():
            try:
                answers = list(read(self._client_now()))
            except api.GoogleAPICallError as failed:
                error = failed
                if not isinstance(failed, (*AGAIN, *DOUBTFUL)):
                    break
            except ValueError:  # the channel was closed under this call
                self.check_open()
                raise
            else:
                timed = next((answer for answer in answers if answer.HasField("read_time")), None)
                if timed is not None:
                    self.clock.hear(micros_of(timed.read_time), asked)
                return answers
        assert error is not None
        raise error_of(error, self.url) from error

    def _tries(self) -> Iterator[float]:
        """Give the instant at which each try begins, after a wait where it is not the first."""
        begun = self.clock.monotonic()
        for number in range(TRIES):
            if number:
                wait = WAIT_SECONDS * 2 ** (number - 1) * (1 - random.random() / 2)  # noqa: S311 (spreads tries, no secret)
                if self.clock.monotonic() + wait - begun > CALLS_SECONDS:
                    return
                time.sleep(wait)
            yield self.clock.monotonic()

    def _client_now(self) -> FirestoreClient:
        client = self._client
        if client is not None:
            return client
        with self._lock:
            self.check_open()
            if self._client is None:
                self._client = open_client(self.url)
            return self._client
