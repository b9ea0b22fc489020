"""
Client authentication: which client asks, and is it (RFC 6749 section 2.3).

Rules of this module:

1. A request shows exactly one method, and it must be the one that the client is registered
   with (TOK-6, TOK-8, attacks T8).
2. All refusals look alike and cost alike, an unknown client's too (T9).
3. Whoever is authenticated has passed `kagimori.oauth.admission.check_standing` as well.
"""

from __future__ import annotations

import binascii
from urllib.parse import unquote_plus

import msgspec

from kagimori.errors import InvalidJwsError, OAuthError
from kagimori.events import Event, EventSink, Severity
from kagimori.identity.credentials import Attempt, CredentialCheck, Subject
from kagimori.oauth import assertions
from kagimori.oauth.admission import check_standing
from kagimori.oauth.client import AuthMethod
from kagimori.oauth.directory import ClientRecord, Directory
from kagimori.oauth.faults import invalid_client
from kagimori.oauth.requests import EndpointRequest
from kagimori.storage.store import Store

_MAX_HEADER = 8 * 1024


class _Shown(msgspec.Struct, frozen=True):
    """
    What a request shows of its client.
    """

    method: AuthMethod
    client_id: str
    secret: str

    def __repr__(self) -> str:
        return f"_Shown({self.method.value})"


class ClientAuthenticator:
    """
    Finds and proves the client of a request.

    Args:
        directory: where clients are known.
        check: judges secrets, under the limits.
        store: where used assertions are remembered.
        events: told of every refusal.
    """

    def __init__(
        self,
        directory: Directory,
        check: CredentialCheck,
        store: Store,
        events: EventSink,
    ) -> None:
        self._directory = directory
        self._check = check
        self._store = store
        self._events = events

    async def authenticate(self, request: EndpointRequest) -> ClientRecord:
        """
        Return the client that a request proves to come from.

        A client of method ``none`` proves nothing: its caller treats it accordingly.

        Raises:
            OAuthError: ``invalid_request``, where two methods are shown or the parameters
                contradict each other; ``invalid_client`` otherwise.
            ThrottledError: too many failures.
            BusyError: too many secrets are being hashed.
            StoreError: as the store raises.
        """
        context = request.tenant
        tenant = await self._directory.get_tenant(context.id)
        shown = _shown(request)
        record = await self._directory.get_client(context.id, shown.client_id)
        method = shown.method
        if record is None or record.client.auth_method is not method:
            raise await self._refused(request, shown, "unknown, or another method")
        if method.uses_secret:
            found = await self._check.match(
                _attempt(request, shown), record.version, record.stored
            )
            if found is None:
                raise self._told(request, shown, "wrong secret")
        elif method is AuthMethod.PRIVATE_KEY_JWT:
            await self._take_assertion(request, shown, record)
        check_standing(tenant, record)
        return record

    async def _take_assertion(
        self, request: EndpointRequest, shown: _Shown, record: ClientRecord
    ) -> None:
        context = request.tenant
        try:
            claims = assertions.verify_assertion(
                shown.secret, record, context, request.now
            )
            await assertions.consume(self._store, context.id, record.client.id, claims)
        except InvalidJwsError as error:
            raise await self._refused(request, shown, error.text) from None

    async def _refused(
        self, request: EndpointRequest, shown: _Shown, reason: str
    ) -> OAuthError:
        await self._check.refuse(_attempt(request, shown))
        return self._told(request, shown, reason)

    def _told(self, request: EndpointRequest, shown: _Shown, reason: str) -> OAuthError:
        self._events.emit(
            Event(
                "client_auth.failed",
                {
                    "tenant": request.tenant.id,
                    # A name from the network: cut, so that a flood cannot fill the log.
                    "client": shown.client_id[:128],
                    "method": shown.method.value,
                    "reason": reason,
                    "address": request.address,
                    "request_id": request.request_id,
                },
                Severity.WARNING,
            )
        )
        return invalid_client(reason)


def _attempt(request: EndpointRequest, shown: _Shown) -> Attempt:
    return Attempt(
        Subject("client", request.tenant.id, shown.client_id),
        shown.secret,
        request.address,
        request.now,
    )


def _shown(request: EndpointRequest) -> _Shown:
    """
    Return the one method that a request shows.

    Raises:
        OAuthError: none, several, or a malformed one.
    """
    form = request.form
    header = request.authorization
    secret = form.get("client_secret")
    assertion = form.get("client_assertion")
    has_assertion = assertion is not None or "client_assertion_type" in form
    if (header is not None) + (secret is not None) + has_assertion > 1:
        raise OAuthError(
            "invalid_request", "Only one client authentication method may be used."
        )
    client_id = form.get("client_id")
    if header is not None:
        shown = _basic(header)
    elif has_assertion:
        shown = _assertion(form.get("client_assertion_type"), assertion)
    elif client_id is None:
        raise invalid_client("no client authentication")
    elif secret is not None:
        return _Shown(AuthMethod.POST, client_id, secret)
    else:
        return _Shown(AuthMethod.NONE, client_id, "")
    if client_id is not None and client_id != shown.client_id:
        raise OAuthError(
            "invalid_request", "The client_id is not the authenticated client's."
        )
    return shown


def _basic(header: str) -> _Shown:
    # RFC 6749 section 2.3.1: both halves are form-urlencoded before they are joined.
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic" or len(header) > _MAX_HEADER:
        raise invalid_client("another scheme than Basic")
    try:
        # Half the time of `base64.b64decode`, and as strict.
        pair = binascii.a2b_base64(encoded.strip(), strict_mode=True).decode()
    except ValueError:
        raise invalid_client("malformed Basic credentials") from None
    client_id, colon, secret = pair.partition(":")
    if "%" in pair or "+" in pair:
        try:
            client_id = unquote_plus(client_id, errors="strict")
            secret = unquote_plus(secret, errors="strict")
        except UnicodeDecodeError:
            raise invalid_client("malformed Basic credentials") from None
    if not colon or not client_id or not secret:
        raise invalid_client("incomplete Basic credentials")
    return _Shown(AuthMethod.BASIC, client_id, secret)


def _assertion(type_: str | None, assertion: str | None) -> _Shown:
    if type_ != assertions.ASSERTION_TYPE or assertion is None:
        raise OAuthError(
            "invalid_request", "The client assertion is incomplete or of unknown type."
        )
    client_id = assertions.claimed_client(assertion)
    if client_id is None:
        raise invalid_client("malformed assertion")
    return _Shown(AuthMethod.PRIVATE_KEY_JWT, client_id, assertion)
