"""
A client: a program registered to ask for tokens.

Rules of this module:

1. A client has one authentication method, the registered one; no other is taken (TOK-8).
2. Secrets lie here as digests only: SHA-256 of generated ones (256 bits), Argon2id of chosen
   ones. Several stand side by side, so that a secret can be rotated.
3. `Client.validate` refuses what must not be stored; whoever writes a client calls it.
4. The profile ``legacy-2015`` is the only way to the password grant. No default gives it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from kagimori.crypto.jwk import JwkSet
from kagimori.errors import ConfigError, InvalidKeyError
from kagimori.identity.user import USER_ID_PREFIX
from kagimori.oauth.resource import check_lifetime
from kagimori.oauth.scopes import is_scope_value, is_slug
from kagimori.storage.store import Collection
from kagimori.tokens.policy import RefreshPolicy

MAX_CLIENT_ID: Final = 128
"""The most characters of a ``client_id``."""

MAX_SECRETS: Final = 5
"""How many secrets a client may have side by side."""


class Profile(enum.Enum):
    """
    Which set of rules a client lives by.
    """

    DEFAULT = "default"
    LEGACY_2015 = "legacy-2015"


class AuthMethod(enum.Enum):
    """
    How a client proves itself (the registry of RFC 7591 section 2).
    """

    BASIC = "client_secret_basic"
    POST = "client_secret_post"
    NONE = "none"
    PRIVATE_KEY_JWT = "private_key_jwt"

    @property
    def uses_secret(self) -> bool:
        """
        Whether the method needs a secret.
        """
        return self in (AuthMethod.BASIC, AuthMethod.POST)


class AssertionAudience(enum.Enum):
    """
    What a client assertion must name as its audience (TOK-17).
    """

    ISSUER = "issuer"
    ISSUER_OR_TOKEN_ENDPOINT = "issuer_or_token_endpoint"


class AfterExpiry(enum.Enum):
    """
    How an expired access token is renewed (B7).
    """

    REFRESH = "refresh"
    SIGN_IN = "sign_in"


class GrantType(enum.StrEnum):
    """
    The grant types that the token endpoint knows.
    """

    CLIENT_CREDENTIALS = "client_credentials"
    REFRESH_TOKEN = "refresh_token"
    PASSWORD = "password"


class ClientSecret(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One secret of a client, as a digest.

    Attributes:
        id: names the secret in lists and when it is withdrawn.
        digest: ``sha256:`` and 64 hexadecimal digits, or an Argon2id PHC string.
        created: when it was added.
        expires: from when on it is refused; ``None``: never.
        last: its last characters, to tell secrets apart; empty for chosen ones.
    """

    id: str
    digest: str
    created: datetime
    expires: datetime | None = None
    last: str = ""

    def __repr__(self) -> str:
        return f"ClientSecret(id={self.id!r})"


class Client(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One registered client.

    Attributes:
        id: the ``client_id``.
        created: when it was registered.
        name: what people call it.
        profile: the set of rules it lives by.
        auth_method: the one method it may authenticate with.
        grants: the grant types it may use.
        scopes: the scope values it may ask for.
        resources: the ids of the resources it may ask tokens for, its default first.
        secrets: its secrets, side by side.
        jwks: its public keys (RFC 7517), for ``private_key_jwt``.
        assertion_audience: the audience its assertions must name.
        access_token_lifetime: shortens what the resource allows; never lengthens it.
        after_expiry: whether it gets refresh tokens at all.
        refresh: how its refresh tokens live; ``None``: the defaults of its kind.
        may_introspect: whether it may introspect tokens of every audience.
        allow_operator_grants: whether an operator may issue tokens in its name.
        origins: browser origins from which the answers to it may be read (TOK-15).
        disabled: whether nothing is issued to it any more.
    """

    id: str
    created: datetime
    name: str = ""
    profile: Profile = Profile.DEFAULT
    auth_method: AuthMethod = AuthMethod.BASIC
    grants: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    secrets: tuple[ClientSecret, ...] = ()
    jwks: dict[str, Any] | None = None
    assertion_audience: AssertionAudience = AssertionAudience.ISSUER_OR_TOKEN_ENDPOINT
    access_token_lifetime: timedelta | None = None
    after_expiry: AfterExpiry = AfterExpiry.REFRESH
    refresh: RefreshPolicy | None = None
    may_introspect: bool = False
    allow_operator_grants: bool = False
    origins: tuple[str, ...] = ()
    disabled: bool = False

    @property
    def is_public(self) -> bool:
        """
        Whether the client cannot keep a secret (RFC 6749 section 2.1).
        """
        return self.auth_method is AuthMethod.NONE

    @property
    def is_legacy(self) -> bool:
        """
        Whether the strict legacy profile applies (requirements C3).
        """
        return self.profile is Profile.LEGACY_2015

    @property
    def refresh_policy(self) -> RefreshPolicy:
        """
        How its refresh tokens live: its own policy, else the defaults of its kind.
        """
        return self.refresh or RefreshPolicy.default(public=self.is_public)

    def validate(self) -> None:
        """
        Refuse what must not be stored.

        Raises:
            ConfigError: the sentence says what is wrong.
            InvalidKeyError: its keys cannot be used.
        """
        self._validate_names()
        self._validate_grants()
        self._validate_credentials()
        check_lifetime(self.access_token_lifetime, legacy=self.is_legacy)
        self.refresh_policy.validate(public=self.is_public)

    def _validate_names(self) -> None:
        if not is_client_id(self.id):
            raise ConfigError(
                f"A client id has 1 to {MAX_CLIENT_ID} printable characters, no space at the "
                f"ends, and does not begin with {USER_ID_PREFIX}."
            )
        if not all(map(is_scope_value, self.scopes)):
            raise ConfigError("A scope value has no spaces, quotes or backslashes.")
        if not all(map(is_slug, self.resources)):
            raise ConfigError("A client names resources by their ids.")
        if not all(map(_ORIGIN.fullmatch, self.origins)):
            raise ConfigError(
                "An origin is written as browsers send it, such as https://app.example.",
                hint="Lower case, no path; http only on this machine.",
            )

    def _validate_grants(self) -> None:
        unknown = set(self.grants) - set(GrantType)
        if unknown:
            raise ConfigError("A grant type of this client is not known.")
        if self.is_public and GrantType.CLIENT_CREDENTIALS in self.grants:
            raise ConfigError(
                "A public client cannot use client_credentials: it has nothing to prove itself by."
            )
        if self.is_public and self.is_legacy:
            raise ConfigError(
                "The profile legacy-2015 is for confidential clients only."
            )
        if GrantType.PASSWORD in self.grants and not self.is_legacy:
            raise ConfigError(
                "The password grant exists only in the profile legacy-2015.",
                hint="It hands users' passwords to the client; prefer another grant.",
            )

    def _validate_credentials(self) -> None:
        if self.secrets and not self.auth_method.uses_secret:
            raise ConfigError(f"A client with {self.auth_method.value} has no secret.")
        if len(self.secrets) > MAX_SECRETS:
            raise ConfigError(f"A client has at most {MAX_SECRETS} secrets.")
        if len({secret.id for secret in self.secrets}) < len(self.secrets):
            raise ConfigError("Two secrets of a client have the same id.")
        wants_keys = self.auth_method is AuthMethod.PRIVATE_KEY_JWT
        if wants_keys != (self.jwks is not None):
            raise ConfigError("A client has keys if, and only if, it signs assertions.")
        if self.jwks is not None:
            # The set itself refuses symmetric beside asymmetric, duplicate and weak keys.
            keys = JwkSet.from_dict(self.jwks)
            if not any(True for _ in keys):
                raise InvalidKeyError("The client's key set is empty.")
            if any(key.is_private for key in keys):
                raise InvalidKeyError("A client's key set holds public keys only.")


_ORIGIN = re.compile(
    r"https://[a-z0-9.-]+(:[0-9]{1,5})?|http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?"
)


def is_client_id(text: str) -> bool:
    """
    Return whether a text may be a ``client_id``.
    """
    return (
        0 < len(text) <= MAX_CLIENT_ID
        and text.isprintable()
        and text == text.strip()
        and not text.startswith(USER_ID_PREFIX)
    )


def _indexes(client: Client) -> Mapping[str, str]:
    return {"profile": client.profile.value}


CLIENTS: Collection[Client] = Collection(
    "client", Client, indexes=_indexes, announce=True
)
