"""
Forms of OAuth endpoints: one meaning only (TOK-1 to TOK-3).
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagimori.errors import OAuthError
from kagimori.http.forms import CREDENTIALS, check_query, is_form, parse_form


@pytest.mark.parametrize(
    ("body", "form"),
    [
        (b"", {}),
        (b"a=1", {"a": "1"}),
        (b"a=1&b=2", {"a": "1", "b": "2"}),
        (b"a=1&&b=2&", {"a": "1", "b": "2"}),
        (b"a=b=c", {"a": "b=c"}),
        (b"a=x+y%2Bz", {"a": "x y+z"}),
        (b"%61=%e9%8d%b5", {"a": "鍵"}),
        ("a=鍵".encode(), {"a": "鍵"}),
        (b"a=%26%3D", {"a": "&="}),
        (b"a=&b=2", {"b": "2"}),
        (b"a&b=2", {"b": "2"}),
        (b"a;b=1", {"a;b": "1"}),
    ],
)
def test_TOK_2_a_form_is_read(body, form):
    """
    Pairs are split and decoded; empty values count as absent.
    """
    assert form == parse_form(body, 10)


@pytest.mark.parametrize(
    "body",
    [
        b"a=1&a=2",
        b"a=1&a=1",
        b"a=1&a=",
        b"a=&a=1",
        b"a&a",
        b"a=1&%61=2",
        b"scope=x&sc%6fpe=y",
    ],
)
def test_TOK_2_a_repeated_parameter_is_refused(body):
    """
    A parameter stands once, however it is written and whatever it holds.
    """
    with pytest.raises(OAuthError, match="repeated") as caught:
        parse_form(body, 10)

    assert ("invalid_request", 400) == (caught.value.error, caught.value.status)


@pytest.mark.parametrize(
    "body",
    [
        b"a=%",
        b"a=%4",
        b"a=%zz",
        b"a=%ff",
        b"a=\xff",
        b"a=%c0%80",
        b"a=%ed%a0%80",
        b"\x80=1",
    ],
)
def test_TOK_1_what_is_not_utf_8_or_not_encoded_is_refused(body):
    """
    Broken percent signs, surrogates and overlong forms have no meaning.
    """
    with pytest.raises(OAuthError) as caught:
        parse_form(body, 10)

    assert "invalid_request" == caught.value.error


@pytest.mark.parametrize("body", [b"a=b%00c", b"a=\x00", b"%00=a", b"a\x00"])
def test_S4_nul_is_refused(body):
    """
    NUL never gets through: other layers end texts there.
    """
    with pytest.raises(OAuthError, match="NUL"):
        parse_form(body, 10)


def test_S1_the_number_of_fields_is_bounded():
    """
    As many fields as the limit pass, one more does not.
    """
    pairs = [b"f%d=1" % n for n in range(11)]

    assert 10 == len(parse_form(b"&".join(pairs[:10]), 10))
    with pytest.raises(OAuthError, match="too many"):
        parse_form(b"&".join(pairs), 10)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1),
        st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1),
        max_size=20,
    )
)
def test_TOK_1_whatever_was_encoded_comes_back(form):
    """
    Our reading is the inverse of the usual encoding.
    """
    assert form == parse_form(urlencode(form).encode(), 100)


@given(st.binary(max_size=200))
def test_S6_any_bytes_are_read_or_refused(body):
    """
    No bytes break the parser; what it takes, the lenient parser of the library reads alike.
    """
    refused = None
    try:
        form = parse_form(body, 50)
    except OAuthError as error:
        refused = error

    if refused is not None:
        assert "invalid_request" == refused.error
    else:
        lenient = parse_qsl(body.decode("utf-8"), keep_blank_values=True, separator="&")
        assert form == {name: value for name, value in lenient if value}


@pytest.mark.parametrize(
    ("value", "good"),
    [
        (b"application/x-www-form-urlencoded", True),
        (b"application/x-www-form-urlencoded; charset=utf-8", True),
        (b"Application/X-WWW-Form-Urlencoded;charset=UTF-8", True),
        (b'application/x-www-form-urlencoded; charset="utf-8"', True),
        (b"application/x-www-form-urlencoded; charset=latin-1", False),
        (b"application/x-www-form-urlencoded-x", False),
        (b"application/json", False),
        (b"multipart/form-data; boundary=x", False),
        (b"text/plain", False),
        (b"", False),
        (None, False),
    ],
)
def test_TOK_1_the_content_type_is_the_one_of_forms(value, good):
    """
    Only forms in UTF-8 are taken.
    """
    assert good == is_form(value)


@pytest.mark.parametrize("name", sorted(CREDENTIALS))
def test_TOK_3_credentials_in_the_query_string_are_refused(name):
    """
    Whatever is secret is refused there, however its name is written.
    """
    spelled = "".join(f"%{ord(c):02x}" for c in name)

    for query in (f"{name}=x", f"a=1&{name}", f"{spelled}=x"):
        with pytest.raises(OAuthError, match="body"):
            check_query(query.encode(), 10)


@pytest.mark.parametrize("query", [b"a=1", b"tenant=x&lang=ja", b"&&"])
def test_TOK_3_harmless_queries_pass(query):
    """
    What is not secret is ignored.
    """
    assert check_query(query, 10) is None


@pytest.mark.parametrize("query", [b"%ff=1", b"&" * 20])
def test_TOK_3_unreadable_queries_are_refused(query):
    """
    A query string that cannot be read, or not cheaply, is refused.
    """
    with pytest.raises(OAuthError):
        check_query(query, 10)
