"""
Keys of custom configurations, as an ASP.NET Core application would have written them.
"""

from __future__ import annotations

from pathlib import Path

from kagimori.keys.protection import elements, ticks, xml
from kagimori.keys.protection.algorithms import (
    ALGORITHMS,
    TRIPLE_DES,
    ProtectionAlgorithm,
)
from kagimori.keys.protection.descriptor import null_wrap, secret_text

MODEL = "Microsoft.AspNetCore.DataProtection.AuthenticatedEncryption.ConfigurationModel"
CRYPTOGRAPHY = "System.Security.Cryptography"
VERSION = "Version=8.0.0.0, Culture=neutral, PublicKeyToken=b03f5f7f11d50a3a"
KEY_ID = "0f0e0d0c-0b0a-4948-8746-050403020100"


def outer(kind: str, inner: str) -> xml.Element:
    """
    Return an outer ``<descriptor>`` around the content of the inner one.
    """
    name = f"{MODEL}.{kind}AuthenticatedEncryptorDescriptorDeserializer"
    return xml.parse(
        f'<descriptor deserializerType="{name}, Some.Assembly, {VERSION}">'
        f"<descriptor>{inner}</descriptor></descriptor>"
    )


def managed(cipher: str, bits: int, mac: str) -> xml.Element:
    """
    Return the descriptor of a managed configuration, without its secret.
    """
    return outer(
        "Managed",
        f'<encryption algorithm="{cipher}" keyLength="{bits}" />'
        f'<validation algorithm="{mac}" />',
    )


def of_type(name: str) -> str:
    """
    Return a .NET type name as a descriptor holds it.
    """
    return f"{CRYPTOGRAPHY}.{name}, {CRYPTOGRAPHY}.Algorithms, {VERSION}"


def write_key(place: Path, row: ProtectionAlgorithm) -> None:
    """
    Put one clear key of an algorithm into a ring's folder, good from 2029 to 2039.
    """
    dates = [ticks.parse(f"{year}-12-01T00:00:00Z") for year in (2029, 2029, 2039)]
    clear = null_wrap(secret_text(bytes(range(64))))
    template = ALGORITHMS.get(row.name, ALGORITHMS["AES_256_CBC_HMACSHA256"])
    root = elements.key_element(KEY_ID, (dates[0], dates[1], dates[2]), template, clear)
    if row.name not in ALGORITHMS:
        cipher = of_type("TripleDES") if row.cipher == TRIPLE_DES else "Aes"
        mac = f"HMAC{row.mac.upper()}"
        custom = managed(cipher, row.key_bytes * 8, mac)
        found = root.find("descriptor")
        assert found is not None
        found.set("deserializerType", custom.get("deserializerType", ""))
        for tag in ("encryption", "validation"):
            old, new = found.find(f"descriptor/{tag}"), custom.find(f"descriptor/{tag}")
            assert old is not None
            assert new is not None
            old.attrib.clear()
            old.attrib.update(new.attrib)
    place.mkdir(parents=True, exist_ok=True)
    (place / f"key-{KEY_ID}.xml").write_text(xml.write(root), "utf-8")
