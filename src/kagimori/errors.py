"""
Every error that Kagimori raises on purpose.

Rules of this module:

1. An error has three readers and a field for each: ``text`` may leave the process, ``hint``
   tells the operator what to do, ``detail`` goes to the log. None of them ever holds a key,
   a secret, a token or a hash of one.
2. ``code`` is stable: scripts, the catalogue of translations and the documentation name it.
   ``params`` fills the translated text, so it is bound by rule 1 too.
3. The domain raises domain errors; only the face (HTTP, CLI) maps them to statuses and exit codes.
4. An error that stems from secret bytes is raised ``from None``: a chained parser error may
   quote what it parsed.
"""

from __future__ import annotations

from typing import ClassVar


class KagimoriError(Exception):
    """
    The root of every error that Kagimori raises on purpose.

    Args:
        text: one sentence for whoever called, free of secrets.
        hint: what the operator can do about it.
        detail: what happened underneath, for the log only.
        params: values that the translated text names.
    """

    code: ClassVar[str] = "error"

    def __init__(
        self,
        text: str = "",
        *,
        hint: str = "",
        detail: str = "",
        **params: str,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint
        self.detail = detail
        self.params = params

    def __str__(self) -> str:
        return f"{self.text} {self.hint}".strip() if self.hint else self.text


class FaultError(KagimoriError):
    """
    Something outside did not do what was asked: a store, a vault. It may pass by itself.

    Args:
        transient: whether the same call may succeed later.
        retry_after: seconds to wait before that, where whoever was asked said so.
    """

    code = "fault"

    def __init__(
        self,
        text: str = "",
        *,
        hint: str = "",
        detail: str = "",
        transient: bool = False,
        retry_after: float | None = None,
        **params: str,
    ) -> None:
        super().__init__(text, hint=hint, detail=detail, **params)
        self.transient = transient
        self.retry_after = retry_after


# --- configuration -------------------------------------------------------------------------


class ConfigError(KagimoriError):
    """
    A setting is missing, malformed, or contradicts another one.
    """

    code = "config"


class InsecureConfigError(ConfigError):
    """
    A setting would work but is refused because it is unsafe (attacks K10, K11).
    """

    code = "config.insecure"


class RefusedError(KagimoriError):
    """
    An operator's verb was understood and refused; the text says why and what is possible.
    """

    code = "refused"


class NotFoundError(KagimoriError):
    """
    What an operator's verb names does not exist.
    """

    code = "not_found"


# --- JOSE ----------------------------------------------------------------------------------


class JoseError(KagimoriError):
    """
    The root of everything that `kagimori.crypto` refuses.
    """

    code = "jose"


class InvalidKeyError(JoseError):
    """
    A JWK or JWK Set is malformed, weak, or meant for another purpose.
    """

    code = "jose.invalid_key"


class UnsupportedAlgorithmError(JoseError):
    """
    An algorithm is unknown, not offered, or not the key's own.
    """

    code = "jose.unsupported_algorithm"


class InvalidJwsError(JoseError):
    """
    A compact JWS is malformed or its signature does not verify.
    """

    code = "jose.invalid_jws"


# --- tokens --------------------------------------------------------------------------------


class InvalidTokenError(KagimoriError):
    """
    A token was refused. Outwardly this is all there is; `detail` holds the reason.
    """

    code = "token.invalid"


class ExpiredTokenError(InvalidTokenError):
    """
    A token was sound but its time is over.
    """

    code = "token.expired"


class SigningUnavailableError(KagimoriError):
    """
    No token can be signed at this moment; the same request may succeed later.
    """

    code = "signing.unavailable"


# --- key rings -----------------------------------------------------------------------------


class KeyRingError(KagimoriError):
    """
    The root of what can go wrong with a ring of keys.
    """

    code = "ring"


class RingUnreadableError(KeyRingError):
    """
    A ring is there and cannot be read. Unreadable is not absent: nothing is minted in its place.
    """

    code = "ring.unreadable"


class RingMalformedError(RingUnreadableError):
    """
    The stored form of a ring violates its format. Trying again does not help.
    """

    code = "ring.malformed"


class RingMissingError(KeyRingError):
    """
    No ring is where one must be, and making one here was not asked for.
    """

    code = "ring.missing"


class RingReadOnlyError(KeyRingError):
    """
    A change was asked of a ring opened read-only.
    """

    code = "ring.read_only"


class KeyStateError(KeyRingError):
    """
    A verb does not apply to a key in its present state; the text names the state and the way.
    """

    code = "key.state"


class NextKeyWaitsError(KeyStateError):
    """
    A NEXT key of this algorithm is waiting already, so another one was not made.
    """

    code = "key.next_waits"


class NotPropagatedError(KeyStateError):
    """
    A key cannot sign yet: verifiers may not have fetched it.
    """

    code = "key.not_propagated"


class ClockBehindError(KeyRingError):
    """
    The clock stands before the last change of the ring: a date written now could be wrong.
    """

    code = "ring.clock_behind"


class KeyWrapError(FaultError, KeyRingError):
    """
    A wrapping key refused, is wrong, or gave back something else. Permanent unless `transient`.
    """

    code = "wrapper"


# --- storage -------------------------------------------------------------------------------


class StoreError(FaultError):
    """
    A store did not do what was asked. Permanent unless `transient`.
    """

    code = "store"


class ConflictError(StoreError):
    """
    Somebody else changed what this write expected: nothing of it was written.
    """

    code = "store.conflict"


class ContentionError(StoreError):
    """
    The commit loop lost too many times in a row; the caller may retry later.
    """

    code = "store.contention"


class SchemaError(StoreError):
    """
    The database's schema is newer than this program reads, or not yet migrated.
    """

    code = "store.schema"


class RestoredError(KagimoriError):
    """
    A ring or a database is older than its data folder remembers: a backup was restored (K7).
    """

    code = "restored"


# --- protection ----------------------------------------------------------------------------


class ProtectionError(FaultError):
    """
    A payload could not be unprotected. One class and one text outward, whatever the reason.

    It is `transient` where its key could not be asked for at the moment.
    """

    code = "protection"


class UnknownKeyIdError(ProtectionError):
    """
    The payload names a key that the ring does not hold.
    """

    code = "protection.unknown_key"


class PayloadExpiredError(ProtectionError):
    """
    A time-limited payload was sound but its time is over.
    """

    code = "protection.expired"


# --- proving who one is --------------------------------------------------------------------


class BusyError(KagimoriError):
    """
    So much work of a costly kind is waiting that more is not taken on; try again in a moment.
    """

    code = "busy"


class ThrottledError(KagimoriError):
    """
    Too many attempts failed lately (requirements TOK-16).

    Args:
        retry_after: seconds until the next attempt may be made.
    """

    code = "throttled"

    def __init__(self, text: str = "", *, retry_after: int, detail: str = "") -> None:
        super().__init__(text, detail=detail)
        self.retry_after = retry_after


# --- the wire ------------------------------------------------------------------------------


class OAuthError(KagimoriError):
    r"""
    An error answer of an OAuth endpoint (RFC 6749 section 5.2).

    Args:
        error: the registered error code.
        description: printable ASCII without ``"`` and ``\`` (TOK-5).
        status: the HTTP status.
        challenge: the value of ``WWW-Authenticate``, where one is due.
        retry_after: seconds, where trying later makes sense.
        detail: the true reason, for the audit log only.
    """

    code = "oauth"

    def __init__(
        self,
        error: str,
        description: str = "",
        *,
        status: int = 400,
        challenge: str | None = None,
        retry_after: int | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(description or error, detail=detail)
        self.error = error
        self.description = description
        self.status = status
        self.challenge = challenge
        self.retry_after = retry_after
