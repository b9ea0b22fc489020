"""
Which tenant a request is for: by its host, by ``/t/{tenant}``, or the one at the root.

Rules of this module:

1. A host chooses among the issuers that configuration names, or is refused. It never becomes a
   part of an issuer (attack A17).
2. Metadata of an issuer with a path lies where RFC 8414 section 3.1 puts it (MET-1):
   ``oauth-authorization-server`` before the path, ``openid-configuration`` behind it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from kagimori.compose import Issuers
from kagimori.errors import OAuthError
from kagimori.oauth.requests import TenantContext
from kagimori.oauth.tenant import DEFAULT_TENANT
from kagimori.settings import LOOPBACK_NAMES, Settings, is_loopback

OAUTH_METADATA = "/.well-known/oauth-authorization-server"

_HOST = re.compile(
    rb"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9_.-]{1,253})(?::([0-9]{1,5}))?"
)
_TENANT = re.compile(r"/t/([a-z0-9][a-z0-9-]{0,62})(/.*)")
_KNOWN = 256


class Place(NamedTuple):
    """
    What a host and a path mean.

    Attributes:
        tenant: whose endpoint it is.
        path: the whole path, as routes see it together with `root_path`.
        root_path: the part of it that lies before the endpoint.
    """

    tenant: TenantContext
    path: str
    root_path: str


class Places:
    """
    Finds the tenant of a request.

    Args:
        settings: issuer, hosts and tenants' hosts.
        issuers: makes the issuers of tenants.
    """

    def __init__(self, settings: Settings, issuers: Issuers) -> None:
        self._issuers = issuers
        self._prefix = urlsplit(settings.issuer).path
        names = {
            urlsplit(issuer).hostname or ""
            for issuer in (settings.issuer, *settings.earlier_issuers)
        }
        names.update(settings.server.hosts)
        if any(is_loopback(name) for name in names):
            names |= LOOPBACK_NAMES
        self._shared = frozenset(names)
        self._by_host: Mapping[str, str] = {}
        self._known: dict[tuple[bytes | None, str], Place] = {}
        self.set_hosts({})

    def set_hosts(self, hosts: Mapping[str, str]) -> None:
        """
        Take note of which tenants answer on hosts of their own.

        Args:
            hosts: tenant ids by host name.
        """
        self._by_host = dict(hosts)
        self._known.clear()

    def locate(self, host: bytes | None, path: str) -> Place:
        """
        Return what a host and a path mean.

        Raises:
            OAuthError: 400, the host is none of ours; 404, the path is none of ours.
        """
        known = self._known.get((host, path))
        if known is None:
            known = self._locate(host, path)
            if len(self._known) < _KNOWN:
                # Ports and paths are free to choose, so what is remembered is bounded.
                self._known[host, path] = known
        return known

    def _locate(self, host: bytes | None, path: str) -> Place:
        own = self._tenant_of(host)
        if own is not None:
            return Place(self._issuers.context(own), path, "")
        if path.startswith(OAUTH_METADATA):
            issuer_path = path[len(OAUTH_METADATA) :]
            tenant, rest = self._split(issuer_path + "/")
            if rest != "/":
                raise _no_path()
            return Place(self._issuers.context(tenant), OAUTH_METADATA, "")
        tenant, rest = self._split(path)
        return Place(self._issuers.context(tenant), path, path[: len(path) - len(rest)])

    def _split(self, path: str) -> tuple[str, str]:
        if self._prefix:
            if not path.startswith(self._prefix + "/"):
                raise _no_path()
            path = path[len(self._prefix) :]
        if path.startswith("/t/"):
            match = _TENANT.fullmatch(path)
            if match is None or match[1] == DEFAULT_TENANT:
                # One issuer, one place: the default tenant lies at the root only.
                raise _no_path()
            return match[1], match[2]
        return DEFAULT_TENANT, path

    def _tenant_of(self, host: bytes | None) -> str | None:
        """
        Return the tenant whose own host it is, ``None`` for the shared ones.
        """
        if host is None:
            raise _no_host()
        match = _HOST.fullmatch(host)
        if match is None:
            raise _no_host()
        name = match[1].decode("ascii").strip("[]").lower()
        tenant = self._by_host.get(name)
        if tenant is None and name not in self._shared:
            raise _no_host()
        return tenant


def _no_host() -> OAuthError:
    return OAuthError("invalid_request", "This server does not answer for that host.")


def _no_path() -> OAuthError:
    return OAuthError("not_found", "There is nothing here.", status=404)
