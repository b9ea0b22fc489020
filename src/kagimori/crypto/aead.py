"""
Authenticated encryption: AES-GCM, and AES-CBC with HMAC as ASP.NET Core Data Protection has it.

Rules of this module:

1. Nothing here chooses a nonce, an IV or a key: the caller does, and never uses one twice.
2. The tag is verified, in constant time, before a byte is decrypted.
3. Whatever is wrong with the input, there is one error class and one text.
"""

from __future__ import annotations

import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from kagimori.errors import ProtectionError

NONCE_BYTES = 12
TAG_BYTES = 16
BLOCK_BYTES = 16

REFUSED = "The payload is not valid here."
"""The one text of every refusal: which check failed is nobody's business."""


def gcm_seal(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes = b"") -> bytes:
    """
    Return the ciphertext and the 16-byte tag of AES-GCM (NIST SP 800-38D).

    Args:
        key: 16, 24 or 32 bytes.
        nonce: 12 bytes that this key has never seen.
        aad: authenticated, not encrypted.
    """
    return AESGCM(key).encrypt(nonce, plaintext, aad)


def gcm_open(key: bytes, nonce: bytes, data: bytes, aad: bytes = b"") -> bytes:
    """
    Verify and decrypt what `gcm_seal` made.

    Raises:
        ProtectionError: the tag does not verify, or the data are too short to hold one.
    """
    try:
        return AESGCM(key).decrypt(nonce, data, aad)
    except (InvalidTag, ValueError):
        raise ProtectionError(REFUSED, detail="AES-GCM tag does not verify") from None


def cbc_hmac_seal(
    key: bytes, mac_key: bytes, iv: bytes, plaintext: bytes, *, mac: str
) -> bytes:
    """
    Return the AES-CBC-PKCS#7 ciphertext and the HMAC over IV and ciphertext.

    Args:
        key: 16, 24 or 32 bytes.
        iv: 16 random bytes.
        mac: the digest of the HMAC, such as ``sha256``.
    """
    ciphertext = cbc_encrypt(key, iv, plaintext)
    return ciphertext + hmac.digest(mac_key, iv + ciphertext, mac)


def cbc_hmac_open(
    key: bytes, mac_key: bytes, iv: bytes, data: bytes, *, mac: str, tag_bytes: int
) -> bytes:
    """
    Verify and decrypt what `cbc_hmac_seal` made.

    Raises:
        ProtectionError: the tag does not verify, or the data cannot be such a ciphertext.
    """
    ciphertext, tag = data[:-tag_bytes], data[-tag_bytes:]
    expected = hmac.digest(mac_key, iv + ciphertext, mac)
    # CVE-2026-40372: the tag is compared over its whole length, with what was computed here.
    if len(tag) != tag_bytes or not hmac.compare_digest(expected, tag):
        raise ProtectionError(REFUSED, detail="HMAC does not verify")
    return cbc_decrypt(key, iv, ciphertext)


def cbc_encrypt(key: bytes, iv: bytes, plaintext: bytes) -> bytes:
    """
    Encrypt by AES-CBC with PKCS#7 padding. Alone it protects nothing: it carries no tag.
    """
    fill = BLOCK_BYTES - len(plaintext) % BLOCK_BYTES
    encryptor = Cipher(AES(key), CBC(iv)).encryptor()
    padded = plaintext + bytes((fill,)) * fill
    return encryptor.update(padded) + encryptor.finalize()


def cbc_decrypt(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    """
    Decrypt AES-CBC with PKCS#7 padding; only ever after a tag over it was verified.

    Raises:
        ProtectionError: length or padding are wrong.
    """
    padded = cbc_decrypt_raw(key, iv, ciphertext)
    fill = padded[-1]
    if not 1 <= fill <= BLOCK_BYTES or padded[-fill:] != bytes((fill,)) * fill:
        raise ProtectionError(REFUSED, detail="PKCS#7 padding is wrong")
    return padded[:-fill]


def cbc_decrypt_raw(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    """
    Decrypt AES-CBC and leave the padding on.

    Raises:
        ProtectionError: the ciphertext is empty or not whole blocks.
    """
    if not ciphertext or len(ciphertext) % BLOCK_BYTES:
        raise ProtectionError(REFUSED, detail="ciphertext is not whole blocks")
    decryptor = Cipher(AES(key), CBC(iv)).decryptor()
    return decryptor.update(ciphertext) + decryptor.finalize()
