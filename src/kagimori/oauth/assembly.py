"""
The OAuth services of one process, put together.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from kagimori.events import EventSink, NullSink
from kagimori.identity.credentials import CredentialCheck
from kagimori.identity.hashing import HashPool
from kagimori.identity.password import PasswordSignIn
from kagimori.identity.user import raise_epoch
from kagimori.oauth.access_tokens import AccessTokens, PublishedKeys
from kagimori.oauth.client_auth import ClientAuthenticator
from kagimori.oauth.directory import Directory
from kagimori.oauth.discovery import Discovery, SigningAlgorithms
from kagimori.oauth.grants.client_credentials import ClientCredentialsGrant
from kagimori.oauth.grants.grant import Grant
from kagimori.oauth.grants.password import PasswordGrant
from kagimori.oauth.grants.refresh_token import RefreshTokenGrant
from kagimori.oauth.grants.usernames import Usernames
from kagimori.oauth.introspection import IntrospectionService
from kagimori.oauth.operator import OperatorIssue
from kagimori.oauth.revocation import RevocationService
from kagimori.oauth.service import TokenService
from kagimori.oauth.throttle import Throttle, ThrottleLimits
from kagimori.storage.store import Store
from kagimori.tokens.families import RefreshFamilies
from kagimori.tokens.issuer import IssuingKeys, TokenIssuer
from kagimori.tokens.tag_keys import TagKeyRoot


class TenantKeys(IssuingKeys, PublishedKeys, SigningAlgorithms, Protocol):
    """
    The signing keys of all tenants, as `kagimori.keys.tenant_rings.TenantRings` holds them.
    """


class OAuthServices(NamedTuple):
    """
    What a server or a command needs of this layer.

    Attributes:
        directory: to be polled for changes, or invalidated after one.
        token: the token endpoint.
        revocation: the revocation endpoint.
        introspection: the introspection endpoint.
        discovery: the metadata document.
        operator: tokens issued by hand.
        families: refresh-token families, for the operator's verbs.
        access_tokens: reads our own access tokens.
        pool: hashes chosen secrets; to be closed.
    """

    directory: Directory
    token: TokenService
    revocation: RevocationService
    introspection: IntrospectionService
    discovery: Discovery
    operator: OperatorIssue
    families: RefreshFamilies
    access_tokens: AccessTokens
    pool: HashPool

    def close(self) -> None:
        """
        Let go of the threads.
        """
        self.pool.close()


def assemble(
    store: Store,
    keys: TenantKeys,
    protector: TagKeyRoot,
    *,
    events: EventSink | None = None,
    limits: ThrottleLimits | None = None,
    pool: HashPool | None = None,
    families: RefreshFamilies | None = None,
) -> OAuthServices:
    """
    Put the services of one process together.

    Args:
        store: where everything lies.
        keys: signs and verifies.
        protector: what tag keys of families are protected under.
        events: told of what happens.
        limits: on failures.
        pool: hashes chosen secrets; left out, one of default size.
        families: left out, made here.
    """
    events = NullSink() if events is None else events
    pool = pool or HashPool()
    families = families or RefreshFamilies(
        store, protector, raise_epoch=raise_epoch, events=events
    )
    directory = Directory(store)
    throttle = Throttle(limits)
    check = CredentialCheck(pool, throttle)
    authenticator = ClientAuthenticator(directory, check, store, events)
    access_tokens = AccessTokens(keys)
    sign_in = PasswordSignIn(store, check, pool, events)
    usernames = Usernames(store)
    grants: tuple[Grant, ...] = (
        ClientCredentialsGrant(),
        RefreshTokenGrant(families, throttle, usernames),
        PasswordGrant(sign_in, families, usernames),
    )
    token = TokenService(directory, authenticator, grants, TokenIssuer(keys), events)
    return OAuthServices(
        directory=directory,
        token=token,
        revocation=RevocationService(
            authenticator, store, families.revocation, access_tokens
        ),
        introspection=IntrospectionService(
            directory, authenticator, store, families, access_tokens
        ),
        discovery=Discovery(directory, keys, token.grant_types),
        operator=OperatorIssue(directory, store, families, token),
        families=families,
        access_tokens=access_tokens,
        pool=pool,
    )
