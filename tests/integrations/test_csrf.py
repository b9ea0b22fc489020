"""
CSRF tokens, in the frameworks that have none of their own.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from kagimori.errors import StoreError
from kagimori.integrations.csrf import Csrf, CsrfError
from kagimori.integrations.sessions import Session
from tests.integrations.browser import Browser
from tests.integrations.sites import SITES, as_form

KINDS = ("starlette", "fastapi", "flask")


@pytest.fixture(params=KINDS)
def shop(request, world):
    return SITES[request.param](world.ring())


@pytest.fixture(params=KINDS)
def kind(request):
    return SITES[request.param]


def draw(browser, shop) -> str:
    return browser.ask(shop, "/form").body.decode()


def test_form_of_the_session_is_accepted_and_others_are_refused(shop, browser):
    """
    A form with its session's token is taken; without one, or with a stranger's, it is refused.
    """
    token = draw(browser, shop)
    stranger = Browser()
    foreign = draw(stranger, shop)

    good = browser.post(shop, "/form", as_form(csrf_token=token))
    without = browser.post(shop, "/form", as_form(name="x"))
    forged = browser.post(shop, "/form", as_form(csrf_token=foreign))
    spoiled = browser.post(shop, "/form", as_form(csrf_token=token[:-2] + "AA"))
    sessionless = Browser().post(shop, "/form", as_form(csrf_token=token))

    assert good.status == 200
    assert [403] * 4 == [
        answer.status for answer in (without, forged, spoiled, sessionless)
    ]


def test_application_reads_the_form_after_the_check(shop, browser):
    """
    The body that was looked into comes to the application whole.
    """
    body = as_form(csrf_token=draw(browser, shop), text="ü" * 5000)

    answer = browser.post(shop, "/form", body)

    assert answer.status == 200
    assert b"text" in answer.body
    assert len(answer.body) > 5000


def test_header_and_multipart_forms_carry_the_token_too(shop, browser):
    """
    Scripts send a header, and forms with files a field: both are accepted, neither without.
    """
    token = draw(browser, shop)
    part = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    file = part % (b'file"; filename="f', bytes(range(256)))
    multipart = [("Content-Type", "multipart/form-data; boundary=b")]

    by_header = browser.ask(
        shop, "/form", method="POST", headers=[("X-CSRF-Token", token)]
    )
    by_field = browser.ask(
        shop,
        "/form",
        method="POST",
        headers=multipart,
        body=file + part % (b"csrf_token", token.encode()) + b"--b--\r\n",
    )
    neither = browser.ask(
        shop, "/form", method="POST", headers=multipart, body=file + b"--b--\r\n"
    )

    assert by_header.status == 200
    assert by_field.status == 200
    assert neither.status == 403


def test_only_what_lies_below_an_exempt_path_needs_no_token(shop):
    """
    An exempt path is exempt with what lies below it, and no path that merely begins like it.
    """
    assert Browser().post(shop, "/api/hook", b"a=1").status == 200
    assert Browser().post(shop, "/apis", b"a=1").status == 403


def test_form_drawn_on_blue_is_accepted_by_green_across_a_rotation(
    world, kind, browser
):
    """
    Slots that share a ring accept each other's forms, also after a rotation (pain 5).
    """
    blue_ring, green_ring = world.ring(), world.ring()
    blue, green = kind(blue_ring), kind(green_ring)
    body = as_form(csrf_token=draw(browser, blue))
    green_ring.rotate(immediate=True)

    assert browser.post(green, "/form", body).status == 200
    assert browser.post(blue, "/form", body).status == 200


def test_form_drawn_with_another_ring_is_refused(tmp_path, world, kind, browser):
    """
    With a ring for each slot the problem shows: the form that blue drew is refused on green.
    """
    blue = kind(world.ring())
    green = kind(type(world)(tmp_path / "green", world.clock).ring())
    body = as_form(csrf_token=draw(browser, blue))

    assert browser.post(green, "/form", body).status == 403
    assert browser.post(blue, "/form", body).status == 200


def test_form_drawn_before_a_sign_in_is_refused_after_it(shop, browser):
    """
    A sign-in gives the session another id, and ends what an attacker had bound to the old one.
    """
    before = draw(browser, shop)
    browser.ask(shop, "/sign-in")
    after = draw(browser, shop)

    assert browser.post(shop, "/form", as_form(csrf_token=before)).status == 403
    assert browser.post(shop, "/form", as_form(csrf_token=after)).status == 200


def test_tokens_never_look_alike(shop, browser):
    """
    Each token of one session is another text, so that compression tells nothing (BREACH).
    """
    tokens = {draw(browser, shop) for _ in range(5)}

    assert len(tokens) == 5
    assert all(
        browser.post(shop, "/form", as_form(csrf_token=token)).status == 200
        for token in tokens
    )


def test_outage_answers_503_and_refuses_no_form(world, kind, browser):
    """
    A token whose key cannot be asked for at the moment is not called forged.
    """
    blue_ring, green_ring = world.ring(), world.ring()
    blue, green = kind(blue_ring), kind(green_ring)
    browser.ask(green, "/sign-in")
    blue_ring.rotate(immediate=True)
    token = draw(Browser(dict(browser.cookies)), blue)
    world.store.fault = StoreError("down", transient=True)

    during = browser.post(green, "/form", as_form(csrf_token=token))
    world.store.fault = None
    world.clock.advance(timedelta(minutes=2))
    after = browser.post(green, "/form", as_form(csrf_token=token))

    assert during.status == 503
    assert int(during.get("Retry-After")) >= 1
    assert after.status == 200


def test_token_has_an_end_where_one_is_asked_for(world):
    """
    A form that lay open for longer than its lifetime is refused; just before, it is taken.
    """
    csrf = Csrf(world.ring(), lifetime=timedelta(hours=1))
    session = Session()
    token = csrf.token(session)

    world.clock.advance(timedelta(minutes=59))
    csrf.check(session, token)
    world.clock.advance(timedelta(minutes=1))

    with pytest.raises(CsrfError):
        csrf.check(session, token)
