"""
Certificates named by an address: which files hold them, and by what password.

    certificate:/path     .pfx, .p12 or PEM; options, joined by &:
       ?password=… password-env=NAME password-file=/path
       key=/key.pem       the private key, where it lies apart
       also=/old.pfx      another certificate, for reading; repeatable
"""

from __future__ import annotations

from pathlib import Path

from kagimori.addresses import Address, absolute_path, secret_names
from kagimori.crypto.pkcs12 import load_identity
from kagimori.events import EventSink
from kagimori.secret_sources import read_file, warn_of_mode
from kagimori.wrappers.certificate import CertificateWrapper

_MOST_CERTIFICATE = 1024 * 1024


def open_wrapper(address: Address, events: EventSink) -> CertificateWrapper:
    """
    Return the wrapper of a ``certificate:`` address.

    Raises:
        ConfigError: the address is malformed, or a file that it names is missing.
        KeyWrapError: a certificate cannot be read.
    """
    address.allow(*secret_names("password"), "key", "also")
    path = absolute_path(address.path, "A certificate's file")
    password = address.secret("password")
    data = read_file(path, _MOST_CERTIFICATE)
    warn_of_mode(path, events)
    for key_path in _paths(address, "key", "A private key's file"):
        data = data + b"\n" + read_file(key_path, _MOST_CERTIFICATE)
        warn_of_mode(key_path, events)
    also = [
        load_identity(read_file(other, _MOST_CERTIFICATE), password)
        for other in _paths(address, "also", "A certificate's file")
    ]
    if "password-file" in address.options:
        warn_of_mode(Path(address.option("password-file") or ""), events)
    return CertificateWrapper(load_identity(data, password), also)


def named_files(address: Address) -> tuple[Path, ...]:
    """
    Return every file that the address names: the certificate's first.

    Raises:
        ConfigError: a path is not absolute.
    """
    return (
        absolute_path(address.path, "A certificate's file"),
        *_paths(address, "key", "A private key's file"),
        *_paths(address, "also", "A certificate's file"),
        *_paths(address, "password-file", "A password's file"),
    )


def _paths(address: Address, option: str, what: str) -> list[Path]:
    return [absolute_path(value, what) for value in address.options.get(option, ())]
