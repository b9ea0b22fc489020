"""
The operator's verbs for APIs: the resources that access tokens are made for.

Rules of this module:

1. An identifier belongs to one API. A document of its own, written in the commit that makes the
   API, makes the store refuse the second; both go in one commit too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import msgspec

from kagimori.admin.audit import Trail
from kagimori.admin.keys import KeyAdmin
from kagimori.admin.verb import Done, commit_verb
from kagimori.crypto.digests import b64url_encode, sha256
from kagimori.errors import NotFoundError, RefusedError
from kagimori.keys.journal import Cause
from kagimori.keys.timeline import KeyState, KeyUse
from kagimori.oauth.resource import RESOURCES, Resource
from kagimori.storage.store import (
    ABSENT,
    Change,
    Collection,
    Document,
    Store,
)

LIMIT = 1000


class Identifier(msgspec.Struct, frozen=True):
    """
    Says whose an identifier is.
    """

    api: str


IDENTIFIERS: Collection[Identifier] = Collection("resource_identifier", Identifier)


def identifier_id(identifier: str) -> str:
    """
    Return the id under which an identifier is stored: it may be longer than an id.
    """
    return b64url_encode(sha256(identifier.encode()))


@dataclass(frozen=True, slots=True)
class NewApi:
    """
    What an operator says of an API to be made; see `Resource` for the fields.

    The two legacy switches belong to the demo world's API; see `kagimori.admin.demo`.
    """

    id: str
    identifier: str
    name: str = ""
    scopes: tuple[str, ...] = ()
    signing_algorithm: str | None = None
    access_token_lifetime: timedelta | None = None
    clients: tuple[str, ...] = ()
    bearer_in_query: bool = False
    legacy_error_code: bool = False


class ApiView(msgspec.Struct, frozen=True, kw_only=True):
    """
    What may be shown of an API; the lifetime in seconds.
    """

    id: str
    identifier: str
    name: str
    created: datetime
    scopes: tuple[str, ...]
    signing_algorithm: str | None
    access_token_lifetime: int | None
    clients: tuple[str, ...]
    disabled: bool

    @classmethod
    def of(cls, api: Resource) -> ApiView:
        """
        Return the view of an API.
        """
        lifetime = api.access_token_lifetime
        return cls(
            id=api.id,
            identifier=api.identifier,
            name=api.name,
            created=api.created,
            scopes=api.scopes,
            signing_algorithm=api.signing_algorithm,
            access_token_lifetime=int(lifetime.total_seconds()) if lifetime else None,
            clients=api.clients,
            disabled=api.disabled,
        )


class ApiAdmin:
    """
    Makes and removes APIs.
    """

    def __init__(
        self,
        store: Store,
        trail: Trail,
        keys: KeyAdmin,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._trail = trail
        self._keys = keys
        self._now = now

    async def list(self, tenant: str) -> tuple[ApiView, ...]:
        """
        Return the APIs of a tenant, in the order of their ids.
        """
        found = await RESOURCES.find(self._store, tenant, limit=LIMIT)
        return tuple(ApiView.of(api.value) for api in found)

    async def create(self, tenant: str, asked: NewApi, *, cause: Cause) -> ApiView:
        """
        Make an API.

        Raises:
            ConfigError: it cannot be as asked.
            RefusedError: the id or the identifier is taken, or no current key of the tenant
                signs with its algorithm.
        """
        api = Resource(created=self._now(), **asdict(asked))
        api.validate()
        await self._refuse_unsigned(tenant, api.signing_algorithm)
        # One that was stored without this verb has no document of its identifier.
        taken = await RESOURCES.find(
            self._store, tenant, ("identifier", api.identifier), limit=1
        )
        if taken:
            raise _same_identifier(taken[0].id, api.identifier)
        name = identifier_id(api.identifier)

        def decide(documents: tuple[Document | None, ...], _: datetime) -> Done[None]:
            if documents[0] is not None:
                raise RefusedError(f"There is an API {api.id!r} already.")
            holder = IDENTIFIERS.maybe(documents[1])
            if holder is not None:
                raise _same_identifier(holder.value.api, api.identifier)
            claim = IDENTIFIERS.put(name, Identifier(api.id), ABSENT)
            return Done(None, (RESOURCES.put(api.id, api, ABSENT), claim))

        await commit_verb(
            self._store,
            self._trail,
            tenant,
            "api.created",
            api.id,
            cause,
            [RESOURCES.key(api.id), IDENTIFIERS.key(name)],
            decide,
        )
        return ApiView.of(api)

    async def _refuse_unsigned(self, tenant: str, algorithm: str | None) -> None:
        if algorithm is None:
            return
        current = {
            key.algorithm
            for key in await self._keys.list(tenant)
            if key.use == KeyUse.SIGNING.value and key.state == KeyState.CURRENT.value
        }
        if algorithm not in current:
            raise RefusedError(
                f"No current key of {tenant} signs with {algorithm}.",
                hint=f"Make one: kagimori keys rotate signing --algorithm {algorithm}",
                algorithm=algorithm,
            )

    async def delete(self, tenant: str, api_id: str, *, cause: Cause) -> None:
        """
        Remove an API; no token is made for it any more.

        Raises:
            NotFoundError: there is none of this id.
        """
        seen = await RESOURCES.get(self._store, tenant, api_id)
        if seen is None:
            raise _no_api(api_id)
        name = identifier_id(seen.value.identifier)

        def decide(documents: tuple[Document | None, ...], _: datetime) -> Done[None]:
            found = RESOURCES.maybe(documents[0])
            if found is None or found.value.identifier != seen.value.identifier:
                # It was deleted meanwhile, and perhaps made again as something else.
                raise _no_api(api_id)
            gone: list[Change] = [RESOURCES.delete(api_id, found.version)]
            holder = IDENTIFIERS.maybe(documents[1])
            if holder is not None and holder.value.api == api_id:
                gone.append(IDENTIFIERS.delete(name, holder.version))
            return Done(None, tuple(gone))

        await commit_verb(
            self._store,
            self._trail,
            tenant,
            "api.deleted",
            api_id,
            cause,
            [RESOURCES.key(api_id), IDENTIFIERS.key(name)],
            decide,
        )


def _same_identifier(holder: str, identifier: str) -> RefusedError:
    return RefusedError(
        f"The API {holder!r} has the identifier {identifier!r} already."
    )


def _no_api(api_id: str) -> NotFoundError:
    return NotFoundError(
        f"There is no API {api_id!r}.", hint="See `kagimori apis list`."
    )
