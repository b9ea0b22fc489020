"""
A small world for the tests of this folder: a store, real keys, clients of every kind, a user.
"""

from __future__ import annotations

import base64
import json
import secrets as random
from datetime import timedelta
from typing import NamedTuple
from urllib.parse import quote_plus

import msgspec

from kagimori.clock import seconds
from kagimori.crypto import jws, passwords
from kagimori.crypto.aead import gcm_open, gcm_seal
from kagimori.crypto.digests import b64url_decode, b64url_encode
from kagimori.crypto.jwk import Jwk
from kagimori.errors import ProtectionError
from kagimori.identity.hashing import HashPool
from kagimori.identity.password import hash_password
from kagimori.identity.user import (
    USERNAMES,
    USERS,
    creation,
    new_user,
    username_key,
)
from kagimori.keys.birth import NewRings
from kagimori.keys.tenant_rings import TenantRings
from kagimori.oauth.assembly import assemble
from kagimori.oauth.assertions import ASSERTION_TYPE
from kagimori.oauth.client import (
    CLIENTS,
    AuthMethod,
    Client,
    ClientSecret,
    Profile,
)
from kagimori.oauth.requests import EndpointRequest, TenantContext
from kagimori.oauth.resource import RESOURCES, Resource
from kagimori.oauth.secrets import generate_secret
from kagimori.oauth.tenant import TENANTS, Tenant
from kagimori.storage.store import ABSENT, Delete
from kagimori.testing.clock import FixedClock
from kagimori.testing.memory_store import MemoryStore
from kagimori.testing.spy_store import SpyStore

ISSUER = "https://id.example.com"
API, MAIL, OLD = "urn:example:api", "urn:example:mail", "urn:example:old"
PASSWORD = "tin kettle 7 rooftop"
ADDRESS = "192.0.2.1"
ALL_GRANTS = ("client_credentials", "refresh_token")

_hashes: dict[str, str] = {}


class Unprotected(NamedTuple):
    """
    What the ring of these tests opens.
    """

    payload: bytes
    needs_renewal: bool
    key_id: str


class MemoryRing:
    """
    A protection ring of one key that lives as long as the test.
    """

    current_key_id = "test-key"

    def __init__(self, key=None, purposes=()):
        self._key = key or random.token_bytes(32)
        self._aad = json.dumps(purposes).encode()

    def protector(self, *purposes):
        return MemoryRing(self._key, purposes)

    def protect(self, payload):
        nonce = random.token_bytes(12)
        return b64url_encode(nonce + gcm_seal(self._key, nonce, payload, self._aad))

    def unprotect(self, text):
        try:
            data = b64url_decode(text)
        except ValueError:
            raise ProtectionError("malformed") from None
        payload = gcm_open(self._key, data[:12], data[12:], self._aad)
        return Unprotected(payload, needs_renewal=False, key_id=self.current_key_id)

    def unprotect_at_hand(self, text):
        return self.unprotect(text)

    def protects(self, key_id):
        return True if key_id == self.current_key_id else None


class Events(list):
    """
    A sink that keeps what it is told.
    """

    emit = list.append

    def __bool__(self):
        return True

    def names(self):
        return [event.name for event in self]


class World:
    """
    One tenant with an API of each kind and a client of each kind.

    Clients: ``machine`` (client_secret_basic, generated secret), ``poster``
    (client_secret_post), ``spa`` (none), ``signer`` (private_key_jwt), ``legacy`` (legacy-2015,
    chosen secret), ``web`` (basic, refreshes), ``watcher`` (may introspect), ``mailer`` (acts
    for the resource ``mail``).
    """

    def __init__(
        self, *, limits=None, algorithms=("ES256", "Ed25519"), store=None, clock=None
    ):
        self.clock = clock or FixedClock()
        self.memory = store or MemoryStore(self.clock)
        self.store = SpyStore(self.memory)
        self.events = Events()
        self.ring = MemoryRing()
        self.rings = TenantRings(
            self.store,
            self.ring,
            self.clock,
            self.events,
            plan=NewRings(algorithms=algorithms),
        )
        self.pool = HashPool()
        self.services = assemble(
            self.store,
            self.rings,
            self.ring,
            events=self.events,
            limits=limits,
            pool=self.pool,
        )
        self.directory = self.services.directory
        self.secrets = {}
        self.signer_key = Jwk.generate("ES256")
        self.context = TenantContext("default", ISSUER)

    async def start(self):
        await self.put(TENANTS, "default", Tenant(id="default", created=self.now))
        await self.rings.start(["default"])
        for resource in (
            Resource(
                id="api", identifier=API, created=self.now, scopes=("read", "write")
            ),
            Resource(
                id="mail",
                identifier=MAIL,
                created=self.now,
                scopes=("mail", "read"),
                signing_algorithm="Ed25519",
                access_token_lifetime=timedelta(minutes=2),
                clients=("mailer",),
            ),
            Resource(
                id="old",
                identifier=OLD,
                created=self.now,
                access_token_lifetime=timedelta(seconds=20),
                bearer_in_query=True,
                legacy_error_code=True,
            ),
        ):
            resource.validate()
            await self.put(RESOURCES, resource.id, resource)
        both = {"scopes": ("read", "write", "mail"), "resources": ("api", "mail")}
        await self.client("machine", grants=ALL_GRANTS, **both)
        await self.client("web", grants=ALL_GRANTS, **both, allow_operator_grants=True)
        await self.client("poster", grants=ALL_GRANTS, method=AuthMethod.POST, **both)
        await self.client(
            "spa",
            grants=("refresh_token",),
            method=AuthMethod.NONE,
            allow_operator_grants=True,
            **both,
        )
        await self.client(
            "signer",
            grants=ALL_GRANTS,
            method=AuthMethod.PRIVATE_KEY_JWT,
            jwks={"keys": [self.signer_key.public().to_dict()]},
            allow_operator_grants=True,
            **both,
        )
        await self.client(
            "legacy",
            grants=("password", "refresh_token"),
            profile=Profile.LEGACY_2015,
            resources=("old",),
            chosen="secret",
        )
        await self.client("watcher", may_introspect=True)
        await self.client("mailer")
        self.user = await self.add_user("alice")
        self.store.calls.clear()
        return self

    @property
    def now(self):
        return self.clock.now()

    async def put(self, collection, id_, value):
        found = await collection.get(self.memory, "default", id_)
        expect = found.version if found else ABSENT
        await self.memory.commit("default", [collection.put(id_, value, expect)])
        self.directory.invalidate()

    async def client(self, id_, *, method=AuthMethod.BASIC, chosen=None, **fields):
        stored = ()
        if chosen is not None:
            stored = (
                ClientSecret(id="chosen", digest=slow_hash(chosen), created=self.now),
            )
            self.secrets[id_] = chosen
        elif method.uses_secret:
            made = generate_secret(self.now)
            stored = (made.stored,)
            self.secrets[id_] = made.text
        client = Client(
            id=id_, created=self.now, auth_method=method, secrets=stored, **fields
        )
        client.validate()
        await self.put(CLIENTS, id_, client)
        return client

    async def change(self, collection, id_, **fields):
        found = await collection.get(self.memory, "default", id_)
        await self.put(collection, id_, msgspec.structs.replace(found.value, **fields))

    async def add_user(self, username):
        hashed = _hashes.get(username)
        if hashed is None:
            hashed = _hashes[username] = await hash_password(self.pool, PASSWORD)
        user = new_user(username, now=self.now, password_hash=hashed)
        await self.memory.commit("default", creation(user))
        return user

    async def change_user(self, **fields):
        await self.change(USERS, self.user.id, **fields)

    async def remove_user(self):
        name = username_key(self.user.username)
        found = await self.memory.load_many(
            "default", [USERS.key(self.user.id), USERNAMES.key(name)]
        )
        await self.memory.commit(
            "default",
            [Delete(each.kind, each.id, each.version) for each in found.documents],
        )

    # --- asking ----------------------------------------------------------------------------

    def request(self, form, authorization=None, *, address=ADDRESS):
        form = {name: value for name, value in form.items() if value is not None}
        return EndpointRequest(
            self.context, form, authorization, self.now, address, "request-1", "test/1"
        )

    def shown(self, client, form):
        """
        Return a request in which a client shows what it is registered with.
        """
        if client is None:
            return self.request(form)
        if client == "spa":
            return self.request({"client_id": "spa", **form})
        if client == "poster":
            credentials = {
                "client_id": "poster",
                "client_secret": self.secrets["poster"],
            }
            return self.request({**credentials, **form})
        if client == "signer":
            return self.request({**self.asserted(), **form})
        return self.request(form, basic(client, self.secrets[client]))

    async def token(self, client="machine", grant="client_credentials", **form):
        return await self.services.token.token(
            self.shown(client, {"grant_type": grant, **form})
        )

    async def password(self, username="alice", password=PASSWORD, client="legacy"):
        return await self.token(
            client, "password", username=username, password=password
        )

    async def refresh(self, client, text, **form):
        return await self.token(client, "refresh_token", refresh_token=text, **form)

    async def family(self, client="web", **asked):
        """
        Return the first tokens of a new family, made by an operator.
        """
        return await self.services.operator.issue(
            self.context, client=client, username="alice", now=self.now, **asked
        )

    async def introspect(self, client, text, **form):
        request = self.shown(client, {"token": text, **form})
        answer = await self.services.introspection.introspect(request)
        return json.loads(msgspec.json.encode(answer))

    async def revoke(self, client, text, **form):
        await self.services.revocation.revoke(
            self.shown(client, {"token": text, **form})
        )

    def assertion(self, *, key=None, header=None, **changed):
        claims = {
            "iss": "signer",
            "sub": "signer",
            "aud": ISSUER,
            "exp": seconds(self.now) + 60,
            "iat": seconds(self.now),
            "jti": random.token_hex(8),
            **changed,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        return jws.sign(
            json.dumps(claims).encode(), key or self.signer_key, header=header
        )

    def asserted(self, **changed):
        return {
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": self.assertion(**changed),
        }


def slow_hash(text):
    """
    Return the Argon2id hash of a text, made once for all tests.
    """
    if text not in _hashes:
        _hashes[text] = passwords.hash_secret(text)
    return _hashes[text]


def basic(client, secret):
    """
    Return an ``Authorization`` header as RFC 6749 section 2.3.1 wants it.
    """
    pair = f"{quote_plus(client)}:{quote_plus(secret)}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def claims_of(token):
    """
    Return the claims of a JWT that somebody else verifies.
    """
    return json.loads(b64url_decode(token.split(".")[1]))


def header_of(token):
    """
    Return the header of a JWT.
    """
    return json.loads(b64url_decode(token.split(".")[0]))
