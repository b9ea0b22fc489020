"""
The attacks J1–J5, J8 and J14 on tokens. Each refusal has an accepted twin.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import tracemalloc

import pytest
from cryptography.hazmat.primitives import serialization

from kagimori.crypto import jws
from kagimori.crypto.algorithms import ALGORITHMS
from kagimori.crypto.digests import b64url_encode
from kagimori.crypto.jwk import Jwk, JwkSet
from kagimori.errors import InvalidJwsError

ALL = tuple(ALGORITHMS)
PAYLOAD = b'{"sub":"keeper"}'


def part(value: object) -> str:
    """
    Encode a JSON value, or octets as they are, as one part of a token.
    """
    octets = value if isinstance(value, bytes) else json.dumps(value).encode()
    return b64url_encode(octets)


def token(header: object, key: Jwk, payload: bytes = PAYLOAD) -> str:
    """
    Sign any header with a key, without our own signer's checks.
    """
    signed = f"{part(header)}.{part(payload)}"
    return f"{signed}.{part(key.sign(signed.encode()))}"


def refused(text: object, key: Jwk | JwkSet) -> bool:
    """
    Tell whether a token is refused as a token.
    """
    try:
        jws.verify(text, key, algorithms=ALL)  # type: ignore[arg-type]
    except InvalidJwsError:
        return True
    return False


# --- J1, J2: the algorithm -----------------------------------------------------------------


def _texts_of_public_key(key: Jwk) -> dict[str, bytes]:
    public = key._public
    encoding, form = serialization.Encoding, serialization.PublicFormat
    der = public.public_bytes(encoding.DER, form.SubjectPublicKeyInfo)
    pem = public.public_bytes(encoding.PEM, form.SubjectPublicKeyInfo)
    return {
        "PEM": pem,
        "PEM without its last newline": pem.rstrip(),
        "DER": der,
        "SSH line": public.public_bytes(encoding.OpenSSH, form.OpenSSH),
        "JWK": json.dumps(key.to_dict()).encode(),
        "JWK without spaces": json.dumps(key.to_dict(), separators=(",", ":")).encode(),
        "x5c text": base64.b64encode(der),
    }


@pytest.mark.parametrize("alg", ["RS256", "ES256", "Ed25519"])
@pytest.mark.parametrize("mac", ["HS256", "HS384", "HS512"])
def test_J1_hmac_with_our_public_key_is_refused(keys, alg, mac):
    """
    A token MACed with any text of our public key is refused, with the key and with a set.
    """
    key = keys[alg].public()
    digest = getattr(hashlib, mac.replace("HS", "sha"))
    for secret in _texts_of_public_key(key).values():
        signed = f"{part({'alg': mac, 'kid': alg})}.{part(PAYLOAD)}"
        tag = hmac.new(secret, signed.encode(), digest).digest()

        assert refused(f"{signed}.{part(tag)}", key)
        assert refused(f"{signed}.{part(tag)}", JwkSet.of([key]))
    assert not refused(token({"alg": alg, "kid": alg}, keys[alg]), key)


@pytest.mark.parametrize(
    "alg",
    [
        *("none", "None", "NONE", "nOnE", "", " none", "none\u0000", "HS256", "es256"),
        *("ES256 ", "ES256\n", "ES512", "Ed25519", "RS256", None, True, 0, 1.5),
        *([], ["ES256"], {}, {"alg": "ES256"}),
    ],
)
def test_J2_any_other_algorithm_is_refused(keys, alg):
    """
    Another algorithm, no name, or what is no text is refused, with a signature and without.
    """
    key = keys["ES256"]
    text = token({"alg": alg}, key)

    assert refused(text, key)
    assert refused(text[: text.rindex(".") + 1], key)
    assert not refused(token({"alg": "ES256"}, key), key)


def test_J2_missing_algorithm_and_empty_signature_are_refused(keys):
    """
    A header without alg, and a genuine header without signature, are refused.
    """
    key = keys["ES256"]
    text = token({"alg": "ES256"}, key)

    assert refused(token({"kid": "ES256"}, key), key)
    assert refused(text[: text.rindex(".") + 1], key)
    assert refused(text[: text.rindex(".")], key)
    assert not refused(text, key)


# --- J3, J4: where keys come from ----------------------------------------------------------


@pytest.mark.parametrize("with_kid", [True, False])
def test_J3_keys_in_the_header_are_never_used(keys, with_kid):
    """
    A token signed by the key that it carries is refused; on ours the members change nothing.
    """
    mallory = Jwk.generate("ES256")
    certificate = base64.b64encode(b"certificate").decode()
    named = {"kid": "ES256"} if with_kid else {}
    for members in (
        {"jwk": mallory.to_dict()},
        {"jku": "http://127.0.0.1:9/jwks"},
        {"x5u": "http://127.0.0.1:9/x5u"},
        {"x5c": [certificate]},
        {"x5t": "AAAA", "x5t#S256": "AAAA"},
    ):
        header = {"alg": "ES256"} | named | members

        assert refused(token(header, mallory), keys["ES256"])
        assert refused(token(header, mallory), JwkSet.of([keys["ES256"]]))
        assert not refused(token(header, keys["ES256"]), JwkSet.of([keys["ES256"]]))


@pytest.mark.parametrize(
    "kid",
    [
        *(
            "../../etc/passwd",
            "/dev/null",
            "' OR '1'='1",
            "{{7*7}}",
            "${jndi:ldap://x}",
        ),
        *("ES256\u0000", "ES256\n", "ES256 ", "es256", "\u202eES256", "%45S256", ""),
        *("x" * 8000, ["ES256"], None, 1, True, {"kid": "ES256"}),
    ],
)
def test_J4_a_kid_is_only_looked_up(keys, kid):
    """
    Any kid but exactly a known one is refused, and the refusal does not repeat it.
    """
    made = JwkSet.of([keys["ES256"], keys["ES384"]])
    text = token({"alg": "ES256", "kid": kid}, keys["ES256"])
    with pytest.raises(InvalidJwsError) as refusal:
        jws.verify(text, made, algorithms=ALL)

    assert refusal.value.text in {
        "The token names a key that is not known here.",
        "The header of the token is malformed.",
    }
    assert refused(text, keys["ES256"])
    assert not refused(token({"alg": "ES256", "kid": "ES256"}, keys["ES256"]), made)


def test_J4_a_kid_of_one_megabyte_is_refused(keys):
    """
    A megabyte of kid is refused for its length.
    """
    text = token({"alg": "ES256", "kid": "x" * 10**6}, keys["ES256"])

    assert refused(text, keys["ES256"])


def test_J4_another_tenants_kid_is_unknown(keys):
    """
    A genuine token of another tenant's key is refused by this tenant's set.
    """
    theirs = Jwk.generate("ES256")
    text = jws.sign(PAYLOAD, theirs)

    assert refused(text, JwkSet.of([keys["ES256"]]))
    assert not refused(text, JwkSet.of([theirs]))


# --- J5: extensions ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "members",
    [
        {"crit": ["unknown"], "unknown": 1},
        {"crit": []},
        {"crit": ["alg"]},
        {"crit": ["exp", "exp"], "exp": 1},
        {"crit": ["exp"], "exp": 1},
        {"crit": ["b64"], "b64": False},
        {"crit": ["b64"], "b64": True},
        {"crit": None},
        {"crit": "exp"},
        {"crit": {}},
        {"b64": False},
        {"b64": True},
    ],
)
def test_J5_extensions_are_refused(keys, members):
    """
    Any crit, and b64, are refused on a token that is genuine otherwise.
    """
    header = {"alg": "ES256", "kid": "ES256"}

    assert refused(token(header | members, keys["ES256"]), keys["ES256"])
    assert not refused(token(header | {"unknown": 1}, keys["ES256"]), keys["ES256"])


# --- J8: one text for each token -----------------------------------------------------------


def test_J8_every_other_spelling_of_a_genuine_token_is_refused(keys):
    """
    Other base64, in each of the three parts, more parts, and the JSON form are refused.
    """
    key = keys["ES256"]
    # Chosen so that no part is a multiple of three octets long.
    header = {"alg": "ES256", "typ": "a"}
    text = token(header, key, b"\xff\xfe\xfd\xfb")
    parts = text.split(".")
    spellings = []
    for index, one in enumerate(parts):
        others = [
            one + "=" * (-len(one) % 4 or 4),
            one + "=",
            one + "\n",
            one + " ",
            " " + one,
            one[:4] + "\n" + one[4:],
            one[:4] + "?" + one[4:],
            one[:4] + "é" + one[4:],
            one + "A",
            one + "AAAA",
            one.replace("_", "/", 1),
            one.replace("-", "+", 1),
        ]
        if len(one) % 4:
            alphabet = (
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
            )
            last = alphabet.index(one[-1])
            others.append(one[:-1] + alphabet[last ^ 1])
        spellings += [
            ".".join([*parts[:index], other, *parts[index + 1 :]])
            for other in others
            if other != one
        ]
    spellings += [
        text + ".",
        "." + text,
        text + "..",
        f"{text}.{parts[2]}.{parts[2]}",
        ".".join(parts[:2]),
        parts[0],
        "",
        "..",
        ".",
        text.replace(".", "\u3002"),
        f"Bearer {text}",
        json.dumps({"protected": parts[0], "payload": parts[1], "signature": parts[2]}),
        json.dumps(
            {
                "payload": parts[1],
                "signatures": [{"protected": parts[0], "signature": parts[2]}],
            }
        ),
    ]

    assert not refused(text, key)
    assert len(spellings) > 40
    assert [one for one in spellings if not refused(one, key)] == []
    assert refused(text.encode(), key)
    assert refused({"payload": parts[1]}, key)


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"ES256","alg":"ES256"}',
        b'{"alg":"none","alg":"ES256"}',
        b'{"alg":"ES256","kid":"x","kid":"ES256"}',
        b'{"alg":"ES256","x":{"a":1,"a":2}}',
        b'{"alg":"ES256","\\u0061lg":"ES256"}',
        b'{"alg":"ES256","x":NaN}',
        b'{"alg":"ES256","x":-Infinity}',
        b'{"alg":"ES256","x":1e999}',
        b'\xef\xbb\xbf{"alg":"ES256"}',
        '{"alg":"ES256"}'.encode("utf-16"),
        b'{"alg":"ES256","x":"\xff"}',
        b'{"alg":"ES256"} x',
        b'["alg","ES256"]',
        b'"ES256"',
        b"",
        b'{"alg":"ES256","x":"\\ud800"}',
        b'{"alg":"ES256","typ":["JWT"]}',
        b'{"alg":"ES256","cty":null}',
    ],
)
def test_J8_ambiguous_headers_are_refused(keys, header):
    """
    A header that two programs could read differently is refused though its signature is right.
    """
    assert refused(token(header, keys["ES256"]), keys["ES256"])
    twin = b' { "alg" : "ES256" , "x" : [ 1 , 2 ] }\n'
    assert not refused(token(twin, keys["ES256"]), keys["ES256"])


# --- J14: size -----------------------------------------------------------------------------


def test_J14_the_length_of_a_token_is_bounded_before_anything_else(keys):
    """
    Beyond the limit a token of any size is refused in no time and without memory.
    """
    key = keys["ES256"]
    fitting = jws.sign(b"x" * 49_000, key)
    header, payload, signature = jws.sign(PAYLOAD, key).split(".")
    huge = "A" * 50_000_000
    tokens = [
        jws.sign(b"x" * 49_200, key),
        f"{huge}.{payload}.{signature}",
        f"{header}.{huge}.{signature}",
        f"{header}.{payload}.{huge}",
        huge,
        "." * 50_000_000,
    ]

    assert len(fitting) <= jws.MAX_COMPACT_LENGTH < len(tokens[0])
    assert not refused(fitting, key)
    tracemalloc.start()
    started = time.thread_time()
    assert all(refused(text, key) for text in tokens)
    spent = time.thread_time() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spent < 0.2
    assert peak < 1_000_000
    with pytest.raises(InvalidJwsError):
        jws.verify(jws.sign(PAYLOAD, key), key, algorithms=ALL, max_length=100)
    with pytest.raises(InvalidJwsError):
        jws.peek_header(jws.sign(PAYLOAD, key), max_length=100)


def test_J14_a_header_is_bounded_and_shallow(keys):
    """
    A header of more than 16 KiB, or nested beyond reason, is refused; 10^4 dots are too.
    """
    key = keys["ES256"]
    sound = {"alg": "ES256", "x5c": ["A" * 4000] * 2}

    assert not refused(token(sound, key), key)
    assert refused(token(sound | {"x": "y" * 9000}, key), key)
    for depth in (100, 5000):
        nested = b'{"alg":"ES256","x":' + b"[" * depth + b"]" * depth + b"}"
        assert refused(token(nested, key), key)
    assert refused("A" + "." * 10_000, key)


def test_J14_a_long_signature_is_not_decoded(keys):
    """
    A signature of 60,000 characters is refused for its length alone.
    """
    key = keys["RS256"]
    text = jws.sign(PAYLOAD, key)

    assert not refused(text, key)
    assert refused(text + "A" * 60_000, key)


# --- what an error tells -------------------------------------------------------------------


def test_K9_refusals_quote_nothing(keys):
    """
    No refusal repeats the token or chains an error that holds it.
    """
    genuine = jws.sign(PAYLOAD, keys["ES256"])
    for text in (
        genuine[:-4] + "AAAA",
        genuine + "é",
        genuine.replace(".", "..", 1),
        "A" * 50 + genuine,
        f"{part(b'not json secret')}.{part(PAYLOAD)}.{part(bytes(64))}",
    ):
        with pytest.raises(InvalidJwsError) as refusal:
            jws.verify(text, keys["ES256"], algorithms=ALL)

        told = f"{refusal.value} {refusal.value.detail}"
        assert refusal.value.__cause__ is None
        assert refusal.value.__suppress_context__ or not refusal.value.__context__
        assert genuine[-20:] not in told
        assert "secret" not in told
