"""What stands for Google in tests: makes OIDC tokens, and serves the certificates they are signed with over HTTP."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from google.auth import jwt
from google.auth.crypt import RSASigner

ISSUER: Final = "https://accounts.google.com"


class Signer:
    """A key with its certificate."""

    def __init__(self, name: str) -> None:
        self.name = name
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM).decode()
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        self._signer = RSASigner.from_string(text.decode(), name)  # type: ignore[no-untyped-call]

    def sign(self, claims: dict[str, Any]) -> str:
        token: bytes = jwt.encode(self._signer, claims)  # type: ignore[no-untyped-call]
        return token.decode()


@lru_cache
def signer(name: str, *, forged: bool = False) -> Signer:
    """The signer of that name, or one that only says it is: keys are dear to make, so each is made once."""
    del forged
    return Signer(name)


class Issuer:
    """Issues tokens with its present signer; publishes the certificates of all signers it has."""

    def __init__(self) -> None:
        self.signers = [signer("first")]
        self.asked = 0
        """How often the certificates were asked for."""
        self.max_age: int | None = 3600
        self.away = False
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                text = json.dumps({one.name: one.certificate for one in issuer.signers}).encode()
                self.send_response(503 if issuer.away else 200)
                if issuer.max_age is not None:
                    self.send_header("Cache-Control", f"public, max-age={issuer.max_age}, must-revalidate")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *arguments: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}/certs"

    def claims(self, email: str, audience: str, /, **others: Any) -> dict[str, Any]:
        """What a good token says; a claim given as None is left out."""
        now = int(time.time())
        said = {
            "iss": ISSUER, "aud": audience, "email": email, "email_verified": True, "sub": "1", "iat": now, "exp": now + 3600,
        }  # fmt: skip
        return {name: value for name, value in (said | others).items() if value is not None}

    def token(self, email: str, audience: str) -> str:
        """A good token."""
        return self.signers[-1].sign(self.claims(email, audience))

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.close()
