"""
The one choke point: what every grant and every refresh passes before a token is made.

Rules of this module:

1. The states of tenant, client, user and resource, the client's grants and its scope policy are
   judged here and nowhere else. Nothing is signed without an `Access`, and an `Access` is made
   here only; so a new grant cannot pass by.
2. State is judged at each request, not at sign-in: a scope, a resource or a grant that was taken
   from a client is gone at its next refresh (attacks T6). What a family knows of its user is
   judged in the commit that redeems, by `kagimori.tokens.redemption`, within the bounds that
   `admit_refresh` gives.
3. Narrowing at one refresh leaves the grant as it was (race R9).
4. What follows from the client and the directory alone is decided once and remembered with the
   client's record, which any change drops.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Final, NamedTuple

from kagimori.errors import OAuthError
from kagimori.identity.user import User
from kagimori.oauth.client import GrantType
from kagimori.oauth.directory import ClientRecord, Resources
from kagimori.oauth.faults import invalid_client, invalid_grant
from kagimori.oauth.resource import DEFAULT_ACCESS_TOKEN_LIFETIME, Resource
from kagimori.oauth.scopes import parse_scope
from kagimori.oauth.tenant import Tenant

_PLANS: Final = 256

# No grant holds an empty scope value, so asking for it is asking for too much.
_UNGRANTABLE: Final = ("",)


class Asked(NamedTuple):
    """
    What a request asks for: its ``scope`` and ``resource`` parameters.
    """

    scope: str | None = None
    resource: str | None = None


class Granted(NamedTuple):
    """
    What a sign-in grants: the bounds of all its refreshes.

    Attributes:
        scope: scope values.
        resources: identifiers of resources, the default first.
    """

    scope: tuple[str, ...]
    resources: tuple[str, ...]


class Access(NamedTuple):
    """
    What one access token is made for.

    Attributes:
        resource: the API, whose identifier is the audience.
        scope: the scope values of this token.
        scope_text: the same as one text, ``None`` where there are none.
        lifetime: how long the token lives at most.
        granted: what the sign-in covers; of a refreshed token, what is left of it.
        longest: the longest life of any token of this client.
    """

    resource: Resource
    scope: tuple[str, ...]
    scope_text: str | None
    lifetime: timedelta
    granted: Granted
    longest: timedelta


class RefreshBounds(NamedTuple):
    """
    What a client may have at all, now.

    Attributes:
        scope: the scope asked for, ``None`` for all that was granted.
        permitted_scope: the scope values it may have.
        permitted_resources: the identifiers of the resources it may reach.
        longest: the longest life of any of its access tokens.
    """

    scope: tuple[str, ...] | None
    permitted_scope: frozenset[str]
    permitted_resources: frozenset[str]
    longest: timedelta


def check_standing(tenant: Tenant | None, record: ClientRecord) -> None:
    """
    Refuse a tenant or a client that is switched off.

    Raises:
        OAuthError: ``invalid_client``, alike for both.
    """
    if tenant is None or tenant.disabled:
        raise invalid_client("tenant disabled or absent")
    if record.client.disabled:
        raise invalid_client("client disabled")


def check_grant(record: ClientRecord, grant: GrantType) -> None:
    """
    Refuse a grant that the client does not have.

    Raises:
        OAuthError: ``unauthorized_client``.
    """
    client = record.client
    if grant not in record.grants:
        allowed = False
    elif grant is GrantType.CLIENT_CREDENTIALS:
        allowed = not client.is_public
    elif grant is GrantType.PASSWORD:
        # Judged again here: no stored document opens this grant by itself (attacks T11).
        allowed = client.is_legacy and not client.is_public
    else:
        allowed = True
    if not allowed:
        raise _unauthorized("grant not allowed to this client")


def check_operator_grant(record: ClientRecord) -> None:
    """
    Refuse an operator who would issue tokens in the name of a client that does not allow it.

    Raises:
        OAuthError: ``unauthorized_client``.
    """
    if not record.client.allow_operator_grants:
        raise _unauthorized("operator grants not allowed")


def check_user(user: User | None) -> None:
    """
    Refuse a user who is absent or switched off.

    Raises:
        OAuthError: ``invalid_grant``, as for a wrong password.
    """
    if user is None:
        raise invalid_grant("user absent")
    if user.disabled:
        raise invalid_grant("user disabled")


def admit(
    tenant: Tenant | None,
    record: ClientRecord,
    grant: GrantType,
    resources: Resources,
    asked: Asked,
    *,
    user: User | None = None,
    by_operator: bool = False,
) -> Access:
    """
    Return what a new grant gives access to.

    Without a ``resource`` that is the client's resource that knows most of the scope asked for.

    Args:
        resources: the tenant's.
        user: who the token would speak of; not for ``client_credentials``.
        by_operator: an operator asks in the client's name.

    Raises:
        OAuthError: something stands against it.
    """
    check_standing(tenant, record)
    if by_operator:
        check_operator_grant(record)
    else:
        check_grant(record, grant)
    if grant is not GrantType.CLIENT_CREDENTIALS:
        check_user(user)
    access = record.plans.get(asked)
    if access is None:
        access = _plan(record, resources, asked)
        if len(record.plans) >= _PLANS:
            record.plans.clear()
        record.plans[asked] = access
    return access


def admit_refresh(
    tenant: Tenant | None, record: ClientRecord, resources: Resources, asked: Asked
) -> RefreshBounds:
    """
    Return the bounds of a refresh; the family itself is judged by `redeem`.

    A malformed or foreign scope is no error yet: for a retired token the verdict on reuse comes
    first (requirements B5), so here it becomes a scope that no family holds.

    Raises:
        OAuthError: something stands against any refresh by this client.
    """
    check_standing(tenant, record)
    check_grant(record, GrantType.REFRESH_TOKEN)
    bounds = record.bounds.get(asked)
    if bounds is None:
        bounds = _bounds(record, resources, asked)
        if len(record.bounds) >= _PLANS:
            record.bounds.clear()
        record.bounds[asked] = bounds
    return bounds


def _bounds(record: ClientRecord, resources: Resources, asked: Asked) -> RefreshBounds:
    open_ = tuple(_open_resources(record, resources))
    scope: tuple[str, ...] | None
    try:
        scope = parse_scope(asked.scope) or None
    except OAuthError:
        scope = _UNGRANTABLE
    target = resources.by_identifier.get(asked.resource or "")
    if scope and target is not None and not set(scope) & set(target.scopes):
        scope = _UNGRANTABLE
    return RefreshBounds(
        scope,
        record.scopes,
        frozenset(each.identifier for each in open_),
        _longest(record, open_),
    )


def access_of_refresh(
    record: ClientRecord,
    resources: Resources,
    bounds: RefreshBounds,
    identifier: str | None,
    scope: tuple[str, ...],
) -> Access:
    """
    Return the access that a redeemed refresh token gives.

    Args:
        bounds: as `admit_refresh` gave them for this request.
        identifier: the audience that `redeem` chose within them.
        scope: the scope that `redeem` left.

    Raises:
        OAuthError: ``invalid_target``, where the family is for no resource.
    """
    chosen = resources.by_identifier.get(identifier or "")
    if chosen is None or identifier not in bounds.permitted_resources:
        raise _invalid_target()
    granted = Granted(scope, (chosen.identifier,))
    return _access(record, chosen, scope, granted, bounds.longest)


def _plan(record: ClientRecord, resources: Resources, asked: Asked) -> Access:
    scope = parse_scope(asked.scope)
    open_ = tuple(_open_resources(record, resources))
    longest = _longest(record, open_)
    if asked.resource is not None:
        open_ = tuple(each for each in open_ if each.identifier == asked.resource)
    if not open_:
        raise _invalid_target()
    known = {value for each in open_ for value in each.scopes}
    if not set(scope) <= record.scopes & known:
        raise _invalid_scope()
    # max() keeps the first of equals: the client's own order decides.
    chosen = max(open_, key=lambda each: len(set(scope) & set(each.scopes)))
    wanted = scope or tuple(each for each in record.client.scopes if each in known)
    ordered = (chosen, *(each for each in open_ if each is not chosen))
    granted = Granted(wanted, tuple(each.identifier for each in ordered))
    return _access(record, chosen, wanted, granted, longest)


def _open_resources(record: ClientRecord, resources: Resources) -> Iterator[Resource]:
    for name in record.client.resources:
        resource = resources.by_id.get(name)
        if resource is not None and not resource.disabled:
            yield resource


def _longest(record: ClientRecord, open_: Iterable[Resource]) -> timedelta:
    return max((_lifetime(record, each) for each in open_), default=timedelta(0))


def _lifetime(record: ClientRecord, resource: Resource) -> timedelta:
    # The API's, or the client's if shorter (B7).
    lifetime = resource.access_token_lifetime or DEFAULT_ACCESS_TOKEN_LIFETIME
    shorter = record.client.access_token_lifetime
    return lifetime if shorter is None else min(lifetime, shorter)


def _access(
    record: ClientRecord,
    chosen: Resource,
    wanted: Iterable[str],
    granted: Granted,
    longest: timedelta,
) -> Access:
    scope = tuple(each for each in wanted if each in chosen.scopes)
    text = " ".join(scope) or None
    return Access(chosen, scope, text, _lifetime(record, chosen), granted, longest)


def _unauthorized(detail: str) -> OAuthError:
    return OAuthError(
        "unauthorized_client",
        "The client may not use this grant type.",
        detail=detail,
    )


def _invalid_scope() -> OAuthError:
    return OAuthError(
        "invalid_scope", "The scope is unknown or more than may be granted."
    )


def _invalid_target() -> OAuthError:
    return OAuthError(
        "invalid_target", "The resource is unknown or may not be granted."
    )
