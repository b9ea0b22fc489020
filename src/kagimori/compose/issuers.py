"""
The issuer of every tenant.

Rules of this module:

1. An issuer follows from configuration, never from a request (attack A17).
2. The tenant `default` has the configured issuer, others their own host or a path below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from kagimori.oauth.requests import TenantContext
from kagimori.oauth.tenant import DEFAULT_TENANT
from kagimori.settings import Settings

_CONTEXTS = 10_000


class Issuers:
    """
    The issuer of every tenant, from configuration alone.

    Args:
        settings: issuer, earlier issuers, tenants' hosts.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._hosts: dict[str, str] = dict(settings.tenants)
        self._contexts: dict[str, TenantContext] = {}

    def set_hosts(self, hosts: Mapping[str, str]) -> Mapping[str, str]:
        """
        Take note of the tenants' own hosts; what the settings say of a tenant wins.

        Args:
            hosts: host names by tenant id, as the tenants' documents say.

        Returns:
            Tenant ids by host name.
        """
        self._hosts = {**hosts, **self._settings.tenants}
        self._contexts.clear()
        return {
            urlsplit(f"//{_netloc(host)}").hostname or host: tenant
            for tenant, host in self._hosts.items()
        }

    def context(self, tenant: str) -> TenantContext:
        """
        Return a tenant's issuer, and those of before. Says nothing of whether it exists.
        """
        context = self._contexts.get(tenant)
        if context is None:
            issuers = [
                self._issuer(base, tenant)
                for base in (self._settings.issuer, *self._settings.earlier_issuers)
            ]
            context = TenantContext(tenant, issuers[0], tuple(issuers[1:]))
            if len(self._contexts) >= _CONTEXTS:
                # Names in paths are anybody's, so what is remembered is bounded.
                self._contexts.clear()
            self._contexts[tenant] = context
        return context

    def _issuer(self, base: str, tenant: str) -> str:
        if tenant == DEFAULT_TENANT:
            return base
        host = self._hosts.get(tenant)
        if host is None:
            return f"{base}/t/{tenant}"
        parts = urlsplit(base)
        netloc = _netloc(host)
        if parts.port and urlsplit(f"//{netloc}").port is None:
            # All tenants share the listener, and so the port, unless a host names its own.
            netloc += f":{parts.port}"
        return f"{parts.scheme}://{netloc}"


def _netloc(host: str) -> str:
    # An address of IPv6 has several colons, a host with a port has one.
    return f"[{host}]" if host.count(":") > 1 else host
