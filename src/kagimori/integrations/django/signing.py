"""
Django's signing on a ring: ``SIGNING_BACKEND = "kagimori.integrations.django.signing.RingSigner"``.

The backend serves ``response.set_signed_cookie`` and ``request.get_signed_cookie``. Django's own
``signing.dumps`` and ``loads`` go by ``SECRET_KEY`` whatever the backend is; `dumps` and `loads`
of this module take their place.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.signing import BadSignature, JSONSerializer, TimestampSigner

from kagimori.crypto.digests import equal, sha256
from kagimori.errors import ProtectionError
from kagimori.integrations.django.ring import ring

_PURPOSE = "kagimori.django.signing.v1"


class RingSigner(TimestampSigner):
    """
    A `TimestampSigner` whose signatures a key ring seals. Values stay readable, as in Django.

    With ``KAGIMORI_READ_OLD_SIGNATURES = True`` it accepts what ``SECRET_KEY`` signed, too; what
    it writes is sealed by the ring either way.
    """

    def signature(self, value: str, key: object = None) -> str:
        """
        Return the seal of a value.

        Raises:
            KeyRingError: no key can protect now.
        """
        protector = ring().protector(_PURPOSE, self.salt)
        return protector.protect(sha256(value.encode()))

    def unsign(self, value: str, max_age: float | timedelta | None = None) -> str:
        """
        Return the value that was signed.

        Raises:
            SignatureExpired: it is older than `max_age` seconds (a `BadSignature` too).
            BadSignature: it was changed, or signed by nobody of ours.
            ProtectionError: the ring could not be asked at the moment; it is `transient`.
        """
        body, _, seal = value.rpartition(self.sep)
        protector = ring().protector(_PURPOSE, self.salt)
        try:
            sealed = protector.unprotect(seal).payload
        except ProtectionError as error:
            if error.transient:
                raise
            if getattr(settings, "KAGIMORI_READ_OLD_SIGNATURES", False):
                return self._old().unsign(value, max_age)
            raise BadSignature("The signature does not match.") from None
        if not equal(sealed, sha256(body.encode())):
            raise BadSignature("The signature does not match.")
        # Django's own class checks the age; it is handed a signature of its own.
        old = self._old()
        return old.unsign(f"{body}{self.sep}{old.signature(body)}", max_age)

    def _old(self) -> TimestampSigner:
        # Django gives an iterator, which would be empty the second time.
        self.fallback_keys: list[str | bytes] = list(self.fallback_keys)
        return TimestampSigner(
            key=self.key,
            sep=self.sep,
            salt=self.salt,
            algorithm=self.algorithm,
            fallback_keys=self.fallback_keys,
        )


def dumps(
    obj: object,
    salt: str = "django.core.signing",
    serializer: type[JSONSerializer] = JSONSerializer,
    *,
    compress: bool = False,
) -> str:
    """
    Return a text that holds an object, as `django.core.signing.dumps` does.

    Raises:
        KeyRingError: no key can protect now.
    """
    signed: str = RingSigner(salt=salt).sign_object(
        obj, serializer=serializer, compress=compress
    )
    return signed


def loads(
    signed: str,
    salt: str = "django.core.signing",
    serializer: type[JSONSerializer] = JSONSerializer,
    max_age: float | timedelta | None = None,
) -> Any:
    """
    Return the object of `dumps`, as `django.core.signing.loads` does.

    Raises:
        SignatureExpired: it is older than `max_age` seconds (a `BadSignature` too).
        BadSignature: it was changed, or signed by nobody of ours.
        ProtectionError: the ring could not be asked at the moment; it is `transient`.
    """
    return RingSigner(salt=salt).unsign_object(
        signed, serializer=serializer, max_age=max_age
    )
