"""
What the endpoints stand on.
"""

from __future__ import annotations

from collections.abc import Mapping

from kagimori.clock import Clock
from kagimori.keys.tenant_rings import TenantRings
from kagimori.oauth.assembly import OAuthServices
from kagimori.oauth.directory import Resources
from kagimori.oauth.requests import TenantContext
from kagimori.oauth.resource import Resource
from kagimori.oauth.tenant import DEFAULT_TENANT
from kagimori.tokens.verifier import TokenVerifier


class Services:
    """
    What the endpoints stand on.

    Attributes:
        oauth: the endpoints' rules.
        rings: the tenants' keys.
    """

    def __init__(self, oauth: OAuthServices, rings: TenantRings, clock: Clock) -> None:
        self.oauth = oauth
        self.rings = rings
        self._clock = clock
        self._resources: Mapping[str, Resources] = {}
        self._verifiers: dict[tuple[TenantContext, str], TokenVerifier] = {}

    def resource(self, tenant: str, id_: str) -> Resource | None:
        """
        Return a resource from memory: what `warm` last read.
        """
        resources = self._resources.get(tenant)
        return None if resources is None else resources.by_id.get(id_)

    def resources(self, tenant: str) -> tuple[Resource, ...]:
        """
        Return all resources of a tenant from memory.
        """
        resources = self._resources.get(tenant)
        return () if resources is None else tuple(resources.by_id.values())

    async def warm(self) -> None:
        """
        Read what protected resources need to know, so that no request has to (ACC-3).

        Raises:
            StoreError: as the store raises.
        """
        resources = await self.oauth.directory.get_resources(DEFAULT_TENANT)
        self._resources = {DEFAULT_TENANT: resources}

    def verifier(self, tenant: TenantContext, audience: str) -> TokenVerifier:
        """
        Return the verifier of one API's tokens, with the live keys of the tenant.

        Issuer and verifier are one installation, so ``exp`` has no leeway (JAT-5).
        """
        key = (tenant, audience)
        verifier = self._verifiers.get(key)
        if verifier is None:
            verifier = self._verifiers[key] = TokenVerifier.from_keys(
                lambda: self.rings.verification_keys(tenant.id, self._clock.now()),
                issuer=(tenant.issuer, *tenant.earlier_issuers),
                audience=audience,
                clock=self._clock,
            )
        return verifier
