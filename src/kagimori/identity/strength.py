"""
What is too weak to be a secret (attacks K10).

Rules of this module:

1. Known words, sample secrets of specifications and this project's own demo words are refused,
   in any case and with digits or marks hung on.
2. Repetition and sequences count once: length alone is no strength.
3. Nothing refused is ever named in the error.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter

from kagimori.crypto.passwords import MAX_SECRET_BYTES
from kagimori.errors import InsecureConfigError

MIN_PASSWORD_LENGTH = 12
"""The fewest characters of a password."""

MIN_CLIENT_SECRET_LENGTH = 24
"""The fewest characters of a chosen client secret: a machine types it, not a person."""

MIN_PASSPHRASE_LENGTH = 16
"""The fewest characters of a passphrase that wraps a ring's keys."""

_PASSWORD_BITS = 30.0
_PASSPHRASE_BITS = 45.0
_CLIENT_SECRET_BITS = 50.0

_WORDS = """
abc123 abcdef access admin administrator adminadmin apikey baseball batman change
changeit changeme changemenow client clientid clientsecret clientpassword
correcthorsebatterystaple correct-horse-battery-staple credentials default demo
demodemo dev development dragon dummy example example-secret examplesecret football
foobar foobarbaz guest guestguest hello helloworld hunter hunter2 iloveyou insecure
keyboard kagimori kagimori-secret keycloak letmein letmeinnow localhost login
machine master monkey mysecret my-secret mysecretkey my-client-secret mypassword
nosecret nothing oauth oauth2 pass passw0rd password passphrase passwordpassword
pa55word p@ssw0rd p@ssword placeholder please princess private public qwerty
qwertyuiop qwertyuiopasdfghjkl qwertz qazwsx qazwsxedc replace-me replaceme root rootroot
sample samplesecret secret secretkey secret-key secretsecret secure server shadow
sunshine super superman supersecret super-secret supersecretkey superuser system
temp temporary test tester testclient testing testpassword testsecret testtest
thisisasecret this-is-a-secret todo token topsecret top-secret trustno1 user
username verysecret very-secret welcome xxx yoursecret your-secret your-client-secret
your_client_secret your-secret-key yoursecretkey yourpassword zaq12wsx
7fjfp0zbr1ktdrbnfvdmiw gx1fbat3bv zjycqe3ggrvdrudkyzs0xhgv_z45dukhcuk0gbr1vzk
cf136dc3c1fc93f31185e5885805d dgvzdgnsawvudpzzwnyzxq dgvzdgnsawvuddpzzwnyzxq
czzcaghsa3f0mzo3rmpmcdbaqnixs3rectjuzlzksxc a3ddj3w secret_basic
"""
_KNOWN = frozenset(_WORDS.split())
# Typed with marks in between, the same words are still the same words.
_MARKS = str.maketrans("", "", " \t-_.,:;!?#$%&*+=/\\|~^'\"()[]{}<>@")
_KNOWN_BARE = frozenset(word.translate(_MARKS) for word in _KNOWN)


def check_password(password: str, *, username: str = "", known: bool = False) -> None:
    """
    Refuse a weak password.

    Args:
        username: what the password must not be made of.
        known: whether known and weak words are taken: the demo world only.

    Raises:
        InsecureConfigError: the password is weak; the text says in which way.
    """
    _check(
        password,
        "password",
        MIN_PASSWORD_LENGTH,
        _PASSWORD_BITS,
        username=username,
        known=known,
    )


def check_client_secret(
    secret: str, *, client_id: str = "", known: bool = False
) -> None:
    """
    Refuse a weak chosen secret of a client.

    Args:
        client_id: what the secret must not be made of.
        known: whether known and weak words are taken: the demo world only.

    Raises:
        InsecureConfigError: the secret is weak; the text says in which way.
    """
    _check(
        secret,
        "client secret",
        MIN_CLIENT_SECRET_LENGTH,
        _CLIENT_SECRET_BITS,
        username=client_id,
        known=known,
    )


def check_passphrase(passphrase: str) -> None:
    """
    Refuse a weak passphrase of a ring: whoever has a copy of the ring may guess at leisure.

    Raises:
        InsecureConfigError: the passphrase is weak; the text says in which way.
    """
    _check(
        passphrase,
        "passphrase",
        MIN_PASSPHRASE_LENGTH,
        _PASSPHRASE_BITS,
        username="",
        known=False,
        hint="Make one by: head -c 32 /dev/urandom | base64. To change the passphrase of a "
        "ring that is there: kagimori ring rewrap.",
    )


def strength_bits(text: str) -> float:
    """
    Return a cautious estimate of a secret's entropy, in bits.

    Characters that continue a run (``aaa``, ``abc``, ``321``) and repetitions of a whole unit
    count once.
    """
    text = _unit(text)
    kept = [
        char
        for at, char in enumerate(text)
        if at == 0 or abs(ord(char) - ord(text[at - 1])) > 1
    ]
    if not kept:
        return 0.0
    counts = Counter(kept)
    per_char = -sum(
        share * math.log2(share) for share in (n / len(kept) for n in counts.values())
    )
    return per_char * len(kept)


def _check(
    text: str,
    what: str,
    shortest: int,
    bits: float,
    *,
    username: str,
    known: bool,
    hint: str = "",
) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InsecureConfigError(f"This {what} is not Unicode text.") from None
    if not 0 < size <= MAX_SECRET_BYTES:
        raise InsecureConfigError(
            f"A {what} has 1 to {MAX_SECRET_BYTES} bytes.",
        )
    if known:
        return
    folded = unicodedata.normalize("NFKC", text).casefold()
    bare = folded.translate(_MARKS)
    stem = bare.strip("0123456789")
    if {folded, bare, stem, _unit(stem)} & (_KNOWN | _KNOWN_BARE):
        raise InsecureConfigError(
            f"This {what} is widely known.",
            hint=hint or "Leave it out to have one generated, or choose another.",
        )
    if len(text) < shortest:
        raise InsecureConfigError(
            f"A {what} needs at least {shortest} characters.",
            hint=hint or "Leave it out to have one generated, or choose a longer one.",
        )
    name = username.casefold().translate(_MARKS)
    measured = text
    if len(name) >= 4 and name in bare:
        measured = bare.replace(name, "")
    if strength_bits(measured) < bits:
        raise InsecureConfigError(
            f"This {what} is too easy to guess.",
            hint=hint or "Leave it out to have one generated, or choose another.",
        )


def _unit(text: str) -> str:
    # The shortest text of which this one is a repetition: the classic doubling trick.
    if not text:
        return text
    return text[: (text + text).find(text, 1)]
