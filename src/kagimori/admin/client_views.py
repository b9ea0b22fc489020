"""
What operators say of a client, and what may be shown of one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from kagimori.oauth.client import AfterExpiry, AuthMethod, Client, Profile
from kagimori.tokens.policy import RefreshPolicy


@dataclass(frozen=True, slots=True)
class NewClient:
    """
    What an operator says of a client to be registered; see `Client` for the fields.

    Attributes:
        secret: a chosen secret; ``None`` generates one where the method needs one.
    """

    id: str
    name: str = ""
    profile: Profile = Profile.DEFAULT
    auth_method: AuthMethod = AuthMethod.BASIC
    grants: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    jwks: dict[str, Any] | None = None
    access_token_lifetime: timedelta | None = None
    after_expiry: AfterExpiry = AfterExpiry.REFRESH
    refresh: RefreshPolicy | None = None
    may_introspect: bool = False
    allow_operator_grants: bool = False
    secret: str | None = field(default=None, repr=False)


class SecretView(msgspec.Struct, frozen=True, kw_only=True):
    """
    What may be shown of a secret.
    """

    id: str
    created: datetime
    expires: datetime | None
    last: str


class ClientView(msgspec.Struct, frozen=True, kw_only=True):
    """
    What may be shown of a client.
    """

    id: str
    name: str
    created: datetime
    profile: str
    auth_method: str
    grants: tuple[str, ...]
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    origins: tuple[str, ...]
    access_token_lifetime: int | None
    may_introspect: bool
    allow_operator_grants: bool
    disabled: bool
    secrets: tuple[SecretView, ...]

    @classmethod
    def of(cls, client: Client) -> ClientView:
        """
        Return the view of a client; lifetimes in seconds.
        """
        lifetime = client.access_token_lifetime
        return cls(
            id=client.id,
            name=client.name,
            created=client.created,
            profile=client.profile.value,
            auth_method=client.auth_method.value,
            grants=client.grants,
            scopes=client.scopes,
            resources=client.resources,
            origins=client.origins,
            access_token_lifetime=int(lifetime.total_seconds()) if lifetime else None,
            may_introspect=client.may_introspect,
            allow_operator_grants=client.allow_operator_grants,
            disabled=client.disabled,
            secrets=tuple(
                SecretView(
                    id=secret.id,
                    created=secret.created,
                    expires=secret.expires,
                    last=secret.last,
                )
                for secret in client.secrets
            ),
        )


@dataclass(frozen=True, slots=True)
class ClientMade:
    """
    A client just registered, and its generated secret, shown once.
    """

    client: ClientView
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class SecretMade:
    """
    A secret just added; its text is there only where it was generated.
    """

    id: str
    secret: str | None = field(default=None, repr=False)
