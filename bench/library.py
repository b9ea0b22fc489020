"""
Figures of the library: signing, verifying, protecting.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import kagimori
from bench.figure import PAIRS, Better, Figure, MissingPeerError, in_turns
from bench.timing import microseconds
from kagimori.crypto import jws
from kagimori.crypto.jwk import Jwk, JwkSet
from kagimori.tokens.verifier import TokenVerifier

ROOT = Path(__file__).parent.parent
ECDSA = ec.ECDSA(hashes.SHA256())


def claims() -> bytes:
    """
    Return the claims of an access token as our server issues it (RFC 9068).
    """
    now = int(time.time())
    return json.dumps(
        {
            "iss": "https://id.example.com",
            "sub": "248289761001",
            "aud": "urn:kagimori:api",
            "client_id": "machine",
            "scope": "api",
            "iat": now,
            "exp": now + 3600,
            "jti": secrets.token_urlsafe(16),
        }
    ).encode()


def bare_key() -> ec.EllipticCurvePrivateKey:
    """
    Return a P-256 key as `cryptography` has it.
    """
    return ec.generate_private_key(ec.SECP256R1())


def our_key(key: ec.EllipticCurvePrivateKey) -> Jwk:
    """
    Return the same key as ours.
    """
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    made = Jwk.from_pem(pem, "ES256").to_dict(private=True)
    return Jwk.from_dict({**made, "kid": "bench", "alg": "ES256"})


def jws_sign() -> Figure:
    """
    Time `jws.sign` against the bare signature of the same bytes.
    """
    bare = bare_key()
    key = our_key(bare)
    payload = claims()
    signed = jws.sign(payload, key).rpartition(".")[0].encode()

    ours, theirs = in_turns(
        microseconds(lambda: jws.sign(payload, key)),
        microseconds(lambda: bare.sign(signed, ECDSA)),
    )
    return Figure(
        "jws-sign",
        "`jws.sign`, ES256, against the bare ECDSA signature",
        "one thread; the bare side signs the same signing input, DER and no base64",
        "µs",
        Better.LOWER,
        1.2,
        ours,
        theirs,
    )


def verifier() -> Figure:
    """
    Time `TokenVerifier` with a warm key against the bare verification of the same bytes.
    """
    bare = bare_key()
    key = our_key(bare)
    token = jws.sign(claims(), key, header={"typ": "at+jwt"})
    signed = token.rpartition(".")[0].encode()
    signature = bare.sign(signed, ECDSA)
    public = bare.public_key()
    checker = TokenVerifier.from_jwks(
        JwkSet.of([key.public()]).to_dict(),
        issuer="https://id.example.com",
        audience="urn:kagimori:api",
    )
    now = datetime.now(UTC) + timedelta(seconds=1)

    ours, theirs = in_turns(
        microseconds(lambda: checker.verify(token, now=now)),
        microseconds(lambda: public.verify(signature, signed, ECDSA)),
    )
    return Figure(
        "verify",
        "`TokenVerifier.verify` with a warm key against the bare ECDSA verification",
        "one thread, ES256, claims of RFC 9068; the bare side checks a ready DER signature",
        "µs",
        Better.LOWER,
        1.15,
        ours,
        theirs,
    )


def _protection(
    folder: Path,
) -> tuple[kagimori.ProtectionRing, kagimori.Protector, bytes]:
    """
    Return a ring with a new AES-256-GCM key, a protector, and 200 bytes.
    """
    ring = kagimori.open_ring(
        f"file://{folder}/ring", application="bench", wrapper="plaintext:"
    )
    return ring, ring.protector("bench"), secrets.token_bytes(200)


def _round_trips(better_than: str) -> str:
    """
    Say how a protection figure was got.
    """
    return f"one thread, 200 bytes, AES-256-GCM, one protect and one unprotect; {better_than}"


def protect_fernet() -> Figure:
    """
    Time a protect and an unprotect of 200 bytes against Fernet's.
    """
    with tempfile.TemporaryDirectory() as name:
        ring, protector, plaintext = _protection(Path(name))
        payload = protector.protect_bytes(plaintext)
        fernet = Fernet(Fernet.generate_key())
        token = fernet.encrypt(plaintext)

        def round_trip() -> None:
            protector.protect_bytes(plaintext)
            protector.unprotect_bytes(payload)

        def fernet_round_trip() -> None:
            fernet.encrypt(plaintext)
            fernet.decrypt(token)

        ours, theirs = in_turns(
            microseconds(round_trip), microseconds(fernet_round_trip)
        )
        ring.close()
    return Figure(
        "protect-fernet",
        "`protect_bytes` and `unprotect_bytes` of 200 bytes against Fernet",
        _round_trips("Fernet of `cryptography` in the same process"),
        "µs",
        Better.LOWER,
        0.6,
        ours,
        theirs,
    )


def dp_peer() -> Path:
    """
    Return the path of dp-peer.
    """
    named = os.environ.get("KAGIMORI_DP_PEER")
    peer = Path(named) if named else ROOT.parent / "shared/peers/aspnet/dp-peer"
    if not peer.is_file():
        raise MissingPeerError("dp-peer is not here; name it in KAGIMORI_DP_PEER")
    return peer


def library_import() -> Figure:
    """
    Time how long a program waits for `import kagimori` and an opened ring.
    """

    def run(code: str) -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return (time.perf_counter() - begin) * 1000

    def ours() -> float:
        return run("import kagimori; kagimori.open_ring") - run("pass")

    ours()
    values = [ours() for _ in range(PAIRS)]
    return Figure(
        "import",
        "`import kagimori` with `open_ring`, beyond a bare interpreter",
        "a new process each time, files in the disk cache, less the time of `python -c pass`",
        "ms",
        Better.LOWER,
        150,
        values,
    )


FIGURES = {
    "jws-sign": jws_sign,
    "verify": verifier,
    "protect-fernet": protect_fernet,
    "import": library_import,
}
