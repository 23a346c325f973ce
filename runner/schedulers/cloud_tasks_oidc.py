"""OIDC tokens of Google: who has sent a delivery, proved by a signature of Google's own."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from google.auth import jwt
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request

from asyncflow.errors import Forbidden, Unauthorized, Unavailable
from runner.auth import Headers
from runner.forks import renew_after_fork

LOG: Final = logging.getLogger("asyncflow")

CERTIFICATES: Final = "https://www.googleapis.com/oauth2/v1/certs"
"""Where Google publishes what its tokens are signed with, as X.509 by key id."""
ISSUERS: Final = frozenset({"https://accounts.google.com", "accounts.google.com"})
"""As Google names itself in its tokens, old and new."""
SKEW_SECONDS: Final = 30
"""How far the clocks of this host and of Google may differ."""
KEEP_SECONDS_MIN: Final = 60.0
"""How long certificates are kept at least, and how often they are asked for at most: an unknown key id costs no more."""
KEEP_SECONDS_MAX: Final = 24 * 3600.0
"""How long they are kept at most, whatever the answer says; also how long old ones serve while no new ones can be had."""
FETCH_SECONDS: Final = 5.0
"""How long they may take to come: the queue brings its delivery again."""
REMOVED: Final = "SIGNATURE_REMOVED_BY_GOOGLE"
"""What Cloud Run puts in the place of a signature that it has verified (its documentation, "troubleshooting")."""
TOKEN_CHARACTERS_MAX: Final = 8_000
"""A token of Google has about a thousand."""

_MAX_AGE: Final = re.compile(r"max-age=(\d{1,9})", re.ASCII)
_BEARER: Final = re.compile(r"Bearer +(\S+)", re.ASCII | re.IGNORECASE)

Fetch = Callable[..., Any]
"""As `google.auth.transport.Request`: called with an address, gives an answer with `status, headers, data`."""


class Tokens:
    """Accepts tokens that Google has made for one audience in the name of one service account.

    Args:
        audience: Exactly as it stands in the tokens.
        service_account: Its e-mail address.
        platform: Whether a platform in front verifies signatures and takes them off: then a token without one is accepted.
        certificates: Where the certificates are; default: at Google's.
        fetch: What gets them; default: HTTP.
        monotonic: Seconds, for their age.
    """

    def __init__(
        self,
        *,
        audience: str,
        service_account: str,
        platform: bool = False,
        certificates: str | None = None,
        fetch: Fetch | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._platform = platform
        self._audience = audience
        self._service_account = service_account
        self._certificates = Certificates(certificates or CERTIFICATES, fetch, monotonic)

    def check(self, headers: Headers, kind: str, body: bytes) -> None:  # noqa: ARG002 - a token proves who sends, whatever he sends
        """See `runner.deliveries.Verifier.check`."""
        given = headers.get("Authorization")
        if given is None:
            raise Unauthorized("expected a delivery of the scheduler, with Authorization: Bearer and an OIDC token")
        found = _BEARER.fullmatch(given)
        if found is None or len(given) > TOKEN_CHARACTERS_MAX:
            raise Forbidden("expected Authorization: Bearer and an OIDC token, found something else")
        claims = self._claims(found[1])
        if claims.get("iss") not in ISSUERS:
            raise Forbidden("expected a token that Google has issued")
        if claims.get("email") != self._service_account or claims.get("email_verified") is not True:
            raise Forbidden(f"expected a token of {self._service_account}, verified")

    def _claims(self, token: str) -> Mapping[str, Any]:
        try:
            if token.endswith(f".{REMOVED}"):
                return self._verified_by_platform(token)
            key = jwt.decode_header(token).get("kid")  # type: ignore[no-untyped-call]
            if not isinstance(key, str):
                raise Forbidden("expected a token that names its key")
            certificate = self._certificates.of(key)
            if certificate is None:
                raise Forbidden("expected a token signed with a key of Google's: this one is not known")
            claims: Mapping[str, Any] = jwt.decode(  # type: ignore[no-untyped-call]
                token, certs={key: certificate}, audience=self._audience, clock_skew_in_seconds=SKEW_SECONDS
            )
        except (GoogleAuthError, KeyError, ValueError, TypeError, OverflowError) as error:
            # Only the kind of fault: the text of a library may quote the token.
            raise Forbidden(f"expected a valid token for {self._audience}, found a fault in it: {type(error).__name__}") from error
        return claims

    def _verified_by_platform(self, token: str) -> Mapping[str, Any]:
        if not self._platform:
            raise Forbidden(
                "expected a signed token, found one whose signature Cloud Run has taken off: if it lets nobody in but those who "
                "may call it, set verified_by to platform (ASYNCFLOW_VERIFIED_BY)"
            )
        claims: Mapping[str, Any] = jwt.decode(token, verify=False)  # type: ignore[no-untyped-call]
        if claims.get("aud") != self._audience:
            raise ValueError("another audience")
        if float(claims["exp"]) < time.time() - SKEW_SECONDS:
            raise ValueError("too old")
        return claims


class Certificates:
    """The certificates at one address, kept as long as their answer says."""

    def __init__(self, address: str, fetch: Fetch | None, monotonic: Callable[[], float]) -> None:
        self._address = address
        self._given = fetch
        self._now = monotonic
        self._known: Mapping[str, str] = {}
        self._fetched = self._asked = -KEEP_SECONDS_MAX
        self._fresh_until = -KEEP_SECONDS_MAX
        self.begin_anew()
        renew_after_fork(self)

    def begin_anew(self) -> None:
        """Forget the lock and the connection of another process, the parent; certificates stay good."""
        self._lock = threading.Lock()
        self._fetch = self._given

    def of(self, key: str) -> str | None:
        """Give the certificate of a key; None where there is none.

        Raises:
            Unavailable: the certificates cannot be had.
        """
        with self._lock:
            now = self._now()
            unknown = key not in self._known and now - self._asked >= KEEP_SECONDS_MIN
            if now >= self._fresh_until or unknown:
                self._renew(now)
            return self._known.get(key)

    def _renew(self, now: float) -> None:
        if self._fetch is None:
            self._fetch = Request()
        self._asked = now
        try:
            answer = self._fetch(self._address, method="GET", timeout=FETCH_SECONDS)
            if answer.status != 200:
                raise ValueError(f"status {answer.status}")
            known = json.loads(answer.data)
            if not isinstance(known, dict) or not all(isinstance(one, str) for one in known.values()):
                raise ValueError("no object of certificates")
        except (GoogleAuthError, ValueError) as error:
            if not self._known or now - self._fetched > KEEP_SECONDS_MAX:
                raise Unavailable(f"the certificates at {self._address} cannot be had: {error}") from error
            LOG.warning("the certificates at %s cannot be had, going on with those of before: %s", self._address, error)
            self._fresh_until = now + KEEP_SECONDS_MIN
            return
        said = _MAX_AGE.search(answer.headers.get("Cache-Control") or answer.headers.get("cache-control") or "")
        keep = float(said[1]) if said is not None else KEEP_SECONDS_MIN
        self._known, self._fetched = known, now
        self._fresh_until = now + min(max(keep, KEEP_SECONDS_MIN), KEEP_SECONDS_MAX)
