"""
Triple DES in CBC mode, for payloads of old custom configurations of ASP.NET Core only.

Blocks of 64 bits: no new ring uses it. Alone it protects nothing, for it carries no tag.
"""

from __future__ import annotations

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.modes import CBC

from kagimori.crypto.aead import REFUSED
from kagimori.errors import ProtectionError

BLOCK_BYTES = 8


def cbc_encrypt(key: bytes, iv: bytes, plaintext: bytes) -> bytes:
    """
    Encrypt with PKCS#7 padding.

    Args:
        key: 24 bytes, or 16 for two keys of which the first comes again.
        iv: 8 bytes.
    """
    fill = BLOCK_BYTES - len(plaintext) % BLOCK_BYTES
    encryptor = Cipher(TripleDES(_three(key)), CBC(iv)).encryptor()
    return encryptor.update(plaintext + bytes((fill,)) * fill) + encryptor.finalize()


def cbc_decrypt(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    """
    Decrypt with PKCS#7 padding; only ever after a tag over it was verified.

    Raises:
        ProtectionError: length or padding are wrong.
    """
    if not ciphertext or len(ciphertext) % BLOCK_BYTES:
        raise ProtectionError(REFUSED, detail="ciphertext is not whole blocks")
    decryptor = Cipher(TripleDES(_three(key)), CBC(iv)).decryptor()
    padded = decryptor.update(ciphertext) + decryptor.finalize()
    fill = padded[-1]
    if not 1 <= fill <= BLOCK_BYTES or padded[-fill:] != bytes((fill,)) * fill:
        raise ProtectionError(REFUSED, detail="PKCS#7 padding is wrong")
    return padded[:-fill]


def _three(key: bytes) -> bytes:
    return key + key[:8] if len(key) == 16 else key
