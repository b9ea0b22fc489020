from __future__ import annotations

import gc
import ssl
import subprocess
import sys
import threading
import time

import pytest
import trustme

from kagimori.crypto.jwk import Jwk
from kagimori.errors import ConfigError, InvalidTokenError
from kagimori.tokens.jwks_source import COOLDOWN, REFRESH, JwksSource
from kagimori.tokens.verifier import TokenVerifier
from tests.tokens.publishing import Publisher
from tests.tokens.signing import AUDIENCE, ISSUER, KEY, NOW, claims, sign

NEXT = Jwk.generate("ES256")


class Hands:
    """
    A monotonic clock that is moved by hand.
    """

    def __init__(self):
        self.time = 1000.0

    def __call__(self):
        return self.time


def until(condition):
    """
    Wait for another thread to get somewhere; never for a clock.
    """
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.001)


class Api:
    """
    A resource server that verifies by a JWKS URL, on a clock of its own.
    """

    def __init__(self, publisher, **fields):
        self.hands = Hands()
        self.source = JwksSource(publisher.url, monotonic=self.hands, **fields)
        self.verifier = TokenVerifier(
            self.source.keys, issuer=ISSUER, audience=AUDIENCE, source=self.source
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.verifier.close()

    def accepts(self, token):
        try:
            self.verifier.verify(token, now=NOW)
        except InvalidTokenError:
            return False
        return True

    def fetched(self, times):
        until(lambda: self.source.fetches == times)


def test_JAT6_the_first_caller_waits_and_the_others_do_not_fetch():
    """
    JAT-6: one fetch serves everybody; after it no network is needed.
    """
    with Publisher(KEY) as publisher, Api(publisher) as api:
        assert api.accepts(sign(claims()))
        assert all(api.accepts(sign(claims(jti=str(n)))) for n in range(50))
        assert ["/keys?a=b"] == publisher.requests


def test_JAT6_a_herd_at_the_start_is_one_fetch():
    """
    J15: single flight, also for callers that find no set at all.
    """
    with Publisher(KEY) as publisher, Api(publisher) as api:
        publisher.gate.clear()
        token, results = sign(claims()), []
        herd = [
            threading.Thread(target=lambda: results.append(api.accepts(token)))
            for _ in range(50)
        ]
        for thread in herd:
            thread.start()
        until(lambda: publisher.requests)
        publisher.gate.set()
        for thread in herd:
            thread.join()

        assert [True] * 50 == results
        assert 1 == len(publisher.requests)


def test_JAT6_an_unknown_kid_brings_the_new_key():
    """
    JAT-6: a token of a key that was just published is refused once and accepted after.
    """
    with Publisher(KEY) as publisher, Api(publisher) as api:
        assert api.accepts(sign(claims()))
        publisher.document["keys"].append(NEXT.public().to_dict())
        api.hands.time += COOLDOWN

        assert not api.accepts(sign(claims(), key=NEXT))
        api.fetched(2)
        assert api.accepts(sign(claims(), key=NEXT))
        assert api.accepts(sign(claims()))


@pytest.mark.parametrize("answer", ["same set", "empty set", "error", "garbage"])
def test_J15_a_flood_of_unknown_kids_is_one_fetch_in_a_cooldown(answer):
    """
    J15: whatever the refetch brings, the next comes after the cooldown; known keys stay.
    """
    with Publisher(KEY) as publisher, Api(publisher) as api:
        sound = sign(claims())
        assert api.accepts(sound)
        if answer == "empty set":
            publisher.document = {"keys": []}
        elif answer == "error":
            publisher.answer = lambda request: request.send_error(500)
        elif answer == "garbage":
            publisher.answer = lambda request: publisher.publish(request, b"\xff{")

        for flood in range(1, 4):
            # What failed is tried again by itself; the flood adds nothing to that.
            api.hands.time += COOLDOWN
            for number in range(300):
                assert not api.accepts(foreign(number))
                assert api.accepts(sound)
            api.fetched(1 + flood)
            for number in range(300):
                assert not api.accepts(foreign(number))
            assert 1 + flood == len(publisher.requests)
        assert api.accepts(sound)
        assert bool(api.verifier.problem) == (answer != "same set")


def foreign(number):
    """
    Return a token of a key that nobody publishes.
    """
    if number not in _foreign:
        members = NEXT.to_dict(private=True) | {"kid": f"made-up-{number}"}
        _foreign[number] = sign(claims(), key=Jwk.from_dict(members))
    return _foreign[number]


_foreign: dict[int, str] = {}


def test_J15_nobody_waits_for_a_refetch():
    """
    No caller blocks once a set is there, though the issuer does not answer.
    """
    with Publisher(KEY) as publisher, Api(publisher) as api:
        sound = sign(claims())
        assert api.accepts(sound)
        publisher.gate.clear()
        api.hands.time += COOLDOWN

        assert not api.accepts(foreign(1))
        until(lambda: len(publisher.requests) == 2)
        assert api.accepts(sound)
        assert not api.accepts(foreign(2))
        assert 1 == api.source.fetches


def test_J15_without_any_set_a_failure_is_answered_at_once_for_a_cooldown():
    """
    J15: while the issuer is down, callers are refused without a fetch each; then it recovers.
    """
    with Publisher(KEY) as publisher, Api(publisher) as api:
        publisher.answer = lambda request: request.send_error(503)
        refusals = [api.accepts(sign(claims())) for _ in range(20)]
        assert [False] * 20 == refusals
        assert 1 == len(publisher.requests)
        assert "503" in api.verifier.problem

        publisher.answer = publisher.publish
        api.hands.time += COOLDOWN
        assert api.accepts(sign(claims()))
        assert not api.verifier.problem


def test_JAT6_the_set_is_refreshed_each_hour():
    """
    A key that left the published set is refused within the hour; callers never wait.
    """
    with Publisher(KEY, NEXT) as publisher, Api(publisher) as api:
        token = sign(claims(), key=NEXT)
        assert api.accepts(token)
        publisher.document["keys"].pop()
        api.hands.time += REFRESH

        assert api.accepts(token)
        api.fetched(2)
        assert not api.accepts(token)
        assert api.accepts(sign(claims()))


def test_the_thread_refreshes_without_callers():
    """
    An idle API hears of a removed key all the same: the thread does not wait to be asked.
    """
    with Publisher(KEY) as publisher, Api(publisher) as api:
        assert api.accepts(sign(claims()))
        state = api.source._state
        with state._changed:
            api.hands.time += REFRESH
            # A wait that has run out looks like this to the thread.
            state._changed.notify_all()
        api.fetched(2)

        assert 2 == len(publisher.requests)


# --- what is not taken ---------------------------------------------------------------------

BAD_ANSWERS = {
    "redirect": lambda p, r: p.publish(r, b"", 302, Location=p.url),
    "redirect with a body": lambda p, r: p.publish(r, None, 307, Location=p.url),
    "not found": lambda p, r: p.publish(r, None, 404),
    "partial": lambda p, r: p.publish(r, None, 206),
    "too long": lambda p, r: p.publish(r, b" " * 600_000 + b"{}"),
    "no object": lambda p, r: p.publish(r, b"[]"),
    "no keys": lambda p, r: p.publish(r, b"{}"),
    "keys are no array": lambda p, r: p.publish(r, b'{"keys": {}}'),
    "a key is no object": lambda p, r: p.publish(r, b'{"keys": ["x"]}'),
    "a member named twice": lambda p, r: p.publish(r, b'{"keys": [], "keys": []}'),
    "a million keys": lambda p, r: p.publish(
        r, b'{"keys": [' + b"{}," * 100_000 + b"{}]}"
    ),
    "a symmetric key": lambda p, r: p.publish(
        r, b'{"keys": [{"kty": "oct", "k": "' + b"A" * 43 + b'"}]}'
    ),
    "compressed": lambda p, r: p.publish(
        r, b"\x1f\x8b\x08\x00", Content_Encoding="gzip"
    ),
    "not HTTP": lambda p, r: r.wfile.write(b"SSH-2.0-x\r\n"),
    "cut off": lambda p, r: r.wfile.write(
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"
    ),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_N3_a_bad_answer_changes_nothing(name):
    """
    N2, N3: redirects, lengths, types and bad keys are refused; the known keys stay in use.
    """
    with Publisher(KEY) as publisher, Api(publisher) as api:
        sound = sign(claims())
        assert api.accepts(sound)
        publisher.answer = lambda request: BAD_ANSWERS[name](publisher, request)
        api.hands.time += COOLDOWN
        assert not api.accepts(foreign(1))
        api.fetched(2)

        assert api.verifier.problem
        assert api.accepts(sound)
        assert 2 == len(publisher.requests)


def test_private_keys_in_public_are_not_used():
    """
    A set with private members has leaked: nothing that it verifies can be trusted.
    """
    with Publisher() as publisher, Api(publisher) as api:
        publisher.document = {"keys": [KEY.to_dict(private=True)]}

        assert not api.accepts(sign(claims()))
        assert "private" in api.verifier.problem


def test_RFC7517_keys_for_other_purposes_are_passed_over():
    """
    RFC 7517 section 5: unknown types, encryption keys and unknown algorithms are ignored.
    """
    with Publisher(KEY) as publisher, Api(publisher) as api:
        publisher.document["keys"] += [
            {"kty": "AKP", "alg": "ML-DSA-65", "pub": "AA"},
            NEXT.public().to_dict() | {"use": "enc"},
            NEXT.public().to_dict() | {"alg": "ES999"},
        ]

        assert api.accepts(sign(claims()))
        assert not api.accepts(sign(claims(), key=NEXT))


def test_N3_an_endless_answer_ends_at_the_deadline():
    """
    N3: a server that sends a byte at a time meets every timeout, and not the deadline.
    """
    with Publisher(KEY) as publisher, Api(publisher, timeout=5, deadline=0.3) as api:
        stop = threading.Event()

        def drip(request):
            request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not stop.wait(0.01):
                request.wfile.write(b"x")

        publisher.answer = drip
        assert not api.accepts(sign(claims()))
        stop.set()
        assert 1 == api.source.fetches
        assert api.verifier.problem


def test_a_caller_without_any_set_waits_for_a_bounded_time():
    """
    An issuer that takes the connection and says nothing holds a caller for the timeout only.
    """
    with Publisher(KEY) as publisher, Api(publisher, timeout=0.2) as api:
        publisher.gate.clear()

        assert not api.accepts(sign(claims()))


ALLOWED = [
    "https://id.example.com/oidc/jwks",
    "https://id.example.com:8443/jwks?x=y",
    "http://localhost:3000/oidc/jwks",
    "http://127.0.0.1/jwks",
    "http://127.9.9.9:1/jwks",
    "http://[::1]:3000/jwks",
]
REFUSED = [
    "http://id.example.com/jwks",
    "http://10.0.0.1/jwks",
    "http://localhost.example.com/jwks",
    "http://127.0.0.1.example.com/jwks",
    "http://0.0.0.0/jwks",
    "ftp://localhost/jwks",
    "file:///etc/passwd",
    "https://user@id.example.com/jwks",
    "https://user:secret@id.example.com/jwks",
    "https://id.example.com/jwks#x",
    "https://",
    "https://id.example.com:port/jwks",
    "https://[::1/jwks",
    "/oidc/jwks",
    "",
]


@pytest.mark.parametrize("url", REFUSED)
def test_N2_an_address_that_is_not_allowed(url):
    """
    https, or http on a loopback address; no user names, no fragments, no other schemes.
    """
    with pytest.raises(ConfigError) as caught:
        JwksSource(url)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ALLOWED)
def test_N2_an_address_that_is_allowed(url):
    """
    The twins of the refused ones; nothing is fetched before the first use.
    """
    assert not JwksSource(url).fetches


# --- TLS -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def server_tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_https_with_a_private_authority(authority):
    """
    The keys come over TLS from an authority that the operator names.
    """
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    with (
        Publisher(KEY, tls=server_tls(authority)) as publisher,
        TokenVerifier.from_jwks_url(
            publisher.url, issuer=ISSUER, audience=AUDIENCE, ssl_context=trusted
        ) as verifier,
    ):
        assert verifier.verify(sign(claims()), now=NOW)


def test_https_of_an_unknown_authority_is_refused(authority):
    """
    Without that authority the certificate is not trusted, and no key is taken.
    """
    with Publisher(KEY, tls=server_tls(authority)) as publisher, Api(publisher) as api:
        assert not api.accepts(sign(claims()))
        assert "SSL" in api.verifier.problem
        assert [] == publisher.requests


# --- its thread ----------------------------------------------------------------------------


def test_the_thread_ends_with_close():
    """
    Closing ends the thread; what was fetched goes on verifying.
    """
    with Publisher(KEY) as publisher, Api(publisher) as api:
        assert api.source._thread is None
        assert api.accepts(sign(claims()))
        thread = api.source._thread
        assert thread.is_alive()
        api.verifier.close()
        until(lambda: not thread.is_alive())

        assert api.accepts(sign(claims()))
        assert not api.accepts(foreign(1))


def test_the_thread_ends_with_its_verifier():
    """
    A verifier that nobody holds any more leaves no thread behind.
    """
    with Publisher(KEY) as publisher:
        verifier = TokenVerifier.from_jwks_url(
            publisher.url, issuer=ISSUER, audience=AUDIENCE
        )
        verifier.verify(sign(claims()), now=NOW)
        thread = verifier._source._thread
        assert thread.is_alive()
        del verifier
        gc.collect()

        until(lambda: not thread.is_alive())


FORKING = """
import os, sys
from datetime import UTC, datetime, timedelta
from kagimori.errors import InvalidTokenError
from kagimori.tokens.jwks_source import COOLDOWN, JwksSource
from kagimori.tokens.verifier import TokenVerifier

url, issuer, audience, sound, foreign = sys.argv[1:]
time = [1000.0]
source = JwksSource(url, monotonic=lambda: time[0])
verifier = TokenVerifier(source.keys, issuer=issuer, audience=audience, source=source)
now = datetime(2030, 1, 1, tzinfo=UTC)
verifier.verify(sound, now=now)
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
time[0] += COOLDOWN
verifier.verify(sound, now=now)
try:
    verifier.verify(foreign, now=now)
except InvalidTokenError:
    while source.fetches < 2:
        pass
    verifier.verify(sound, now=now)
    os._exit(7)
"""


def test_a_verifier_works_on_after_a_fork():
    """
    A forked child has no thread: it starts its own when it needs one.
    """
    with Publisher(KEY) as publisher:
        arguments = [publisher.url, ISSUER, AUDIENCE, sign(claims()), foreign(1)]
        done = subprocess.run(
            [sys.executable, "-c", FORKING, *arguments], timeout=30, check=False
        )

        assert 7 == done.returncode
        assert 2 == len(publisher.requests)
