"""
The operator's verbs for clients and their secrets.

Rules of this module:

1. A secret's text is returned once, by the verb that made it, and kept nowhere.
2. Outside the demo world known and weak secrets are refused (K10).
3. What is disabled or deleted loses its refresh tokens with it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from kagimori.admin.audit import Trail
from kagimori.admin.client_views import (
    ClientMade,
    ClientView,
    NewClient,
    SecretMade,
)
from kagimori.admin.verb import Done, commit_verb
from kagimori.errors import NotFoundError, RefusedError
from kagimori.identity.hashing import HashPool
from kagimori.keys.journal import Cause
from kagimori.oauth.client import (
    CLIENTS,
    MAX_SECRETS,
    AuthMethod,
    Client,
    ClientSecret,
    GrantType,
)
from kagimori.oauth.resource import RESOURCES
from kagimori.oauth.secrets import choose_secret, generate_secret
from kagimori.storage.store import ABSENT, Document, Store
from kagimori.tokens.records import CLIENT_EPOCHS, ClientEpoch
from kagimori.tokens.revocation import FamilyRevocation

PAGE = 200


class ClientAdmin:
    """
    Registers, changes and removes clients.

    Args:
        known_secrets: takes known and weak secrets: the demo world only.
    """

    def __init__(
        self,
        store: Store,
        trail: Trail,
        pool: HashPool,
        revocation: FamilyRevocation,
        now: Callable[[], datetime],
        *,
        known_secrets: bool = False,
    ) -> None:
        self._store = store
        self._trail = trail
        self._pool = pool
        self._revocation = revocation
        self._now = now
        self._known_secrets = known_secrets

    async def list(self, tenant: str) -> tuple[ClientView, ...]:
        """
        Return all clients of a tenant, in the order of their ids.
        """
        found: list[ClientView] = []
        after: str | None = None
        while True:
            page = await CLIENTS.find(self._store, tenant, limit=PAGE, after=after)
            found += [ClientView.of(client.value) for client in page]
            if len(page) < PAGE:
                return tuple(found)
            after = page[-1].id

    async def show(self, tenant: str, client_id: str) -> ClientView:
        """
        Return one client.

        Raises:
            NotFoundError: there is none of this id.
        """
        found = await CLIENTS.get(self._store, tenant, client_id)
        if found is None:
            raise _unknown(client_id)
        return ClientView.of(found.value)

    async def create(
        self, tenant: str, asked: NewClient, *, cause: Cause
    ) -> ClientMade:
        """
        Register a client.

        Raises:
            ConfigError: it cannot be as asked.
            InsecureConfigError: its chosen secret is weak.
            RefusedError: the id is taken.
            NotFoundError: it names an API that is not there.
        """
        now = self._now()
        secret, text = None, None
        if asked.auth_method.uses_secret:
            secret, text = await self._secret(asked.secret, asked.id, now, None)
        elif asked.secret is not None:
            raise RefusedError(
                f"A client that authenticates by {asked.auth_method.value} has no secret."
            )
        client = Client(
            id=asked.id,
            created=now,
            name=asked.name,
            profile=asked.profile,
            auth_method=asked.auth_method,
            grants=asked.grants or _usual_grants(asked.auth_method),
            scopes=asked.scopes,
            resources=asked.resources,
            origins=asked.origins,
            secrets=(secret,) if secret else (),
            jwks=asked.jwks,
            access_token_lifetime=asked.access_token_lifetime,
            after_expiry=asked.after_expiry,
            refresh=asked.refresh,
            may_introspect=asked.may_introspect,
            allow_operator_grants=asked.allow_operator_grants,
        )
        client.validate()

        def decide(
            documents: tuple[Document | None, ...], _: datetime
        ) -> Done[ClientMade]:
            if documents[0] is not None:
                raise RefusedError(f"There is a client {client.id!r} already.")
            for resource, document in zip(client.resources, documents[1:], strict=True):
                if document is None:
                    raise NotFoundError(
                        f"There is no API {resource!r}.",
                        hint="Make it with: kagimori apis create",
                    )
            return Done(
                ClientMade(ClientView.of(client), text),
                (CLIENTS.put(client.id, client, ABSENT),),
                {"profile": client.profile.value},
            )

        keys = [CLIENTS.key(client.id), *map(RESOURCES.key, client.resources)]
        return await commit_verb(
            self._store,
            self._trail,
            tenant,
            "client.created",
            client.id,
            cause,
            keys,
            decide,
        )

    async def add_secret(
        self,
        tenant: str,
        client_id: str,
        *,
        secret: str | None = None,
        expires_in: timedelta | None = None,
        cause: Cause,
    ) -> SecretMade:
        """
        Give a client one more secret, so that the old one can be withdrawn later.

        Raises:
            NotFoundError: there is no such client.
            RefusedError: it has no secrets, or as many as it may.
            InsecureConfigError: the chosen secret is weak.
        """
        now = self._now()
        expires = now + expires_in if expires_in else None
        made, text = await self._secret(secret, client_id, now, expires)

        def change(client: Client, now: datetime) -> Client:
            if not client.auth_method.uses_secret:
                raise RefusedError(
                    f"A client that authenticates by {client.auth_method.value} has no "
                    "secret."
                )
            alive = tuple(
                old for old in client.secrets if not old.expires or old.expires > now
            )
            if len(alive) >= MAX_SECRETS:
                raise RefusedError(
                    f"The client {client_id!r} has {MAX_SECRETS} secrets already.",
                    hint="Withdraw one first: kagimori clients withdraw-secret",
                )
            return msgspec.structs.replace(client, secrets=(*alive, made))

        await self._change(
            tenant, client_id, "client.secret_added", cause, change, secret=made.id
        )
        return SecretMade(made.id, text)

    async def withdraw_secret(
        self, tenant: str, client_id: str, secret_id: str, *, cause: Cause
    ) -> None:
        """
        Take a secret away; the last one too.

        Raises:
            NotFoundError: there is no such client or secret.
        """

        def change(client: Client, _: datetime) -> Client:
            left = tuple(old for old in client.secrets if old.id != secret_id)
            if len(left) == len(client.secrets):
                raise NotFoundError(
                    f"The client {client_id!r} has no secret {secret_id!r}.",
                    hint="See `kagimori clients show`.",
                )
            return msgspec.structs.replace(client, secrets=left)

        await self._change(
            tenant,
            client_id,
            "client.secret_withdrawn",
            cause,
            change,
            secret=secret_id,
        )

    async def disable(self, tenant: str, client_id: str, *, cause: Cause) -> int:
        """
        Let a client get nothing; its refresh tokens are revoked. Return how many lived.

        Raises:
            NotFoundError: there is no such client.
        """
        epoch = await self._end(tenant, client_id, "client.disabled", cause, keep=True)
        return await self._revocation.revoke_client(tenant, client_id, epoch=epoch)

    async def enable(self, tenant: str, client_id: str, *, cause: Cause) -> None:
        """
        Let a disabled client work again.

        Raises:
            NotFoundError: there is no such client.
        """
        await self._change(tenant, client_id, "client.enabled", cause, _enabled)

    async def delete(self, tenant: str, client_id: str, *, cause: Cause) -> int:
        """
        Remove a client; its refresh tokens are revoked. Return how many lived.

        Raises:
            NotFoundError: there is no such client.
        """
        epoch = await self._end(tenant, client_id, "client.deleted", cause, keep=False)
        return await self._revocation.revoke_client(tenant, client_id, epoch=epoch)

    async def _end(
        self, tenant: str, client_id: str, action: str, cause: Cause, *, keep: bool
    ) -> int:
        """
        Disable or remove a client, and raise its epoch in the same commit; return the epoch.

        From that commit on no family of before is usable, also by a client that is registered
        under this id later; revoking them one by one comes after, and may be repeated.
        """

        def decide(documents: tuple[Document | None, ...], now: datetime) -> Done[int]:
            found = CLIENTS.maybe(documents[0])
            if found is None:
                raise _unknown(client_id)
            old = CLIENT_EPOCHS.maybe(documents[1])
            epoch = ClientEpoch((old.value.epoch if old else 0) + 1, now)
            disabled = msgspec.structs.replace(found.value, disabled=True)
            put = CLIENTS.put(client_id, disabled, found.version)
            end = put if keep else CLIENTS.delete(client_id, found.version)
            version = old.version if old else ABSENT
            raised = CLIENT_EPOCHS.put(client_id, epoch, version)
            return Done(epoch.epoch, (end, raised))

        return await commit_verb(
            self._store,
            self._trail,
            tenant,
            action,
            client_id,
            cause,
            [CLIENTS.key(client_id), CLIENT_EPOCHS.key(client_id)],
            decide,
        )

    async def _secret(
        self,
        chosen: str | None,
        client_id: str,
        now: datetime,
        expires: datetime | None,
    ) -> tuple[ClientSecret, str | None]:
        if chosen is None:
            generated = generate_secret(now, expires=expires)
            return generated.stored, generated.text
        stored = await choose_secret(
            self._pool,
            chosen,
            now,
            client_id=client_id,
            expires=expires,
            allow_known_secrets=self._known_secrets,
        )
        return stored, None

    async def _change(
        self,
        tenant: str,
        client_id: str,
        action: str,
        cause: Cause,
        change: Callable[[Client, datetime], Client],
        **details: str,
    ) -> None:
        def decide(documents: tuple[Document | None, ...], now: datetime) -> Done[None]:
            found = CLIENTS.maybe(documents[0])
            if found is None:
                raise _unknown(client_id)
            new = change(found.value, now)
            if new == found.value:
                return Done(None)
            return Done(None, (CLIENTS.put(client_id, new, found.version),), details)

        await commit_verb(
            self._store,
            self._trail,
            tenant,
            action,
            client_id,
            cause,
            [CLIENTS.key(client_id)],
            decide,
        )


def _enabled(client: Client, _: datetime) -> Client:
    return msgspec.structs.replace(client, disabled=False)


def _usual_grants(method: AuthMethod) -> tuple[str, ...]:
    if method is AuthMethod.NONE:
        return (GrantType.REFRESH_TOKEN.value,)
    return (GrantType.CLIENT_CREDENTIALS.value, GrantType.REFRESH_TOKEN.value)


def _unknown(client_id: str) -> NotFoundError:
    return NotFoundError(
        f"There is no client {client_id!r}.", hint="See `kagimori clients list`."
    )
