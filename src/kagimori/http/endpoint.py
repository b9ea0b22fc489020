"""
The endpoints that take a form: token, revocation, introspection.

Rules of this module:

1. POST with a form in UTF-8, nothing secret in the query string, each parameter once (TOK-1 to
   TOK-3). Everything else is answered here and reaches no rule.
2. No Request and no Response object stands between the server and the service.
3. Browsers of registered origins may read the answers (TOK-15). A preflight cannot say which
   client it is for and reveals nothing, so it is granted to any origin; the answer itself opens
   only to the origins of its client.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable
from urllib.parse import unquote_plus

import msgspec
from starlette.types import Receive, Scope, Send

from kagimori.compose import Services
from kagimori.errors import OAuthError
from kagimori.http.edge import EXCHANGE
from kagimori.http.exchange import (
    JSON_NO_STORE,
    NO_STORE,
    Exchange,
    Header,
    HeaderSet,
)
from kagimori.http.forms import check_query, is_form, parse_form
from kagimori.http.live import Live
from kagimori.oauth.requests import EndpointRequest, TenantContext
from kagimori.settings import Limits

Act = Callable[[Services], Callable[[EndpointRequest], Awaitable[object]]]

_encode = msgspec.json.Encoder().encode

_ALLOW: Header = (b"allow", b"POST, OPTIONS")
_PREFLIGHT = HeaderSet(
    *NO_STORE,
    _ALLOW,
    (b"access-control-allow-methods", b"POST"),
    (b"access-control-allow-headers", b"authorization, content-type, dpop"),
    (b"access-control-max-age", b"600"),
)


class FormEndpoint:
    """
    One endpoint, as an ASGI application.

    Args:
        route: its name, for metrics.
        live: what serves at the moment.
        limits: sizes of body and form.
        act: gives what does the work; its answer is sent as JSON, ``None`` as an empty body.
    """

    def __init__(self, route: str, live: Live, limits: Limits, act: Act) -> None:
        self._route = route
        self._live = live
        self._limits = limits
        self._act = act

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Answer one request (ASGI).
        """
        exchange: Exchange = scope[EXCHANGE]
        exchange.route = self._route
        headers = exchange.headers
        if scope["method"] != "POST":
            await self._other_method(exchange)
            return
        services = self._live.services()
        tenant = exchange.tenant
        assert tenant is not None  # noqa: S101 - the edge has set it
        if scope["query_string"]:
            check_query(scope["query_string"], self._limits.form_fields)
        if not is_form(headers.get(b"content-type")):
            raise OAuthError(
                "invalid_request", "The body must be application/x-www-form-urlencoded."
            )
        body = await exchange.body(self._limits.body_bytes)
        form = parse_form(body, self._limits.form_fields)
        authorization = headers.get(b"authorization")
        request = EndpointRequest(
            tenant,
            form,
            None if authorization is None else authorization.decode("latin-1"),
            exchange.now,
            exchange.address,
            exchange.request_id,
            headers.get(b"user-agent", b"")[:256].decode("latin-1"),
        )
        if b"origin" in headers:
            await self._open_to_origin(exchange, services, tenant, request)
        answer = await self._act(services)(request)
        if answer is None:
            await exchange.answer(200, NO_STORE)
        else:
            await exchange.answer(200, JSON_NO_STORE, _encode(answer))

    async def _other_method(self, exchange: Exchange) -> None:
        if exchange.scope["method"] == "OPTIONS":
            exchange.origin = _origin(exchange)
            await exchange.answer(204, _PREFLIGHT)
            return
        await exchange.fail(
            405, "invalid_request", "The method must be POST.", (_ALLOW,)
        )

    async def _open_to_origin(
        self,
        exchange: Exchange,
        services: Services,
        tenant: TenantContext,
        request: EndpointRequest,
    ) -> None:
        client_id = request.form.get("client_id") or _basic_id(request.authorization)
        if client_id is None:
            return
        record = await services.oauth.directory.get_client(tenant.id, client_id)
        origin = _origin(exchange)
        if (
            record is not None
            and origin is not None
            and origin.decode("latin-1") in record.client.origins
        ):
            exchange.origin = origin


def _origin(exchange: Exchange) -> bytes | None:
    origin = exchange.headers.get(b"origin")
    return origin if origin is not None and len(origin) <= 300 else None


def _basic_id(header: str | None) -> str | None:
    # Only to choose whose origins count; whether it is the client is judged elsewhere.
    if header is None or header[:6].lower() != "basic ":
        return None
    try:
        pair = base64.b64decode(header[6:], validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    return unquote_plus(pair.partition(":")[0]) or None
