"""
A ring in a Redis list, as ASP.NET Core's ``PersistKeysToStackExchangeRedis`` has it.

    redis://user@host:port/0         rediss:// for TLS, with certificate and name checked
    options   key=DataProtection-Keys          one list for each ring
              password-env=NAME password-file=/path
              ca=/path/ca.pem                  rediss: the authority; the system's without

Rules of this module (`aspnet-data-protection.md` 2.6):

1. An item is an element: one line of XML. .NET only ever appends, and reads the whole list.
2. A commit is one transaction under WATCH: whoever writes to the list in between, .NET too,
   makes it fail. Its last act appends our state element, written anew each time (see
   `kagimori.ring_stores.marks`).
3. A connection that dies is made anew once. A commit whose answer was lost is looked up by its
   name, and tried again only where it was not done.
"""

from __future__ import annotations

import secrets
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from kagimori.addresses import Address, secret_names
from kagimori.errors import (
    ConfigError,
    ConflictError,
    KagimoriError,
    RingMalformedError,
    RingReadOnlyError,
)
from kagimori.keys.findings import Finding
from kagimori.keys.protection import elements
from kagimori.keys.store import Element, KeyStore, Snapshot
from kagimori.ring_stores import marks
from kagimori.ring_stores.marks import Mark
from kagimori.ring_stores.redis_faults import declared, is_conflict, is_lost
from kagimori.ring_stores.servers import (
    authority_file,
    missing_package,
    password_of,
)

if TYPE_CHECKING:
    from redis import Redis

DEFAULT_KEY = "DataProtection-Keys"

_CONNECT_SECONDS = 2
_READ_SECONDS = 5
_CONNECTIONS = 2
_MOST_TRIES = 4

T = TypeVar("T")


class RedisStore:
    """
    A `KeyStore` over a Redis list.

    Args:
        connect: makes a client of the package ``redis``; called once. Its timeouts are the
            caller's to set, and it does not retry by itself.
        key: the list's name.
        name: where the server is, for people; never a secret.
        read_only: refuse commits.
    """

    def __init__(
        self,
        connect: Callable[[], Redis],
        *,
        key: str = DEFAULT_KEY,
        name: str = "Redis",
        read_only: bool = False,
    ) -> None:
        if not key:
            raise ConfigError("A ring's list in Redis has a name.")
        self._client = connect()
        # Held from there too, so that no collection of garbage takes it before it is closed.
        weakref.finalize(self, self._client.close).atexit = False
        self._key = key
        self._name = f"{name} (list {key})"
        self._read_only = read_only

    @property
    def name(self) -> str:
        """
        The server's address and the list.
        """
        return self._name

    @property
    def client(self) -> Redis:
        """
        The client. It sees to forks itself: each process has its own connections.
        """
        return self._client

    @property
    def is_read_only(self) -> bool:
        """
        Whether this store refuses commits.
        """
        return self._read_only

    @property
    def key(self) -> str:
        """
        The list's name.
        """
        return self._key

    def close(self) -> None:
        """
        Let go of the connections. They are made anew when the store is used again.
        """
        self._client.close()

    # --- the protocol ----------------------------------------------------------------------

    def probe(self) -> str | None:
        """
        Return the list's length and a digest of its last item; ``None`` without a list.
        """

        def work(client: Any) -> str | None:
            with client.pipeline(transaction=False) as pipe:
                pipe.llen(self._key)
                pipe.lindex(self._key, -1)
                length, last = pipe.execute()
            return f"{length}.{marks.digest_of([_text(last)])}" if length else None

        return self.run(work)

    def load(self) -> Snapshot:
        """
        Read the whole list.
        """
        return _Reading(self.run(self._items), self._name).snapshot()

    def commit(
        self, add: Sequence[Element], remove: Sequence[str], expect: str | None
    ) -> Snapshot:
        """
        Add and remove elements if the ring is still at version `expect`.

        Raises:
            ConflictError: the ring changed since; nothing was written.
            RingReadOnlyError: this store was opened read-only.
            StoreError: the server refuses or does not answer. Where it fell silent just as the
                change was to be committed, the change may have been written.
        """
        if self._read_only:
            raise RingReadOnlyError(f"The ring at {self._name} was opened read-only.")
        ring_state, others = marks.split_state(add)
        new = [marks.one_line(element) for element in others]
        gone = {*remove, *(element.name for element in others)}
        commit = secrets.token_hex(16)

        def work(client: Any) -> Snapshot:
            with client.pipeline() as pipe:
                pipe.watch(self._key)
                before = _Reading(self._bounded(pipe), self._name)
                if before.mark.descends_from(commit):
                    return before.snapshot()
                if before.version != expect:
                    raise ConflictError("The ring changed since it was read.")
                mark = before.mark.followed_by(commit, ring_state).text()
                kept = before.without(gone)
                pipe.multi()
                for item in dict.fromkeys(before.items).keys() - set(kept):
                    pipe.lrem(self._key, 0, item)
                pipe.rpush(self._key, *new, mark)
                pipe.execute()
                return _Reading([*kept, *new, mark], self._name).snapshot()

        return self.run(work)

    def examine(self) -> tuple[Finding, ...]:
        """
        Try each right separately, and leave nothing behind.
        """
        from kagimori.ring_stores.redis_examination import examine

        return examine(self)

    def lost_at_restart(self) -> str:
        """
        Say why the ring does not last; empty where it does, or where the server does not tell.
        """
        from kagimori.ring_stores.redis_examination import lost_at_restart

        return lost_at_restart(self)

    # --- the server ------------------------------------------------------------------------

    def _items(self, client: Any) -> list[str]:
        with client.pipeline() as pipe:
            pipe.llen(self._key)
            pipe.lrange(self._key, 0, marks.MOST_ELEMENTS)
            length, items = pipe.execute()
        marks.bounded(length, self._name)
        return [_text(item) for item in items]

    def _bounded(self, pipe: Any) -> list[str]:
        marks.bounded(pipe.llen(self._key), self._name)
        return [_text(item) for item in pipe.lrange(self._key, 0, -1)]

    def run(self, work: Callable[[Any], T]) -> T:
        """
        Run work, again where its connection died: it knows itself whether it was done.
        """
        was_lost = False
        for left in reversed(range(_MOST_TRIES)):
            try:
                return work(self._client)
            except KagimoriError:
                raise
            except Exception as error:  # noqa: BLE001 - loaded by who uses it
                if is_lost(error) and left and not was_lost:
                    was_lost = True
                    continue
                if is_conflict(error):
                    # The client says the same of a connection that was lost under WATCH:
                    # another look tells whether somebody was faster, or we ourselves.
                    if left:
                        continue
                    raise ConflictError(
                        "Another writer changed the ring first."
                    ) from None
                raise declared(
                    error,
                    where=self._name,
                    key=self._key,
                    user=_user(self._client),
                    read_only=self._read_only,
                ) from None
        raise AssertionError("unreachable")


class _Reading:
    """
    The items of a list as they were read in one moment.
    """

    def __init__(self, items: Sequence[str], where: str) -> None:
        self.items = items
        self.mark = Mark()
        self._named: list[tuple[str, str]] = []
        self._has_mark = False
        for number, item in enumerate(items):
            if (mark := marks.read_mark(item)) is not None:
                self.mark = mark
                self._has_mark = True
            elif item.strip():
                what = f"Item {number} of {where}"
                self._named.append((marks.name_of(item, what), item))

    @property
    def version(self) -> str | None:
        """
        What a commit is compared with; ``None`` where nothing is stored.
        """
        if not self._named and not self._has_mark:
            return None
        return f"{len(self.items)}.{marks.digest_of(self.items)}"

    def snapshot(self) -> Snapshot:
        """
        Return the ring that the items are.
        """
        found = [Element(name, item) for name, item in self._named]
        if self.mark.ring_state:
            found.append(Element(elements.STATE, self.mark.ring_state))
        return Snapshot(tuple(found), self.version)

    def without(self, names: set[str]) -> list[str]:
        """
        Return the items but for elements of these names, our state, and empty ones.
        """
        return [item for name, item in self._named if name not in names]


def _text(item: bytes | str | None) -> str:
    if isinstance(item, bytes):
        try:
            return item.decode("utf-8")
        except UnicodeDecodeError:
            raise RingMalformedError(
                "An item of the ring's list in Redis is no text."
            ) from None
    return item or ""


def _user(client: Redis) -> str:
    named = client.connection_pool.connection_kwargs.get("username")
    return str(named or "default")


# --- addresses -----------------------------------------------------------------------------


def open_store(address: Address, *, read_only: bool) -> KeyStore:
    """
    Return the store of a ``redis:`` or ``rediss:`` address.

    Raises:
        ConfigError: the address is malformed, or the package is not installed.
    """
    address.allow("key", "ca", *secret_names("password"))
    number = address.path.removeprefix("/") or "0"
    if not address.host or not number.isascii() or not number.isdigit():
        raise ConfigError(
            f"A {address.scheme}: address names a host and a database by its number.",
            hint=f"Write {address.scheme}://host:port/0.",
        )
    options: dict[str, Any] = {}
    if address.scheme == "rediss":
        ca = address.option("ca")
        options = {
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
        }
        if ca:
            options["ssl_ca_certs"] = str(authority_file(ca))
    elif address.option("ca"):
        raise ConfigError("A ca is for a rediss: address.")
    password = password_of(address)
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise missing_package("redis", "redis") from None

    kind = redis.SSLConnection if address.scheme == "rediss" else redis.Connection

    def connect() -> Redis:
        make: Any = redis.BlockingConnectionPool
        pool = make(
            max_connections=_CONNECTIONS,
            timeout=_CONNECT_SECONDS + _READ_SECONDS,
            connection_class=kind,
            host=address.host,
            port=address.port or 6379,
            db=int(number),
            username=address.user or None,
            password=password,
            socket_connect_timeout=_CONNECT_SECONDS,
            socket_timeout=_READ_SECONDS,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **options,
        )
        return redis.Redis.from_pool(pool)

    return RedisStore(
        connect,
        key=address.option("key", DEFAULT_KEY) or "",
        name=address.text,
        read_only=read_only,
    )
