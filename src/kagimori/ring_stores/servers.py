"""
What the addresses of servers have in common: a password, an authority, a driver's package.
"""

from __future__ import annotations

from pathlib import Path

from kagimori.addresses import Address, absolute_path
from kagimori.errors import ConfigError


def password_of(address: Address) -> str | None:
    """
    Return the password that an address holds, or names by ``password-env`` or ``-file``.

    Raises:
        ConfigError: it is named in several ways, or what is named is not there.
    """
    named = address.secret("password")
    if named is not None and address.password is not None:
        raise ConfigError(
            f"The password of the {address.scheme}: address is named in one way only."
        )
    return address.password if named is None else named.decode()


def authority_file(text: str) -> Path:
    """
    Return the path of a certificate authority's file.

    Raises:
        ConfigError: it is not absolute, or there is no such file.
    """
    path = absolute_path(text, "The file of a certificate authority")
    if not path.is_file():
        raise ConfigError(f"There is no certificate authority in {path}.")
    return path


def missing_package(package: str, extra: str) -> ConfigError:
    """
    Return the error of a package that is not installed.
    """
    return ConfigError(
        f"The package {package} is not installed.",
        hint=f"pip install 'kagimori[{extra}]'",
    )
