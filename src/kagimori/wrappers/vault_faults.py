"""
What the answers of a transit engine mean, in Vault's own words: which capability, which version.

Rules of this module:

1. The engine's texts decide before the status does: versions of Vault have answered the same
   mistake with 400 and with 500.
2. Nothing of a foreign answer is quoted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kagimori.errors import KeyWrapError
from kagimori.wrappers.sealing import UnopenableError
from kagimori.wrappers.vault_client import CONNECT_TIMEOUT, Answer, UntrustedError


class KeyAbsentError(KeyWrapError):
    """
    The engine has no such key.
    """


@dataclass(frozen=True, slots=True)
class Faults:
    """
    Makes the errors of one key.
    """

    path: str
    mount: str
    key: str
    server: str
    timeout: float

    def of_answer(
        self, verb: str, answer: Answer, *, is_known: Callable[[], bool]
    ) -> KeyWrapError:
        """
        Return what a refusal means.

        Args:
            verb: ``encrypt`` or ``decrypt``.
            is_known: asks whether the server knows the token at all.
        """
        said = " ".join(answer.errors)
        detail = f"HTTP {answer.status}"
        if answer.status in {400, 500}:
            told = self._of_text(verb, said, detail)
            if told is not None:
                return told
        if answer.status == 403:
            is_unknown = "invalid token" in said or not is_known()
            return self._denied(verb, detail, is_known=not is_unknown)
        if answer.status == 404:
            return KeyWrapError(
                f"There is no transit engine at {self.mount} of {self.server}.",
                hint=f"Check mount and namespace; vault secrets enable -path={self.mount} "
                "transit makes one.",
                detail=detail,
            )
        if answer.status == 429:
            return KeyWrapError(
                f"The transit key {self.path} is throttled by a rate limit quota.",
                hint="Raise the quota (sys/quotas/rate-limit), or open fewer rings at once.",
                detail=detail,
                transient=True,
                retry_after=answer.retry_after,
            )
        if 300 <= answer.status < 400:
            return KeyWrapError(
                f"{self.server} sends on to another server, which the token is not given to.",
                hint="Name the active node or the load balancer in the address.",
                detail=detail,
                transient=True,
            )
        if answer.status == 503 and "sealed" in said:
            return KeyWrapError(
                f"The Vault at {self.server} is sealed.",
                hint="Unseal it: vault operator unseal.",
                detail=detail,
                transient=True,
                retry_after=answer.retry_after,
            )
        is_passing = answer.status >= 500 or answer.status in {408, 412, 472, 473}
        return KeyWrapError(
            f"The transit key {self.path} of {self.server} could not {verb}.",
            hint="See the server's log; check that the address names a transit key.",
            detail=detail,
            transient=is_passing,
            retry_after=answer.retry_after if is_passing else None,
        )

    def unreached(self, error: Exception) -> KeyWrapError:
        """
        Return the error of a call that was not answered.
        """
        detail = type(error).__name__
        if isinstance(error, TimeoutError):
            return KeyWrapError(
                f"{self.server} did not answer within {self.timeout:g} s (connecting within "
                f"{CONNECT_TIMEOUT:g} s).",
                hint="Check the network and the server's load.",
                detail=detail,
                transient=True,
            )
        if isinstance(error, UntrustedError):
            return KeyWrapError(
                f"The certificate of {self.server} is not trusted.",
                hint="Name the authority that issued it: ca=/path.pem.",
                detail=detail,
            )
        if isinstance(error, ValueError):
            return KeyWrapError(
                "The Vault token is empty, or holds what no token holds.",
                hint="Check the variable or the file that it comes from.",
            )
        return KeyWrapError(
            f"{self.server} cannot be reached.",
            hint="Check the address, the network, and that the server runs.",
            detail=detail,
            transient=True,
        )

    def strange(self) -> KeyWrapError:
        """
        Return the error of an answer that no transit engine gives.
        """
        return KeyWrapError(
            f"{self.server} gave an answer that is none of a transit engine.",
            hint="Check the address: something else answers there.",
        )

    def _of_text(self, verb: str, said: str, detail: str) -> KeyWrapError | None:
        if "encryption key not found" in said:
            return KeyAbsentError(
                f"There is no transit key {self.path}.",
                hint=f"Check the address; vault write -f {self.mount}/keys/{self.key} makes "
                "one.",
                detail=detail,
            )
        if "disallowed by policy (too old)" in said:
            return KeyWrapError(
                f"The ring holds an entry of a version of the transit key {self.path} below "
                "its min_decryption_version.",
                hint=f"Lower it (vault write {self.mount}/keys/{self.key}/config "
                "min_decryption_version=…), rewrap the ring, then raise it again.",
                detail=detail,
            )
        if "invalid ciphertext" in said or "message authentication failed" in said:
            return UnopenableError(
                f"The transit key {self.path} does not open what the ring holds: it was "
                "wrapped by another key, or altered.",
                hint="Name the key that the ring was made with. If it is that one, restore "
                "the ring from a backup.",
                detail=detail,
            )
        if (
            "non-AEAD" in said
            or "key derivation" in said
            or "not supported for" in said
        ):
            return KeyWrapError(
                f"The transit key {self.path} is of a type that does not wrap for us.",
                hint="Make one of the type aes256-gcm96 or chacha20-poly1305, not derived: "
                f"vault write {self.mount}/keys/NAME type=aes256-gcm96.",
                detail=detail,
            )
        return None

    def _denied(self, verb: str, detail: str, *, is_known: bool) -> KeyWrapError:
        if not is_known:
            return KeyWrapError(
                f"{self.server} does not know the token, or it has expired.",
                hint="Renew it, or let Vault Agent write it to token-file=.",
                detail=detail,
            )
        path = f"{self.mount}/{verb}/{self.key}"
        return KeyWrapError(
            f"The token's policy lacks the capability update on {path}, or there is no such "
            "key or namespace.",
            hint=f'Add to its policy: path "{path}" {{ capabilities = ["update"] }}.',
            detail=detail,
        )
