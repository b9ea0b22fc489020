"""
A tenant: one issuer with its own keys, clients, users and resources.

Rules of this module:

1. A tenant's document lies in the tenant itself: tenant = id = `Tenant.id`.
2. A disabled tenant answers nothing that issues or tells of a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from kagimori.storage.store import Collection

DEFAULT_TENANT = "default"
"""The tenant at the root of its issuer."""


class Tenant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One issuer.

    Attributes:
        id: the short name in paths and on the command line.
        created: when it was made.
        name: what people call it.
        host: the host that it answers on, where it is not under ``/t/{id}``.
        disabled: whether it answers nothing any more.
    """

    id: str
    created: datetime
    name: str = ""
    host: str | None = None
    disabled: bool = False


def _indexes(tenant: Tenant) -> Mapping[str, str]:
    return {"host": tenant.host} if tenant.host else {}


TENANTS: Collection[Tenant] = Collection(
    "tenant", Tenant, indexes=_indexes, announce=True
)
