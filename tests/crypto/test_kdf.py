"""
Key derivation.
"""

from __future__ import annotations

import pickle
from base64 import b64decode

import pytest

from kagimori.crypto.kdf import CounterKdf, hkdf_sha256

LONG = bytes(index % 256 for index in range(50_000))


def test_hkdf_agrees_with_rfc_5869():
    """
    Test cases 1 and 3 of RFC 5869, appendix A.
    """
    secret = b"\x0b" * 22
    salt, info = bytes(range(13)), bytes(range(0xF0, 0xFA))

    assert (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        == hkdf_sha256(secret, salt=salt, info=info, length=42).hex()
    )
    assert (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
        == hkdf_sha256(secret, salt=b"", info=b"", length=42).hex()
    )


# aspnet-data-protection.md 6.1, from ASP.NET Core's own SP800_108Tests.
@pytest.mark.parametrize(
    ("master", "label", "context", "length", "expected"),
    [
        (b"kdk", b"label", b"contextHeadercontext", 63,
         "V47WmHzPSkdC2vkLAomIjCzZlDOAetll3yJLcSvon7LJFjJpEN+KnSNp+gIpeydKMsENkflbrIZ/3s6GkEaH"),
        (b"kdk", b"label", b"contextHeadercontext", 64,
         ("mVaFM4deXLl610CmnCteNzxgbM/VkmKznAlPauHcDBn0le06uOjAKLHx0LfoU2/Ttq9nd78Y6Nk6wArmdwJgJg"
         "==")),
        (b"kdk", b"label", b"contextHeadercontext", 65,
         ("GaHPeqdUxriFpjRtkYQYWr5/iqneD/+hPhVJQt4rXblxSpB1UUqGqL00DMU/FJkX0iMCfqUjQXtXyfks+p++Ev4"
         "=")),
        (LONG, b"label", b"contextHeadercontext", 63,
         "rt2hM6kkQ8hAXmkHx0TU4o3Q+S7fie6b3S1LAq107k++P9v8uSYA2G+WX3pJf9ZkpYrTKD7WUIoLkgA1R9lk"),
        (LONG, b"label", b"contextHeadercontext", 64,
         ("RKiXmHSrWq5gkiRSyNZWNJrMR0jDyYHJMt9odOayRAE5wLSX2caINpQmfzTH7voJQi3tbn5MmD//dcspghfBiw"
         "==")),
        (LONG, b"label", b"contextHeadercontext", 65,
         ("KedXO0zAIZ3AfnPqY1NnXxpC3HDHIxefG4bwD3g6nWYEc5+q7pjbam71Yqj0zgHMNC9Z7BX3wS1/tajFocRWZUk"
         "=")),
        (b"", b"", b"", 64,
         ("fHGMWaDLmoncLsEKuKbZo8T+73paNohDeb5O7BSxbC8Gus8d/mUpa/9w2ss65OHlmFw1VZhIXzr5swMYVRndRw"
         "==")),
        (b"", b"", b"", 96,
         ("iXd0KuWopclbxtWf9dO8fnerBqLJvndOUs74pTcj7Ck8Ctsvz4QttXkCY1DPd4aDbOE/CCU8/bIQtzoU1Xu3ZQ1p"
         "V0qEZmzFll+Vpf+q7av7AGEqwh56a+NPt6gxC5CP")),
    ],
)  # fmt: skip
def test_counter_mode_agrees_with_dotnet(master, label, context, length, expected):
    """
    .NET's published values come out, whole and with a part of the context bound beforehand.
    """
    kdf = CounterKdf(master)

    assert b64decode(expected) == kdf.derive(label, context, length)
    for split in (0, 1, len(context)):
        bound = kdf.bind(label, context[:split], length)
        assert b64decode(expected) == bound.derive(context[split:])
        assert b64decode(expected) == bound.derive(context[split:])


def test_key_material_is_not_pickled():
    """
    K9: neither a master key nor what is derived from it leaves by pickle.
    """
    kdf = CounterKdf(b"master")

    for secret in (kdf, kdf.bind(b"", b"", 32)):
        with pytest.raises(TypeError):
            pickle.dumps(secret)
        assert "master" not in repr(secret)
