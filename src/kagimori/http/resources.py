"""
Resources behind bearer tokens (RFC 6750): our middleware, shown by the two of the demo world.

Rules of this module:

1. A token is checked in memory with the server's own ring: no storage call, no network (ACC-3).
2. A request shows its token in one place. In the query string it counts only where the resource
   has the switch for it (requirements C3), and then everything about the answer says so.
3. Every 401 carries a challenge; one without a token names no error (BEA-3, BEA-5).
4. A resource of the strict legacy profile answers as its clients of 2015 expect: 400 without a
   token, and a numeric ``code`` in error bodies.
"""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.types import Receive, Scope, Send

from kagimori.compose import Services
from kagimori.errors import ExpiredTokenError, InvalidTokenError
from kagimori.http.edge import EXCHANGE, not_found
from kagimori.http.exchange import (
    JSON_NO_STORE,
    NO_STORE,
    TEXT_NO_STORE,
    Exchange,
    Header,
    HeaderSet,
)
from kagimori.http.live import Live
from kagimori.http.metrics import Metrics
from kagimori.oauth.resource import Resource
from kagimori.tokens.verified import VerifiedToken

LONGEST_IN_QUERY = timedelta(minutes=5)
"""The longest life of a token that is taken from a query string."""

EXPIRED = "The access token provided has expired."
INVALID = "The access token provided is invalid."
MISSING = "The access token was not found."

_ALLOW: Header = (b"allow", b"GET, HEAD")
# RFC 9745: in use deprecated since RFC 9700 (January 2025).
_DEPRECATED: tuple[Header, ...] = (
    (b"deprecation", b"@1735689600"),
    (b"link", b'<https://www.rfc-editor.org/rfc/rfc9700>; rel="deprecation"'),
)


class _Refusal(Exception):  # noqa: N818 - an answer, not an error of ours
    """
    The answer to a request without a good token.
    """

    def __init__(
        self, status: int, error: str = "", description: str = "", scope: str = ""
    ) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.description = description
        self.scope = scope


class BearerEndpoint:
    """
    A text that is shown to whoever has a token for its API.

    Args:
        route: its name, for metrics.
        resource: the id of the API.
        text: what is shown.
        scope: scope values that the token must carry.
        live: what serves.
        metrics: where query tokens are counted.
    """

    def __init__(
        self,
        route: str,
        resource: str,
        text: bytes,
        live: Live,
        metrics: Metrics,
        *,
        scope: tuple[str, ...] = (),
    ) -> None:
        self._route = route
        self._resource = resource
        self._text = text
        self._live = live
        self._metrics = metrics
        self._scope = frozenset(scope)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Answer one request (ASGI).
        """
        exchange: Exchange = scope[EXCHANGE]
        exchange.route = self._route
        if scope["method"] not in ("GET", "HEAD"):
            await exchange.fail(
                405, "invalid_request", "The method must be GET.", (_ALLOW,)
            )
            return
        services = self._live.services()
        tenant = exchange.tenant
        assert tenant is not None  # noqa: S101 - the edge has set it
        resource = services.resource(tenant.id, self._resource)
        if resource is None or resource.disabled:
            raise not_found()
        in_query = False
        try:
            token, in_query = self._token(exchange, resource)
            await self._check(services, exchange, resource, token, in_query=in_query)
        except _Refusal as refusal:
            await self._refuse(exchange, resource, refusal, in_query=in_query)
            return
        await exchange.answer(
            200, _private(TEXT_NO_STORE, in_query=in_query), self._text
        )

    def _token(self, exchange: Exchange, resource: Resource) -> tuple[str, bool]:
        """
        Return the one token that the request shows, and whether it stands in the query.
        """
        shown = _query_tokens(exchange.scope["query_string"])
        header = exchange.headers.get(b"authorization")
        scheme, _, credentials = (header or b"").partition(b" ")
        is_bearer = scheme.lower() == b"bearer"
        if len(shown) + is_bearer > 1:
            raise _Refusal(
                400,
                "invalid_request",
                "Only one access token may be sent, in one place.",
            )
        if is_bearer:
            token = credentials.strip()
            if not token:
                raise _Refusal(400, "invalid_request", "The access token is empty.")
            return token.decode("latin-1"), False
        if shown and resource.bearer_in_query:
            self._metrics.token_in_query(resource.id)
            if header is not None:
                raise _Refusal(
                    400, "invalid_request", "Only one way to authenticate may be used."
                )
            return shown[0].decode("latin-1"), True
        if resource.legacy_error_code:
            raise _Refusal(400, "invalid_request", MISSING)
        raise _Refusal(401)

    async def _check(
        self,
        services: Services,
        exchange: Exchange,
        resource: Resource,
        text: str,
        *,
        in_query: bool,
    ) -> None:
        tenant = exchange.tenant
        assert tenant is not None  # noqa: S101 - the edge has set it
        verifier = services.verifier(tenant, resource.identifier)
        try:
            try:
                token = verifier.verify(text, now=exchange.now)
            except ExpiredTokenError:
                raise
            except InvalidTokenError:
                # Another instance may have begun to sign with a key that this one has not
                # read yet.
                reader = services.oauth.access_tokens
                if not await reader.learns_key(tenant, text, exchange.now):
                    raise
                token = verifier.verify(text, now=exchange.now)
        except ExpiredTokenError:
            raise _Refusal(401, "invalid_token", EXPIRED) from None
        except InvalidTokenError:
            raise _Refusal(401, "invalid_token", INVALID) from None
        if in_query and not _may_travel_in_query(token):
            raise _Refusal(401, "invalid_token", INVALID)
        if not self._scope <= token.scope:
            raise _Refusal(
                403,
                "insufficient_scope",
                "The access token does not carry the scope that is needed.",
                " ".join(sorted(self._scope)),
            )

    async def _refuse(
        self,
        exchange: Exchange,
        resource: Resource,
        refusal: _Refusal,
        *,
        in_query: bool,
    ) -> None:
        fields: dict[str, object] = {}
        if resource.legacy_error_code:
            fields["code"] = refusal.status
        if refusal.error:
            fields["error"] = refusal.error
            fields["error_description"] = refusal.description
        extra: tuple[Header, ...] = ()
        if refusal.status in (401, 403):
            extra = ((b"www-authenticate", _challenge(refusal)),)
        await exchange.answer(
            refusal.status,
            _private(JSON_NO_STORE if fields else NO_STORE, in_query=in_query),
            msgspec.json.encode(fields) if fields else b"",
            extra,
        )


def _challenge(refusal: _Refusal) -> bytes:
    # RFC 6750 section 3.
    parts = []
    if refusal.error:
        parts += [
            f'error="{refusal.error}"',
            f'error_description="{refusal.description}"',
        ]
    if refusal.scope:
        parts.append(f'scope="{refusal.scope}"')
    return ("Bearer " + ", ".join(parts)).strip().encode("ascii")


def _query_tokens(query: bytes) -> list[bytes]:
    if not query or b"a" not in query:
        return []
    return [
        unquote_to_bytes(value)
        for name, _, value in (pair.partition(b"=") for pair in query.split(b"&"))
        if unquote_to_bytes(name) == b"access_token"
    ]


def _may_travel_in_query(token: VerifiedToken) -> bool:
    life = token.expires_at - token.issued_at
    return life <= LONGEST_IN_QUERY and "cnf" not in token.claims


def _private(headers: HeaderSet, *, in_query: bool) -> HeaderSet:
    if not in_query:
        return headers
    kept = (pair for pair in headers if pair[0] != b"cache-control")
    return HeaderSet((b"cache-control", b"private, no-store"), *kept, *_DEPRECATED)
