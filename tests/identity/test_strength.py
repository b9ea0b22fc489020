"""
What is refused as a secret, and what is not.
"""

from __future__ import annotations

import pytest

from kagimori.crypto.digests import random_id
from kagimori.errors import InsecureConfigError
from kagimori.identity.strength import check_client_secret, check_password

WEAK_PASSWORDS = [
    "",
    "test",
    "secret",
    "short-1!",
    "password123456",
    "Password-Password-1",
    "correct horse battery staple",
    "CorrectHorseBatteryStaple!",
    "aaaaaaaaaaaaaaaaaaaaaa",
    "abcdefghijklmnopqrstuvwxyz",
    "12345678901234567890",
    "qwertyuiop",
    "changeme2030!!",
    "testtesttesttest",
    "alice.smith-1",
    "ｐａｓｓｗｏｒｄ１２３４",
    "x" * 1025,
]
STRONG_PASSWORDS = [
    "tin kettle 7 rooftop",
    "G7k!w2Rz#q9m",
    "鍵守は鍵を守る人です、毎日",
    "пароль-надёжный-один",
    "x9" + "kj3v8q" * 2 + "Wm",
]


@pytest.mark.parametrize("password", WEAK_PASSWORDS)
def test_K10_a_weak_password_is_refused(password):
    """
    Known, short, repeated, running and self-describing passwords are refused without echo.
    """
    with pytest.raises(InsecureConfigError) as caught:
        check_password(password, username="alice.smith")

    assert not password or password not in str(caught.value)


@pytest.mark.parametrize("password", STRONG_PASSWORDS)
def test_K10_a_good_password_is_taken(password):
    """
    Long enough and not guessable: no rule of character classes.
    """
    assert check_password(password, username="alice.smith") is None


@pytest.mark.parametrize(
    "secret",
    [
        "secret",
        "7Fjfp0ZBr1KtDRbnfVdmIw",
        "gX1fBat3bV",
        "ZJYCqe3GGRvdrudKyZS0XhGv_Z45DuKhCUk0gBR1vZk",
        "my-client-secret",
        "supersecretsupersecretsupersecret",
        "0123456789012345678901234567890",
        "short-but-R4nd0m-x",
        "testclient-testclient-testclient",
    ],
)
def test_K10_a_weak_client_secret_is_refused(secret):
    """
    Samples of specifications and tutorials, and short ones, are no client secrets.
    """
    with pytest.raises(InsecureConfigError):
        check_client_secret(secret, client_id="testclient")


@pytest.mark.parametrize("nbytes", [18, 24, 32])
def test_K10_random_client_secrets_are_taken(nbytes):
    """
    Anything drawn at random passes; a hundred draws show no false alarm.
    """
    for _ in range(100):
        check_client_secret(random_id(nbytes), client_id="app")


@pytest.mark.parametrize("word", ["secret", "test"])
def test_K10_the_demo_world_alone_may_use_known_words(word):
    """
    The same word is refused without the exemption and taken with it.
    """
    for check in (check_password, check_client_secret):
        with pytest.raises(InsecureConfigError):
            check(word)
        assert check(word, known=True) is None


@pytest.mark.parametrize("text", ["", "x" * 1025, "\ud800"])
def test_even_the_demo_world_has_bounds(text):
    """
    Nothing, a kilobyte, and what is no Unicode text are refused everywhere.
    """
    with pytest.raises(InsecureConfigError):
        check_password(text, known=True)
