"""
What an installation is told: its folder, its file, its environment.

Settings hold references only, never a secret.
"""

from kagimori.settings.checks import (
    LOOPBACK_NAMES,
    check_issuer,
    check_no_password,
    is_loopback,
    parse_listen,
)
from kagimori.settings.file import (
    DATA_VARIABLE,
    DEFAULT_DATA,
    data_folder,
    read_settings,
    to_toml,
    with_environment,
    write_settings,
)
from kagimori.settings.values import (
    DEFAULT_APPLICATION,
    DEFAULT_RING,
    DEFAULT_STORE,
    FILE_NAME,
    Limits,
    ServerSettings,
    Settings,
)

__all__ = [
    "DATA_VARIABLE",
    "DEFAULT_APPLICATION",
    "DEFAULT_DATA",
    "DEFAULT_RING",
    "DEFAULT_STORE",
    "FILE_NAME",
    "LOOPBACK_NAMES",
    "Limits",
    "ServerSettings",
    "Settings",
    "check_issuer",
    "check_no_password",
    "data_folder",
    "is_loopback",
    "parse_listen",
    "read_settings",
    "to_toml",
    "with_environment",
    "write_settings",
]
