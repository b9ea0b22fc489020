"""
The metadata of an issuer: OpenID Connect Discovery and RFC 8414, one content.

Rules of this module:

1. What stands here is taken from what is live: the grants that the token service runs, the
   algorithms that sign now, the scopes of the tenant's resources (MET-2).
2. Empty arrays are left out, but ``response_types_supported``, which both specifications
   require: it is empty while there is no authorization endpoint.
3. ``none`` is no signing algorithm (MET-3).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

import msgspec

from kagimori.errors import NotFoundError
from kagimori.oauth.assertions import ASSERTION_ALGORITHMS
from kagimori.oauth.client import AuthMethod, GrantType
from kagimori.oauth.directory import Directory
from kagimori.oauth.endpoints import (
    INTROSPECTION_PATH,
    JWKS_PATH,
    REVOCATION_PATH,
    TOKEN_PATH,
    endpoint_url,
)
from kagimori.oauth.requests import TenantContext

_METHODS = tuple(method.value for method in AuthMethod)
# A public client proves nothing, so it may not introspect.
_CONFIDENTIAL = tuple(name for name in _METHODS if name != AuthMethod.NONE.value)


class SigningAlgorithms(Protocol):
    """
    Knows what a tenant signs with.
    """

    def algorithms(self, tenant: str, now: datetime) -> tuple[str, ...]:
        """
        Return the algorithms of the current keys, the default first.
        """
        ...


class Metadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The members that we publish, in the order in which we publish them.
    """

    issuer: str
    token_endpoint: str
    revocation_endpoint: str
    introspection_endpoint: str
    jwks_uri: str
    grant_types_supported: tuple[str, ...]
    response_types_supported: tuple[str, ...]
    scopes_supported: tuple[str, ...] = ()
    subject_types_supported: tuple[str, ...]
    id_token_signing_alg_values_supported: tuple[str, ...] = ()
    token_endpoint_auth_methods_supported: tuple[str, ...]
    token_endpoint_auth_signing_alg_values_supported: tuple[str, ...]
    revocation_endpoint_auth_methods_supported: tuple[str, ...]
    revocation_endpoint_auth_signing_alg_values_supported: tuple[str, ...]
    introspection_endpoint_auth_methods_supported: tuple[str, ...]
    introspection_endpoint_auth_signing_alg_values_supported: tuple[str, ...]
    code_challenge_methods_supported: tuple[str, ...]
    refresh_token_expiration_types_supported: tuple[str, ...]


class Discovery:
    """
    Makes the metadata document of a tenant, and keeps it until something changes.

    Args:
        directory: what clients and resources there are.
        keys: what is signed with.
        grants: what the token service runs.
    """

    def __init__(
        self,
        directory: Directory,
        keys: SigningAlgorithms,
        grants: Iterable[GrantType],
    ) -> None:
        self._directory = directory
        self._keys = keys
        self._grants = tuple(grants)
        self._encoder = msgspec.json.Encoder()
        self._made: dict[str, tuple[tuple[int, tuple[str, ...]], bytes]] = {}

    async def document(self, context: TenantContext, now: datetime) -> bytes:
        """
        Return the document as JSON.

        Raises:
            NotFoundError: there is no such tenant, or it is disabled.
            StoreError: as the store raises.
        """
        tenant = await self._directory.get_tenant(context.id)
        if tenant is None or tenant.disabled:
            raise NotFoundError("There is no such tenant.")
        algorithms = self._keys.algorithms(context.id, now)
        state = (self._directory.epoch, algorithms)
        made = self._made.get(context.issuer)
        if made is not None and made[0] == state:
            return made[1]
        body = self._encoder.encode(await self._metadata(context, algorithms))
        # Read while a change came in: answered, not kept.
        if state[0] == self._directory.epoch:
            self._made[context.issuer] = (state, body)
        return body

    async def _metadata(
        self, context: TenantContext, algorithms: tuple[str, ...]
    ) -> Metadata:
        issuer = context.issuer
        resources = await self._directory.get_resources(context.id)
        scopes = {
            scope: None
            for each in resources.by_id.values()
            if not each.disabled
            for scope in each.scopes
        }
        grants = [each.value for each in self._grants]
        if not await self._directory.offers_password_grant(context.id):
            # Where no client has it, asking for it is answered as for an unknown grant.
            grants = [each for each in grants if each != GrantType.PASSWORD]
        return Metadata(
            issuer=issuer,
            token_endpoint=endpoint_url(issuer, TOKEN_PATH),
            revocation_endpoint=endpoint_url(issuer, REVOCATION_PATH),
            introspection_endpoint=endpoint_url(issuer, INTROSPECTION_PATH),
            jwks_uri=endpoint_url(issuer, JWKS_PATH),
            grant_types_supported=tuple(grants),
            response_types_supported=(),
            scopes_supported=tuple(scopes),
            subject_types_supported=("public",),
            id_token_signing_alg_values_supported=algorithms,
            token_endpoint_auth_methods_supported=_METHODS,
            token_endpoint_auth_signing_alg_values_supported=ASSERTION_ALGORITHMS,
            revocation_endpoint_auth_methods_supported=_METHODS,
            revocation_endpoint_auth_signing_alg_values_supported=ASSERTION_ALGORITHMS,
            introspection_endpoint_auth_methods_supported=_CONFIDENTIAL,
            introspection_endpoint_auth_signing_alg_values_supported=ASSERTION_ALGORITHMS,
            code_challenge_methods_supported=("S256",),
            refresh_token_expiration_types_supported=("authorization", "token_timeout"),
        )
