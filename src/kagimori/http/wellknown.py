"""
Documents that everybody reads: metadata and JWKS.

Rules of this module:

1. They are bytes in memory with an ETag; who has them already gets 304 (MET-4).
2. They are open to every origin and may be cached no longer than the next planned change
   allows: both follow the JWKS's own max-age (MET-5).
"""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from kagimori.compose import Services
from kagimori.crypto.digests import b64url_encode, sha256
from kagimori.errors import NotFoundError
from kagimori.http.edge import EXCHANGE
from kagimori.http.exchange import (
    ANY_ORIGIN,
    NO_STORE,
    Exchange,
    Header,
    HeaderSet,
    public,
)
from kagimori.http.live import Live
from kagimori.keys.live import JwksDocument
from kagimori.oauth.requests import TenantContext

_ALLOW: Header = (b"allow", b"GET, HEAD, OPTIONS")
_PREFLIGHT = HeaderSet(
    *NO_STORE,
    _ALLOW,
    ANY_ORIGIN,
    (b"access-control-allow-methods", b"GET, HEAD"),
    (b"access-control-allow-headers", b"if-none-match"),
    (b"access-control-max-age", b"86400"),
)
_MEDIA = b"application/json"
_JWKS_MEDIA = b"application/jwk-set+json"


class JwksEndpoint:
    """
    The keys of a tenant.
    """

    def __init__(self, live: Live) -> None:
        self._live = live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Answer one request (ASGI).
        """
        exchange: Exchange = scope[EXCHANGE]
        exchange.route = "jwks"
        if not await _reads(exchange):
            return
        services = self._live.services()
        document = await _jwks(services, exchange)
        await _serve(
            exchange,
            document.body,
            document.etag.encode(),
            document.max_age,
            _JWKS_MEDIA,
        )


class MetadataEndpoint:
    """
    The metadata of a tenant's issuer, the same at both of its addresses.
    """

    def __init__(self, live: Live) -> None:
        self._live = live
        self._etags: dict[str, tuple[bytes, bytes]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Answer one request (ASGI).
        """
        exchange: Exchange = scope[EXCHANGE]
        exchange.route = "metadata"
        if not await _reads(exchange):
            return
        services = self._live.services()
        tenant = _tenant(exchange)
        jwks = await _jwks(services, exchange)
        body = await services.oauth.discovery.document(tenant, exchange.now)
        await _serve(
            exchange, body, self._etag(tenant.issuer, body), jwks.max_age, _MEDIA
        )

    def _etag(self, issuer: str, body: bytes) -> bytes:
        known = self._etags.get(issuer)
        if known is None or known[0] is not body:
            known = (body, f'"{b64url_encode(sha256(body))}"'.encode())
            if len(self._etags) >= 1000:
                self._etags.clear()
            self._etags[issuer] = known
        return known[1]


def _tenant(exchange: Exchange) -> TenantContext:
    tenant = exchange.tenant
    assert tenant is not None  # noqa: S101 - the edge has set it
    return tenant


async def _jwks(services: Services, exchange: Exchange) -> JwksDocument:
    id_ = _tenant(exchange).id
    tenant = await services.oauth.directory.get_tenant(id_)
    if tenant is None or tenant.disabled:
        raise NotFoundError("There is no such tenant.")
    return services.rings.jwks(id_, exchange.now)


async def _reads(exchange: Exchange) -> bool:
    """
    Whether the request reads the document; anything else is answered here.
    """
    method = exchange.scope["method"]
    if method in ("GET", "HEAD"):
        return True
    if method == "OPTIONS":
        await exchange.answer(204, _PREFLIGHT)
    else:
        await exchange.fail(
            405, "invalid_request", "The method must be GET.", (_ALLOW,)
        )
    return False


async def _serve(
    exchange: Exchange, body: bytes, etag: bytes, max_age: int, media: bytes
) -> None:
    headers = public(max_age, etag, media)
    seen = exchange.headers.get(b"if-none-match")
    if seen is not None and _matches(seen, etag):
        await exchange.answer(304, headers)
        return
    await exchange.answer(200, headers, body)


def _matches(header: bytes, etag: bytes) -> bool:
    # RFC 9110 section 13.1.2: compared weakly.
    tags = [tag.strip().removeprefix(b"W/") for tag in header.split(b",")]
    return b"*" in tags or etag in tags
