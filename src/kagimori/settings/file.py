"""
Where the settings come from and go to: folder, file, environment.

Rules of this module:

1. ``DATA/kagimori.toml`` holds references only; see `kagimori.settings.checks`.
2. Where data lies (store, ring, wrapper, issuer) is said by the file alone: a variable left over
   in some environment never leads a server to another ring. How it is served (listeners, limits)
   may be said by the environment too, which wins.
3. The file is written whole or not at all, readable by its owner only.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from kagimori.errors import ConfigError, InsecureConfigError
from kagimori.oauth.throttle import ThrottleLimits
from kagimori.settings.values import FILE_NAME, Limits, ServerSettings, Settings

DATA_VARIABLE = "KAGIMORI_DATA"
DEFAULT_DATA = "kagimori-data"


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
        _sync_folder(path.parent)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise ConfigError(
            f"{path} cannot be written: {exc.strerror}.",
            hint="Check that the folder is yours, writable, and not full.",
            path=str(path),
        ) from None


def _sync_folder(folder: Path) -> None:
    # Without it a power cut may leave keys and a database, and no file that names them.
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
