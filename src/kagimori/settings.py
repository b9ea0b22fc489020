"""
What an installation is told: its folder, its file, its environment.

Rules of this module:

1. ``DATA/kagimori.toml`` holds references only. A literal password in any URL is refused, here
   and wherever a setting is written.
2. Where data lies (store, ring, wrapper, issuer) is said by the file alone: a variable left over
   in some environment never leads a server to another ring. How it is served (listeners, limits)
   may be said by the environment too, which wins.
3. Values that cannot be right together are refused with the sentence that says why.
4. ``{data}`` in a URL stands for the folder, so that a folder may be moved.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec

from kagimori.errors import ConfigError, InsecureConfigError
from kagimori.oauth.throttle import ThrottleLimits

FILE_NAME = "kagimori.toml"
DATA_VARIABLE = "KAGIMORI_DATA"
DEFAULT_DATA = "kagimori-data"
DEFAULT_APPLICATION = "kagimori"
DEFAULT_STORE = "sqlite://{data}/kagimori.db"
DEFAULT_RING = "file://{data}/ring"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,252})|[0-9a-f:.]{2,45}")
_TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

T = TypeVar("T")


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
            if not _TENANT.fullmatch(tenant) or not _HOST.fullmatch(host):
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


# --- checks --------------------------------------------------------------------------------


def check_issuer(issuer: str) -> None:
    """
    Refuse an issuer that RFC 8414 section 2 does not allow, or that could be written twice.

    Raises:
        ConfigError: the issuer cannot be one.
    """
    parts = urlsplit(issuer)
    try:
        port = parts.port
    except ValueError:
        port = -1
    host = parts.hostname or ""
    canonical = f"[{host}]" if ":" in host else host
    if port not in (None, -1):
        canonical += f":{port}"
    sound = (
        parts.scheme in ("http", "https")
        and _HOST.fullmatch(host)
        and canonical == parts.netloc
        and port not in (-1, 0)
        and not parts.query
        and not parts.fragment
        and not issuer.endswith(("/", "?", "#"))
        and "%" not in parts.path
        and "//" not in parts.path
        and issuer.isascii()
        and issuer.isprintable()
        and " " not in issuer
    )
    if not sound:
        raise ConfigError(
            f"The issuer {issuer!r} cannot be used.",
            hint="Give an address such as https://login.example.com: lower case, without a "
            "slash at the end, query, fragment or user.",
            issuer=issuer,
        )
    if parts.scheme == "http" and not is_loopback(host):
        raise InsecureConfigError(
            f"The issuer {issuer!r} is plain http and not on this machine.",
            hint="Use https; plain http is for loopback addresses only (RFC 8414).",
            issuer=issuer,
        )


def is_loopback(host: str) -> bool:
    """
    Whether a host name or address is this machine's loopback.
    """
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_no_password(name: str, url: str) -> None:
    """
    Refuse a URL that holds a literal password: settings hold references only.

    Raises:
        InsecureConfigError: there is one. The text does not repeat it.
    """
    _, _, query = url.partition("?")
    keys = {key.lower() for key, _ in parse_qsl(query, keep_blank_values=True)}
    secret = keys & {"password", "passphrase", "secret", "token", "key", "pin"}
    try:
        literal = urlsplit(url).password is not None
    except ValueError:
        raise ConfigError(
            f"The setting {name} is no URL.", hint="See `kagimori init --help`."
        ) from None
    if secret or literal:
        raise InsecureConfigError(
            f"The setting {name} holds a literal password.",
            hint="Name where it is instead: password-env=NAME or password-file=PATH; a "
            "database's password comes from PGPASSFILE or the environment.",
            setting=name,
        )


def parse_listen(text: str) -> tuple[str, int]:
    """
    Return host and port of ``HOST:PORT``, ``[v6]:PORT`` or ``:PORT`` (all addresses).

    Raises:
        ConfigError: it is none of them.
    """
    host, separator, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not separator or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(
            f"{text!r} is no address to listen on.",
            hint="Write HOST:PORT, for example 127.0.0.1:3000 or [::1]:3000.",
        )
    return host, int(port)


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
        if not _HOST.fullmatch(host):
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


# --- folder, file, environment -------------------------------------------------------------


def data_folder(
    option: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Path:
    """
    Return the data folder: the option, else `KAGIMORI_DATA`, else ``./kagimori-data``.
    """
    env = os.environ if environ is None else environ
    return Path(option or env.get(DATA_VARIABLE) or DEFAULT_DATA).absolute()


def read_settings(folder: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """
    Return the settings of a data folder, with what the environment says of serving.

    Raises:
        ConfigError: there are none, they cannot be read, or they cannot be right.
    """
    path = folder / FILE_NAME
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno())
            text = file.read().decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"There is no installation in {folder}.",
            hint="Make one with `kagimori init --issuer URL --wrapper URL`, try "
            "`kagimori serve --demo`, or name another folder with --data.",
            folder=str(folder),
        ) from None
    except OSError as exc:
        raise ConfigError(
            f"{path} cannot be read: {exc.strerror}.",
            hint="Run as the user who owns the data folder.",
            path=str(path),
        ) from None
    except UnicodeDecodeError:
        raise _malformed(path, "it is not UTF-8") from None
    _check_owner(path, mode)
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise _malformed(path, str(exc)) from None
    table.pop("data", None)
    return _build(path, _overlay(table, environ)).validate()


def with_environment(
    settings: Settings, environ: Mapping[str, str] | None = None
) -> Settings:
    """
    Return settings that are not written yet, with what the environment says of serving.

    Raises:
        ConfigError: they cannot be right.
    """
    table: dict[str, Any] = tomllib.loads(to_toml(settings))
    return _build(settings.file, _overlay(table, environ)).validate()


def _build(path: Path, table: Mapping[str, Any]) -> Settings:
    unknown = set(table.get("throttle") or {}) - set(ThrottleLimits.__struct_fields__)
    if unknown:
        raise _malformed(path, f"throttle has no {min(unknown)}")
    try:
        settings = msgspec.convert(table, Settings)
    except msgspec.ValidationError as exc:
        # msgspec names the place and the types, never the value.
        raise _malformed(path, str(exc)) from None
    return msgspec.structs.replace(settings, data=path.parent)


def _malformed(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{path} cannot be understood: {reason}.",
        hint="Correct it, or leave the setting out for its default.",
        path=str(path),
        reason=reason,
    )


def _check_owner(path: Path, mode: os.stat_result) -> None:
    # Whoever can write this file can lead the server to another ring (attack K11).
    loose = stat.S_IMODE(mode.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)
    if loose or mode.st_uid not in (os.geteuid(), 0):
        raise InsecureConfigError(
            f"{path} can be changed by other users.",
            hint=f"Make it yours alone: chmod 600 {path}, and chown it to the server's user.",
            path=str(path),
        )


def _overlay(
    table: dict[str, Any], environ: Mapping[str, str] | None
) -> dict[str, Any]:
    env = os.environ if environ is None else environ
    sections: tuple[tuple[str, str, type[msgspec.Struct]], ...] = (
        ("server", "KAGIMORI_", ServerSettings),
        ("limits", "KAGIMORI_LIMITS_", Limits),
        ("throttle", "KAGIMORI_THROTTLE_", ThrottleLimits),
    )
    merged = dict(table)
    for section, prefix, kind in sections:
        found = dict(table.get(section) or {})
        for field in msgspec.structs.fields(kind):
            name = prefix + field.name.upper()
            if env.get(name):
                found[field.name] = _from_text(name, env[name], field.type)
        if found:
            merged[section] = found
    return merged


def _from_text(name: str, text: str, kind: Any) -> Any:
    value: Any = text
    if kind == tuple[str, ...]:
        value = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as exc:
        raise ConfigError(
            f"The variable {name} cannot be understood: {exc}.",
            hint="Unset it for the default.",
            variable=name,
        ) from None


# --- writing -------------------------------------------------------------------------------


def write_settings(settings: Settings) -> None:
    """
    Write the settings to their folder's file, whole or not at all, readable by its owner only.

    Raises:
        ConfigError: they cannot be right, or the folder does not take them.
    """
    settings.validate()
    path = settings.file
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(to_toml(settings))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise ConfigError(
            f"{path} cannot be written: {exc.strerror}.",
            hint="Check that the folder is yours, writable, and not full.",
            path=str(path),
        ) from None


def to_toml(settings: Settings) -> str:
    """
    Return the settings as TOML; what is left at its default is left out.
    """
    lines = [
        "# Kagimori's settings: references only, no secrets. {data} is this folder.",
        f"issuer = {_toml(settings.issuer)}",
        f"store = {_toml(settings.store)}",
        f"ring = {_toml(settings.ring)}",
    ]
    if settings.wrapper is not None:
        lines.append(f"wrapper = {_toml(settings.wrapper)}")
    lines.append(f"application = {_toml(settings.application)}")
    lines.append(f"demo = {_toml(settings.demo)}")
    if settings.earlier_issuers:
        lines.append(f"earlier_issuers = {_toml(settings.earlier_issuers)}")
    if settings.tenants:
        lines += ["", "[tenants]"]
        lines += [f"{name} = {_toml(host)}" for name, host in settings.tenants.items()]
    for name in ("server", "limits", "throttle"):
        lines += _table(name, getattr(settings, name))
    return "\n".join(lines) + "\n"


def _table(name: str, struct: msgspec.Struct) -> list[str]:
    default = type(struct)()
    lines = [
        f"{field} = {_toml(getattr(struct, field))}"
        for field in struct.__struct_fields__
        if getattr(struct, field) != getattr(default, field)
    ]
    return ["", f"[{name}]", *lines] if lines else []


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # A TOML basic string is a JSON string, but for DEL, which must be escaped.
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
