"""
The settings as values: what there is, what it is at first, and what cannot be together.

Rules of this module:

1. Values that cannot be right together are refused with the sentence that says why.
2. ``{data}`` in a URL stands for the data folder, so that a folder may be moved.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

import msgspec

from kagimori.errors import ConfigError, InsecureConfigError
from kagimori.oauth.throttle import ThrottleLimits
from kagimori.settings.checks import (
    HOST,
    TENANT,
    check_issuer,
    check_no_password,
    is_loopback,
    parse_listen,
)

FILE_NAME = "kagimori.toml"
DEFAULT_APPLICATION = "kagimori"
DEFAULT_STORE = "sqlite://{data}/kagimori.db"
DEFAULT_RING = "file://{data}/ring"


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What one connection may cost (attack S1). Sizes in bytes, times in seconds.

    Attributes:
        header_bytes: request line and header fields of one request together.
        header_fields: how many header fields a request may have.
        header_seconds: from the first byte of a request to the end of its header.
        body_bytes: the body of one request.
        body_seconds: from the end of the header to the end of the body.
        form_fields: how many fields a form may have.
        connections: how many connections one worker holds open.
        keep_alive_seconds: how long an idle connection stays open.
        drain_seconds: how long requests in flight may take to end after SIGTERM.
    """

    header_bytes: int = 32 * 1024
    header_fields: int = 100
    header_seconds: float = 10
    body_bytes: int = 64 * 1024
    body_seconds: float = 30
    form_fields: int = 100
    connections: int = 4096
    keep_alive_seconds: float = 75
    drain_seconds: float = 10


class ServerSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """
    How the server is reached and what it tells.

    Attributes:
        listen: ``HOST:PORT``; left out, the port of the issuer on loopback.
        admin_listen: ``HOST:PORT`` of metrics and probes; left out, 127.0.0.1:9464 or, where
            that is taken, a free port.
        workers: how many processes share the listener.
        hosts: further host names that requests may name, beside those of the issuers.
        trusted_proxies: networks (CIDR) whose ``X-Forwarded-For`` is believed.
        log_level: ``debug``, ``info``, ``warning`` or ``error``.
        access_log: whether each request is logged; it costs a tenth of the throughput.
    """

    listen: str | None = None
    admin_listen: str | None = None
    workers: int = 1
    hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    log_level: str = "info"
    access_log: bool = False


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The settings of one installation.

    Attributes:
        data: the data folder; not part of the file.
        issuer: the issuer of the tenant ``default``, byte for byte.
        store: URL of the database.
        ring: URL of the protection ring.
        wrapper: what wraps the ring's keys; ``None`` only while nothing is made yet.
        application: the ring's application discriminator.
        demo: whether this is a demo world.
        earlier_issuers: issuers whose living tokens are accepted as well.
        tenants: host names by tenant id, for tenants that answer on their own host.
        server, limits, throttle: see their types.
    """

    data: Path = msgspec.field(default=Path())
    issuer: str
    store: str = DEFAULT_STORE
    ring: str = DEFAULT_RING
    wrapper: str | None = None
    application: str = DEFAULT_APPLICATION
    demo: bool = False
    earlier_issuers: tuple[str, ...] = ()
    tenants: Mapping[str, str] = msgspec.field(default_factory=dict)
    server: ServerSettings = msgspec.field(default_factory=ServerSettings)
    limits: Limits = msgspec.field(default_factory=Limits)
    throttle: ThrottleLimits = msgspec.field(default_factory=ThrottleLimits)

    @property
    def file(self) -> Path:
        """
        The file that these settings lie in.
        """
        return self.data / FILE_NAME

    @property
    def store_url(self) -> str:
        """
        The URL of the database, with the folder put in.
        """
        return self._expand(self.store)

    @property
    def ring_url(self) -> str:
        """
        The URL of the protection ring, with the folder put in.
        """
        return self._expand(self.ring)

    @property
    def wrapper_url(self) -> str | None:
        """
        What wraps the ring's keys, with the folder put in.
        """
        return None if self.wrapper is None else self._expand(self.wrapper)

    def _expand(self, url: str) -> str:
        return url.replace("{data}", quote(str(self.data)))

    def validate(self) -> Settings:
        """
        Return these settings if they can be right.

        Raises:
            ConfigError: with the sentence that says which value cannot be, and why.
        """
        for issuer in (self.issuer, *self.earlier_issuers):
            check_issuer(issuer)
        for name in ("store", "ring", "wrapper"):
            check_no_password(name, getattr(self, name) or "")
        for tenant, host in self.tenants.items():
            if not TENANT.fullmatch(tenant) or not HOST.fullmatch(host):
                raise ConfigError(
                    f"The host of tenant {tenant!r} cannot be {host!r}.",
                    hint='Write tenants as: name = "host.example", without scheme or port.',
                )
        _check_server(self.server)
        _check_positive("limits", self.limits)
        _check_positive("throttle", self.throttle)
        if self.limits.form_fields < 10 or self.limits.body_bytes < 1024:
            raise ConfigError(
                "limits.form_fields below 10 or limits.body_bytes below 1024 leaves no room "
                "for a request.",
                hint="Raise the limit or leave it out.",
            )
        if self.demo:
            _check_demo(self)
        return self


def _check_server(server: ServerSettings) -> None:
    for text in (server.listen, server.admin_listen):
        if text is not None:
            parse_listen(text)
    if not 1 <= server.workers <= 256:
        raise ConfigError(
            "server.workers must lie between 1 and 256.",
            hint="One for each core is a good start.",
        )
    if server.log_level not in {"debug", "info", "warning", "error"}:
        raise ConfigError(
            f"server.log_level cannot be {server.log_level!r}.",
            hint="Use debug, info, warning or error.",
        )
    for host in server.hosts:
        if not HOST.fullmatch(host):
            raise ConfigError(
                f"server.hosts cannot hold {host!r}.",
                hint="Write host names in lower case, without scheme or port.",
            )
    for network in server.trusted_proxies:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            raise ConfigError(
                f"server.trusted_proxies cannot hold {network!r}.",
                hint="Write a network as CIDR, such as 10.0.0.0/8.",
            ) from None


def _check_positive(name: str, limits: msgspec.Struct) -> None:
    for field in limits.__struct_fields__:
        value = getattr(limits, field)
        if isinstance(value, int | float) and value <= 0:
            raise ConfigError(
                f"{name}.{field} must be greater than 0.",
                hint="Leave it out for the default.",
            )


def _check_demo(settings: Settings) -> None:
    hosts = [urlsplit(settings.issuer).hostname or ""]
    if settings.server.listen is not None:
        hosts.append(parse_listen(settings.server.listen)[0])
    for host in hosts:
        if not is_loopback(host):
            raise InsecureConfigError(
                f"The demo world answers on this machine only, not on {host or '*'}.",
                hint="Its users and secrets are published. For a real one: kagimori init "
                "--issuer URL --wrapper URL.",
                host=host or "*",
            )
