"""
A thousand hostile requests at every endpoint bring no server error.

Every request is well framed, since what a connection itself refuses is tested beside it; all else
is hostile: methods, paths, queries, header fields and bodies, with living and mutilated tokens in
them. Limits on failures are raised, so that the answers come from the rules and not from the
throttle (TOK-16).
"""

from __future__ import annotations

import base64
import socket
from collections import Counter
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.e2e.server import (
    EMERGENCY,
    FORM,
    MACHINE,
    NO_THROTTLE,
    TESTCLIENT,
    Server,
    claims,
)

BATCH = 10
"""Requests of one example, one after the other on one connection."""

ENDPOINTS = [
    "/oauth/token",
    "/oauth/revoke",
    "/oauth/introspect",
    "/oidc/jwks",
    "/.well-known/openid-configuration",
    "/.well-known/oauth-authorization-server",
    "/secret",
    "/api/secret",
    "/healthz",
    "/readyz",
    "/metrics",
    "unknown",
]


class Peer:
    """
    A kept-alive connection that sends bytes as they are.
    """

    def __init__(self, port):
        self._port = port
        self._socket = None
        self._rest = b""

    def close(self):
        if self._socket is not None:
            self._socket.close()
        self._socket, self._rest = None, b""

    def ask(self, request, *, is_head):
        """
        Send one request; return status, header block and body of the answer.
        """
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), 30)
        self._socket.sendall(request)
        head = self._until(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        fields = {
            name.lower(): value
            for name, _, value in (
                line.partition(b": ") for line in head.split(b"\r\n")
            )
        }
        size = 0 if is_head or status in (204, 304) else int(fields[b"content-length"])
        body = self._exactly(size)
        if fields.get(b"connection") == b"close":
            # Whoever could not read a request does not know that it was for the head only.
            self.close()
        return status, fields, body

    def _until(self, mark):
        while mark not in self._rest:
            self._read()
        head, _, self._rest = self._rest.partition(mark)
        return head

    def _exactly(self, size):
        while len(self._rest) < size:
            self._read()
        body, self._rest = self._rest[:size], self._rest[size:]
        return body

    def _read(self):
        data = self._socket.recv(65_536)
        assert data, f"The server hung up; before that came {self._rest!r}"
        self._rest += data


# --- what is sent --------------------------------------------------------------------------


class Loot:
    """
    Living tokens that hostile requests are made of.
    """

    def __init__(self, server):
        client = server.client()
        tokens = client.password_grant()
        used = client.password_grant()["refresh_token"]
        client.refresh(used)
        self.tokens = [
            tokens["access_token"],
            tokens["refresh_token"],
            used,
            client.machine_token(),
            "kgm_rt_" + "A" * 95,
            "eyJhbGciOiJub25lIn0.e30.",
        ]


def spoiled(tokens):
    """
    Give tokens as they are, cut, doubled, with a character changed or something put in.
    """
    whole = st.sampled_from([token.encode() for token in tokens])
    place = st.integers(0, 10_000)

    def changed(token, at, what):
        at %= len(token)
        return token[:at] + what + token[at + 1 :]

    return st.one_of(
        whole,
        st.builds(lambda token, at: token[: at % len(token)], whole, place),
        st.builds(lambda token: token + token, whole),
        st.builds(changed, whole, place, st.binary(max_size=3)),
        st.builds(
            lambda one, other: b".".join([*one.split(b".")[:2], other.split(b".")[-1]]),
            whole,
            whole,
        ),
    )


NAMES = st.sampled_from(
    [
        "grant_type",
        "username",
        "password",
        "refresh_token",
        "token",
        "token_type_hint",
        "scope",
        "resource",
        "client_id",
        "client_secret",
        "client_assertion",
        "client_assertion_type",
        "code",
        "redirect_uri",
        "access_token",
        "audience",
        "code_verifier",
        "x",
    ]
)
GRANTS = st.sampled_from(
    [
        b"password",
        b"refresh_token",
        b"client_credentials",
        b"authorization_code",
        b"urn:ietf:params:oauth:grant-type:jwt-bearer",
        b"Password",
        b"password\0",
    ]
)
NASTY = st.sampled_from(
    [
        b"",
        b"\0",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"'; DROP TABLE document; --",
        b"../../etc/passwd",
        b"%",
        b"%zz",
        b"${jndi:ldap://x}",
        b"{{7*7}}",
        b"\r\nSet-Cookie: a=b",
        "\u202e\u0000\U0010ffff".encode(),
        "鍵".encode() * 300,
        b"A" * 5000,
        b"test",
        b"testclient",
        b"machine",
        b"secret",
        b"api",
        b"urn:kagimori:api",
        b"-1",
        b"1e400",
        b"true",
        b"[]",
    ]
)


def values(tokens):
    return st.one_of(NASTY, GRANTS, spoiled(tokens), st.binary(max_size=40))


def mostly(good, bad, odds=5):
    """
    Give something hostile once in so many times, so that requests get past the first rule.
    """
    return st.integers(1, odds).flatmap(lambda number: bad if number == 1 else good)


def forms(endpoint, tokens):
    """
    Give bodies: sensible forms with hostile parts in them, and whatever else.
    """
    pair = st.tuples(NAMES, values(tokens), st.integers(0, 9).map(bool))

    def encode(pairs):
        return b"&".join(
            name.encode() + b"=" + (quote_from_bytes(value).encode() if well else value)
            for name, value, well in pairs
        )

    def sensible(grant, token, extra):
        sent = {
            "password": {"username": b"test", "password": b"test"},
            "refresh_token": {"refresh_token": token},
            "client_credentials": {"scope": b"api"},
        }[grant]
        sent = {"grant_type": grant.encode(), **sent}
        if endpoint != "/oauth/token":
            sent = {"token": token}
        return encode([*((name, value, True) for name, value in sent.items()), *extra])

    good = st.builds(
        sensible,
        st.sampled_from(["password", "refresh_token", "client_credentials"]),
        spoiled(tokens),
        mostly(st.just([]), st.lists(pair, min_size=1, max_size=3), 2),
    )
    bad = st.one_of(
        st.lists(pair, max_size=8).map(encode),
        st.binary(max_size=200),
        st.sampled_from(
            [b'{"grant_type":"password"}', b"&" * 300, b"=" * 90, b"a=1&" * 150]
        ),
    )
    return mostly(good, bad)


def authorizations(tokens):
    # A wrong secret costs a hash that is meant to be slow, so few are wrong.
    good = st.sampled_from([TESTCLIENT.encode(), MACHINE.encode()])
    bearer = spoiled(tokens).map(lambda token: b"Bearer " + token)
    malformed = st.one_of(
        st.binary(max_size=60).map(lambda raw: b"Basic " + raw),
        st.binary(max_size=60).map(lambda raw: b"Basic " + base64.b64encode(raw)),
        NASTY.map(lambda raw: b"Bearer " + raw),
        st.sampled_from(
            [b"Basic", b"Basic ", b"bearer", b"Digest x", b"Negotiate", b","]
        ),
        st.none(),
    )
    return good, bearer, malformed


FIELD_NAMES = st.sampled_from(
    [
        b"Cookie",
        b"Origin",
        b"Accept",
        b"If-None-Match",
        b"Range",
        b"DPoP",
        b"User-Agent",
        b"X-Forwarded-For",
        b"X-Forwarded-Host",
        b"X-Request-Id",
        b"Forwarded",
        b"Content-Encoding",
        b"Access-Control-Request-Method",
        b"X-HTTP-Method-Override",
    ]
)
TYPES = st.sampled_from(
    [
        None,
        b"application/json",
        b"multipart/form-data; boundary=x",
        FORM.encode() + b"; charset=utf-8",
        FORM.encode() + b"; charset=utf-16",
        b";",
        b"\xff",
        b"text/plain",
    ]
)
METHODS = st.sampled_from(
    [
        "GET",
        "POST",
        "HEAD",
        "PUT",
        "PATCH",
        "DELETE",
        "OPTIONS",
        "TRACE",
        "PROPFIND",
        "M-SEARCH",
    ]
)
PATHS = st.one_of(
    st.sampled_from(
        [
            b"/",
            b"//",
            b"/t/",
            b"/t/default/oauth/token",
            b"/t/nobody/oauth/token",
            b"/t/%64efault/oauth/token",
            b"/oauth/token/",
            b"/oauth/authorize",
            b"/api/v1",
            b"/console/../secret",
            b"/secret%00",
            b"/.well-known/oauth-authorization-server/t/nobody",
            b"*",
            b"http://evil.example/secret",
        ]
    ),
    st.binary(max_size=60).map(lambda raw: b"/" + quote_from_bytes(raw).encode()),
    st.text("abct/.%-_~;:@!$&'()*+,=", max_size=60).map(
        lambda text: b"/" + text.encode()
    ),
)


def _clean(value):
    # Line ends and NUL would be another request, which is for the connection to refuse.
    return bytes(byte for byte in value if byte not in b"\r\n\0").strip()


def requests(endpoint, tokens, port):
    """
    Give whole requests for an endpoint, each with whether it is for the head only.
    """
    is_form = endpoint.startswith("/oauth/")
    target = PATHS if endpoint == "unknown" else st.just(endpoint.encode())
    clients, bearers, malformed = authorizations(tokens)
    query = st.one_of(
        st.builds(
            lambda name, value: (
                b"?" + name.encode() + b"=" + quote_from_bytes(value).encode()
            ),
            NAMES,
            values(tokens),
        ),
        st.builds(
            lambda token: b"?access_token=" + _clean(token).replace(b" ", b""),
            values(tokens),
        ),
    )
    shown = mostly(bearers, malformed, 3)
    if endpoint == "/secret":
        # Once in the query and once in the header, seldom in both.
        shown = mostly(st.none(), shown, 2)
        query = mostly(
            spoiled(tokens).map(lambda token: b"?access_token=" + token), query
        )
    field = st.tuples(
        FIELD_NAMES, st.one_of(NASTY, spoiled(tokens), st.binary(max_size=40))
    )

    def build(method, path, tail, authorization, kind, body, fields, chunked):
        lines = [
            method.encode() + b" " + (path + tail).replace(b"#", b"") + b" HTTP/1.1",
            b"Host: localhost:%d" % port,
        ]
        if authorization is not None:
            lines.append(b"Authorization: " + _clean(authorization))
        if kind is not None:
            lines.append(b"Content-Type: " + _clean(kind))
        lines += [name + b": " + _clean(value) for name, value in fields]
        if chunked:
            lines.append(b"Transfer-Encoding: chunked")
            body = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
            body += b"0\r\n\r\n"
        else:
            lines.append(b"Content-Length: %d" % len(body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + body, method == "HEAD"

    return st.builds(
        build,
        mostly(st.just("POST" if is_form else "GET"), METHODS),
        target,
        query if endpoint == "/secret" else mostly(st.just(b""), query),
        mostly(clients, malformed | bearers) if is_form else shown,
        mostly(st.just(FORM.encode()), TYPES, 8),
        forms(endpoint, tokens),
        mostly(
            st.just([]),
            st.lists(field, min_size=1, max_size=4, unique_by=lambda pair: pair[0]),
            3,
        ),
        st.integers(0, 9).map(lambda n: n == 0),
    )


# --- the tests -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """
    A demo world with some tokens to keep.
    """
    server = Server(tmp_path_factory.mktemp("hostile") / "data", environ=NO_THROTTLE)
    try:
        server.start()
        server.kept = [
            server.client().password_grant()["refresh_token"] for _ in range(5)
        ]
        server.keys = server.program.json("keys", "list")
        yield server
    finally:
        server.close()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_S6_hostile_requests_bring_no_server_error_and_lose_nothing(
    target, endpoint, count
):
    """
    Every request is answered below 500, as a whole, and the server is as good as before.
    """
    port = target.port
    if endpoint == "/metrics":
        port = int(target.report["admin"].rpartition(":")[2])
    # Fresh for each endpoint: those of the legacy API live 20 s.
    tokens = Loot(target).tokens
    peer = Peer(port)
    seen = Counter()

    @settings(
        max_examples=count // BATCH,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(requests(endpoint, tokens, port), min_size=BATCH, max_size=BATCH))
    def attack(batch):
        for request, is_head in batch:
            try:
                status, fields, body = peer.ask(request, is_head=is_head)
            except BaseException:
                peer.close()
                raise
            seen[status] += 1
            assert 200 <= status < 500, (status, body, request)
            assert b"x-request-id" in fields or b"connection" in fields
            # Nothing of the inside is told, and nothing hostile comes back as a header.
            assert b"Traceback" not in body
            assert b"set-cookie" not in fields

    try:
        attack()
    finally:
        peer.close()

    # Some got through to what the endpoint is for, and most did not.
    assert seen[404 if endpoint == "unknown" else 200]
    assert sum(seen.values()) >= count
    assert sum(seen[status] for status in range(400, 500)) >= count // 10
    check_unharmed(target)


def check_unharmed(server):
    assert not server.is_over
    assert server.ready()
    assert "Traceback" not in server.log
    assert "request.broken" not in server.log
    assert "answer.broken" not in server.log
    client = server.client()
    server.kept = [client.refresh(token)["refresh_token"] for token in server.kept]
    assert 200 == client.api_secret(client.machine_token()).status
    assert server.keys == server.program.json("keys", "list")


def test_S6_after_all_of_it_the_books_are_whole(target):
    """
    Database, audit trail and keys pass the doctor; another rotation and sign-in work.
    """
    findings = target.program.json("doctor")

    assert [] == [f for f in findings if f["verdict"] != "good"]
    target.program.ok(*EMERGENCY)
    token = target.client().password_grant()["access_token"]
    assert "test" == claims(token)["user"]


def test_S1_an_answer_before_the_body_says_that_the_connection_ends(target):
    """
    Whoever answers early closes, and says so, so that no peer sends its next request in vain.
    """
    with socket.create_connection(("127.0.0.1", target.port), 10) as peer:
        peer.sendall(
            b"PUT /oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += peer.recv(4096)

    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nconnection: close\r\n" in answer.lower()
