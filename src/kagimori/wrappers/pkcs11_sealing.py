"""
The two mechanisms by which a token wraps a data key, and what either makes.
"""

from __future__ import annotations

from secrets import token_bytes
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pkcs11

GCM = "aes-gcm"
KEY_WRAP = "aes-key-wrap"

_NONCE, _TAG, _DATA_KEY = 12, 16, 32

MARKS = {GCM: b"\x01", KEY_WRAP: b"\x02"}
"""The first byte of what was wrapped: by which mechanism."""

LENGTHS = {GCM: 1 + _NONCE + _DATA_KEY + _TAG, KEY_WRAP: 1 + _DATA_KEY + 8}


class AesKey(Protocol):
    """
    What is used of a secret key of python-pkcs11.
    """

    @property
    def label(self) -> str:
        """
        CKA_LABEL.
        """
        ...

    @property
    def id(self) -> bytes:
        """
        CKA_ID.
        """
        ...

    def __getitem__(self, attribute: pkcs11.Attribute) -> object: ...

    def encrypt(
        self, data: bytes, *, mechanism: pkcs11.Mechanism, mechanism_param: object
    ) -> bytes:
        """
        Call C_Encrypt.
        """
        ...

    def decrypt(
        self, data: bytes, *, mechanism: pkcs11.Mechanism, mechanism_param: object
    ) -> bytes:
        """
        Call C_Decrypt.
        """
        ...

    def wrap_key(self, key: pkcs11.Object, *, mechanism: pkcs11.Mechanism) -> bytes:
        """
        Call C_WrapKey.
        """
        ...

    def unwrap_key(
        self,
        object_class: pkcs11.ObjectClass,
        key_type: pkcs11.KeyType,
        key_data: bytes,
        *,
        mechanism: pkcs11.Mechanism,
        store: bool,
        template: dict[pkcs11.Attribute, object],
    ) -> pkcs11.Object:
        """
        Call C_UnwrapKey.
        """
        ...


def gcm_seal(key: AesKey, data_key: bytes, context: str) -> bytes:
    """
    Return a fresh nonce and what AES-GCM made of the data key, with the context as AAD.
    """
    from pkcs11 import GCMParams, Mechanism

    nonce = token_bytes(_NONCE)
    made = key.encrypt(
        data_key,
        mechanism=Mechanism.AES_GCM,
        mechanism_param=GCMParams(nonce, context.encode(), _TAG * 8),
    )
    return nonce + made


def gcm_open(key: AesKey, wrapped: bytes, context: str) -> bytes:
    """
    Return the data key of what `gcm_seal` made.
    """
    from pkcs11 import GCMParams, Mechanism

    nonce, sealed = wrapped[:_NONCE], wrapped[_NONCE:]
    return key.decrypt(
        sealed,
        mechanism=Mechanism.AES_GCM,
        mechanism_param=GCMParams(nonce, context.encode(), _TAG * 8),
    )


def key_wrap(session: pkcs11.Session, key: AesKey, data_key: bytes) -> bytes:
    """
    Return the data key wrapped as RFC 3394 has it; it is an object of the session meanwhile.
    """
    from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

    passing = session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.AES,
            Attribute.TOKEN: False,
            Attribute.SENSITIVE: False,
            Attribute.EXTRACTABLE: True,
            Attribute.VALUE: data_key,
        }
    )
    try:
        return key.wrap_key(passing, mechanism=Mechanism.AES_KEY_WRAP)
    finally:
        passing.destroy()


def key_unwrap(key: AesKey, wrapped: bytes) -> bytes:
    """
    Return the data key of what `key_wrap` made.
    """
    from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

    passing = key.unwrap_key(
        ObjectClass.SECRET_KEY,
        KeyType.AES,
        wrapped,
        mechanism=Mechanism.AES_KEY_WRAP,
        store=False,
        template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True},
    )
    try:
        return bytes(passing[Attribute.VALUE])
    finally:
        passing.destroy()
