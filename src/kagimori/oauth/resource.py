"""
A resource: an API that access tokens are made for (RFC 8707).

Rules of this module:

1. An access token has one audience, the `identifier` of one resource.
2. What a resource says of its tokens (algorithm, lifetime) is the operator's word; no request
   changes it.
3. The two legacy switches exist for APIs of the ``legacy-2015`` profile and are off.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from kagimori.crypto.algorithms import ALGORITHMS
from kagimori.errors import ConfigError
from kagimori.oauth.scopes import is_resource_identifier, is_scope_value, is_slug
from kagimori.storage.store import Collection

DEFAULT_ACCESS_TOKEN_LIFETIME = timedelta(minutes=10)
"""How long an access token lives where neither resource nor client says (B7)."""

SHORTEST_LIFETIME = timedelta(minutes=1)
"""The shortest life of an access token outside of strict legacy (B7)."""

SHORTEST_LEGACY_LIFETIME = timedelta(seconds=10)
"""The shortest life of an access token in strict legacy (B7)."""

LONGEST_LIFETIME = timedelta(hours=24)
"""The longest life of an access token (B7)."""


class Resource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One API.

    Attributes:
        id: the short name that clients list and operators type.
        identifier: the audience of its tokens: an absolute URI without a fragment.
        created: when it was made.
        name: what people call it.
        scopes: the scope values that mean something at this API.
        signing_algorithm: what its tokens are signed with; ``None``: the tenant's default.
        access_token_lifetime: how long its tokens live at most; ``None``: 10 minutes.
        clients: the ids of the clients that act for this API, and so may introspect its tokens.
        disabled: whether no token is made for it any more.
        bearer_in_query: whether it takes tokens in the query string (requirements C3).
        legacy_error_code: whether its error bodies carry a numeric ``code`` (C3).
    """

    id: str
    identifier: str
    created: datetime
    name: str = ""
    scopes: tuple[str, ...] = ()
    signing_algorithm: str | None = None
    access_token_lifetime: timedelta | None = None
    clients: tuple[str, ...] = ()
    disabled: bool = False
    bearer_in_query: bool = False
    legacy_error_code: bool = False

    def validate(self) -> None:
        """
        Refuse what must not be stored.

        Raises:
            ConfigError: the sentence says what is wrong.
        """
        if not is_slug(self.id):
            raise ConfigError(
                "A resource's id has 1 to 64 letters, digits, dots, dashes or underscores."
            )
        if not is_resource_identifier(self.identifier):
            raise ConfigError(
                "A resource's identifier is an absolute URI without a fragment."
            )
        if not all(map(is_scope_value, self.scopes)):
            raise ConfigError("A scope value has no spaces, quotes or backslashes.")
        if self.signing_algorithm not in (None, *ALGORITHMS):
            raise ConfigError("Tokens cannot be signed with this algorithm.")
        check_lifetime(
            self.access_token_lifetime,
            legacy=self.bearer_in_query or self.legacy_error_code,
        )


def check_lifetime(lifetime: timedelta | None, *, legacy: bool) -> None:
    """
    Refuse an access token lifetime that is out of bounds (B7).

    Raises:
        ConfigError: it is shorter than a minute (in strict legacy: 10 seconds), longer than
            24 hours, or no whole number of seconds.
    """
    if lifetime is None:
        return
    shortest = SHORTEST_LEGACY_LIFETIME if legacy else SHORTEST_LIFETIME
    if not shortest <= lifetime <= LONGEST_LIFETIME or lifetime.microseconds:
        raise ConfigError(
            f"An access token lives {shortest.total_seconds():.0f} seconds to 24 hours."
        )


def _indexes(resource: Resource) -> Mapping[str, str]:
    return {"identifier": resource.identifier}


RESOURCES: Collection[Resource] = Collection(
    "resource", Resource, indexes=_indexes, announce=True
)
