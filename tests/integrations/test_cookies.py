"""
Protected and signed cookies: attributes, chunks, and what becomes of bad ones.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response

from kagimori.crypto.digests import b64url_decode
from kagimori.errors import ConfigError
from kagimori.integrations.cookies import (
    Cookie,
    CookieTooLargeError,
    ProtectedCookie,
    SignedCookie,
    parse,
)
from tests.integrations.browser import accepted

NAME = "__Host-prefs"
COOKIE = Cookie(name=NAME)


def jar(set_cookies) -> dict[str, str]:
    """
    Return what a browser keeps.
    """
    kept = (accepted(each.header) for each in set_cookies)
    return {name: value for name, value, stays in kept if stays}


@pytest.fixture(params=[ProtectedCookie, SignedCookie])
def kind(request):
    return request.param


def test_cookie_comes_back_under_old_keys_and_is_renewed(world, kind):
    """
    What was written opens after a rotation, and is written anew under the current key then.
    """
    ring = world.ring()
    cookie = kind(ring, COOKIE, purpose="prefs")
    cookies = jar(cookie.write(b"dark"))
    assert not cookie.read(cookies).needs_renewal
    ring.rotate(immediate=True)
    response = Response()

    assert cookie.read(cookies).needs_renewal
    cookie.renew_on(response, cookies)

    name, value, _ = accepted(response.headers["set-cookie"])
    assert cookie.get(cookies) == cookie.get({name: value}) == b"dark"
    assert not cookie.read({name: value}).needs_renewal


def test_cookie_is_bound_to_purpose_name_kind_and_ring(tmp_path, world, kind):
    """
    Under another purpose, name, kind or ring it opens nothing (K3: one cookie for another).
    """
    ring = world.ring()
    cookie = kind(ring, COOKIE, purpose="prefs")
    cookies = jar(cookie.write(b"dark"))
    other = next(k for k in (ProtectedCookie, SignedCookie) if k is not kind)
    elsewhere = type(world)(tmp_path / "other", world.clock).ring()

    assert cookie.get(cookies) == b"dark"
    assert kind(ring, COOKIE, purpose="cart").get(cookies) is None
    renamed = {"__Host-cart": cookies[NAME]}
    assert kind(ring, Cookie(name="__Host-cart"), purpose="prefs").get(renamed) is None
    assert other(ring, COOKIE, purpose="prefs").get(cookies) is None
    assert kind(elsewhere, COOKIE, purpose="prefs").get(cookies) is None


def test_signed_cookie_is_readable_and_encrypted_one_is_not(world):
    """
    Scripts can read a signed cookie; an encrypted one tells nothing.
    """
    ring = world.ring()
    signed = jar(SignedCookie(ring, COOKIE).write(b"dark"))[NAME]
    sealed = jar(ProtectedCookie(ring, COOKIE).write(b"dark"))[NAME]

    assert b64url_decode(signed.partition(".")[0]).endswith(b"dark")
    assert b"dark" not in b64url_decode(sealed)


def test_cookie_ends(world, kind):
    """
    A cookie is good until its lifetime is over, whatever the browser does.
    """
    cookie = kind(world.ring(), COOKIE, lifetime=timedelta(hours=1))
    cookies = jar(cookie.write(b"dark"))

    world.clock.advance(timedelta(minutes=59))
    assert cookie.get(cookies) == b"dark"
    world.clock.advance(timedelta(minutes=1))

    assert cookie.get(cookies) is None


@given(size=st.integers(0, 11_500))
def test_any_size_comes_back(rings, size):
    """
    Up to the limit every size comes back, in cookies that browsers accept.
    """
    cookie = ProtectedCookie(rings, COOKIE)

    cookies = jar(cookie.write(b"x" * size))

    assert cookie.get(cookies) == b"x" * size
    assert len(cookies) in (1, 3, 4, 5)


@pytest.fixture(scope="module")
def rings(tmp_path_factory):
    from tests.keys.protection.world import World

    return World(tmp_path_factory.mktemp("cookies")).ring()


def test_too_much_is_refused_when_it_is_written(world, kind):
    """
    What fills too many chunks is an error of the application, told at once.
    """
    cookie = kind(world.ring(), COOKIE)

    with pytest.raises(CookieTooLargeError, match="limit"):
        cookie.write(b"x" * 20_000)
    assert len(cookie.write(b"x" * 5_000)) == 3


def test_shrinking_and_expiring_leave_no_chunk_behind(world, kind):
    """
    Chunks that are no longer used are expired, with the attributes that __Host- demands.
    """
    cookie = kind(world.ring(), COOKIE)
    large = jar(cookie.write(b"x" * 7_000))

    shrunk = [accepted(each.header) for each in cookie.write(b"x", large)]
    gone = Response()
    cookie.expire_on(gone, large)

    assert {name for name, _, stays in shrunk if not stays} == set(large) - {NAME}
    lines = [v.decode() for k, v in gone.raw_headers if k == b"set-cookie"]
    assert {accepted(line)[0] for line in lines} == set(large)
    assert not any(accepted(line)[2] for line in lines)


@given(
    name=st.sampled_from([NAME, f"{NAME}C1", f"{NAME}C2", f"{NAME}C99", f"{NAME}C0"]),
    value=st.one_of(
        st.text(max_size=200),
        st.from_regex(r"chunks-[0-9]{1,6}", fullmatch=True),
        st.from_regex(r"CfDJ8[A-Za-z0-9_-]{20,80}(\.[A-Za-z0-9_-]{0,60})?"),
    ),
    large=st.booleans(),
)
def test_no_bad_cookie_raises(rings, name, value, large):
    """
    Whatever stands in a cookie or in one of its chunks, it is read as nothing.
    """
    for kind in (ProtectedCookie, SignedCookie):
        cookie = kind(rings, COOKIE)
        cookies = jar(cookie.write(b"x" * (7_000 if large else 10)))
        held = cookie.get(cookies)
        spoiled = cookies | {name: value}

        found = cookie.read(spoiled)

        used = name in cookies and cookies[name] != value
        assert held is not None
        assert (found.payload is None) == used


def test_mutations_of_a_cookie_open_nothing(rings):
    """
    Each character of a cookie counts.
    """
    cookie = ProtectedCookie(rings, COOKIE)
    text = jar(cookie.write(b"dark"))[NAME]

    opened = [
        cookie.get({NAME: text[:at] + other + text[at + 1 :]})
        for at in range(len(text))
        for other in "Aw."
        if text[at] != other
    ]

    assert cookie.get({NAME: text}) == b"dark"
    assert set(opened) == {None}


@pytest.mark.parametrize(
    "wrong",
    [
        {"secure": False},
        {"path": "/shop"},
        {"domain": "example.com"},
        {"name": "__Secure-x", "secure": False},
        {"name": "x", "secure": False, "same_site": "None"},
        {"name": "a b"},
        {"name": ""},
        {"path": "/; Domain=evil"},
        {"name": "x", "domain": "a\r\nb"},
        {"most_chunks": 0},
    ],
)
def test_attributes_that_a_prefix_forbids_are_refused(wrong):
    """
    A cookie that browsers would drop, or others could replace, is refused at start.
    """
    with pytest.raises(ConfigError):
        Cookie(**wrong)


def test_plain_http_has_a_way_of_its_own(world):
    """
    For development there is a cookie without prefix and Secure; it is asked for by name.
    """
    cookie = ProtectedCookie(world.ring(), Cookie.for_plain_http("dev"))

    (line,) = [each.header for each in cookie.write(b"x")]

    assert line.startswith("dev=CfDJ8")
    assert "Secure" not in line
    assert "HttpOnly" in line


def test_headers_are_limited_before_they_are_parsed():
    """
    A header beyond the limit counts for nothing; of a name that comes twice, the first counts.
    """
    assert parse([b"a=1; b=2", b"a=3; c"], 100) == {"a": "1", "b": "2"}
    assert parse([b"a=" + b"x" * 200], 100) == {}


@pytest.mark.parametrize("junk", ["\xa0", "\x85", "\x0b", "\x1c", "\u2000", "(", "a b"])
def test_name_is_taken_as_the_browser_sent_it_or_not_at_all(junk):
    """
    Attack: a sibling host sets what a generous ``strip`` makes a ``__Host-`` cookie. Blanks go.
    """
    line = f"{junk}__Host-a=theirs;\t__Host-a =ours ; __Host-a{junk}=theirs"

    assert parse([line.encode()]) == {"__Host-a": "ours"}
    assert parse([line.encode().decode("latin-1")]) == {"__Host-a": "ours"}
    assert parse([line]) == {"__Host-a": "ours"}


def test_texts_hold_no_content(world):
    """
    No repr of a cookie shows what is in it.
    """
    cookie = ProtectedCookie(world.ring(), COOKIE)
    written = cookie.write(b"secret-thing")
    reading = cookie.read(jar(written))

    shown = repr(written) + repr(reading) + repr(cookie)

    assert reading.payload == b"secret-thing"
    assert "secret-thing" not in shown
    assert written[0].value not in shown
