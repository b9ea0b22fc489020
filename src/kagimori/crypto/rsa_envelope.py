"""
The cryptography of an XML Encryption envelope: RSA key transport and AES-256-CBC.

`aspnet-data-protection.md` 3.2. The envelope carries no tag: its integrity rests on who may
write where it lies. So everything that does not fit is one error.
"""

from __future__ import annotations

from secrets import token_bytes

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from kagimori.crypto.aead import BLOCK_BYTES, cbc_decrypt_raw, cbc_encrypt
from kagimori.errors import KeyWrapError, ProtectionError

DATA_KEY_BYTES = 32

# RSA-OAEP with SHA-1 is what xmlenc#rsa-oaep-mgf1p means; .NET reads nothing newer. OAEP does
# not rest on the collision resistance that SHA-1 has lost.
_OAEP = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)  # noqa: S303 - see above


def seal(public_key: rsa.RSAPublicKey, plaintext: bytes) -> tuple[bytes, bytes]:
    """
    Encrypt under a fresh data key.

    Returns:
        The data key encrypted by RSA-OAEP, and IV || AES-256-CBC ciphertext.
    """
    data_key = token_bytes(DATA_KEY_BYTES)
    iv = token_bytes(BLOCK_BYTES)
    return public_key.encrypt(data_key, _OAEP), iv + cbc_encrypt(
        data_key, iv, plaintext
    )


def open_(
    private_key: rsa.RSAPrivateKey, wrapped: bytes, data: bytes, *, is_oaep: bool
) -> bytes:
    """
    Decrypt an envelope; padding is ISO 10126, of which PKCS#7 is a special case.

    Args:
        is_oaep: the key transport: RSA-OAEP, else PKCS#1 v1.5 as .NET writes it.

    Raises:
        KeyWrapError: another key, or an altered envelope.
    """
    scheme = _OAEP if is_oaep else padding.PKCS1v15()
    try:
        data_key = private_key.decrypt(wrapped, scheme)
        iv, ciphertext = data[:BLOCK_BYTES], data[BLOCK_BYTES:]
        padded = cbc_decrypt_raw(data_key, iv, ciphertext)
    except (ValueError, ProtectionError):
        # From None: what the primitives say may depend on the plaintext.
        raise _not_opened() from None
    # With implicit rejection a wrong key "succeeds" with random bytes of random length.
    if len(data_key) != DATA_KEY_BYTES or not 1 <= padded[-1] <= BLOCK_BYTES:
        raise _not_opened()
    return padded[: -padded[-1]]


def _not_opened() -> KeyWrapError:
    return KeyWrapError("The certificate's private key does not open the envelope.")
