"""
What calling code may not ask of any store; each refusal stands beside what is taken.
"""

from __future__ import annotations

import pytest

from kagimori.storage.checks import (
    MAX_BODY,
    MAX_KEYS,
    MAX_PAGE,
    check_changes,
    check_keys,
    check_page,
)
from kagimori.storage.store import ABSENT, Check, Delete, DocumentKey, Put, Reference

KEY = DocumentKey("note", "1")


def refused(message: str, check, *arguments) -> None:
    """
    See that arguments are refused with a message that does not repeat them.
    """
    with pytest.raises(ValueError, match=message) as caught:
        check(*arguments)
    assert "hunter2" not in str(caught.value)


def test_a_read_has_so_many_keys_at_most():
    """
    The longest read is taken, one key more is not.
    """
    check_keys("acme", [KEY] * MAX_KEYS)

    refused(f"{MAX_KEYS} keys", check_keys, "acme", [KEY] * (MAX_KEYS + 1))


@pytest.mark.parametrize("field", ['a"b', "a\\b", "rôle", "a\nb", ""])
def test_a_field_is_named_plainly(field: str):
    """
    What could leave the quotes around it is refused, in references and in index fields.
    """
    for taken in ("user", "protection:6f1c-9", "a.b[0]", "it's"):
        check_keys("acme", [KEY, Reference("user", 0, taken)])
        check_changes("acme", [Put("note", "1", b"", ABSENT, {taken: "x"})])

    refused("plain ASCII", check_keys, "acme", [KEY, Reference("user", 0, field)])
    put = Put("note", "1", b"hunter2", ABSENT, {field: "hunter2"})
    refused("plain ASCII", check_changes, "acme", [put])


def test_a_body_has_so_many_bytes_at_most():
    """
    The longest body is taken, one byte more is not.
    """
    check_changes("acme", [Put("note", "1", bytes(MAX_BODY), ABSENT)])

    long = Put("note", "1", bytes(MAX_BODY + 1), ABSENT)
    refused(f"{MAX_BODY} bytes", check_changes, "acme", [long])


def test_a_commit_names_a_document_once():
    """
    Different documents and kinds are taken, the same one twice is not, however it is named.
    """
    put, delete = Put("note", "1", b"", ABSENT), Delete("note", "1", 1)
    check_changes("acme", [put, Delete("note", "2", 1), Check("other", "1", 1)])

    refused("once", check_changes, "acme", [put, delete])
    refused("once", check_changes, "acme", [delete, Check("note", "1", 1)])


@pytest.mark.parametrize("text", ["hunter2\ud800", "\udfff"])
def test_text_is_unicode(text: str):
    """
    Whatever UTF-8 can say is taken, a lone surrogate nowhere.
    """
    for taken in ("", "\x00", "鍵", "🗝"):
        check_keys(taken, [DocumentKey("note", taken)])
        check_changes(taken, [Put("note", taken, b"", ABSENT, {"a": taken})])

    refused("Unicode", check_keys, text, [])
    refused("Unicode", check_keys, "acme", [DocumentKey("note", text)])
    refused("Unicode", check_changes, text, [])
    refused("Unicode", check_changes, "acme", [Check("note", text, ABSENT)])
    put = Put("note", "1", b"", ABSENT, {"a": text})
    refused("Unicode", check_changes, "acme", [put])


def test_a_page_has_bounds():
    """
    One to a thousand documents are a page.
    """
    check_page(1)
    check_page(MAX_PAGE)

    for limit in (0, -5, MAX_PAGE + 1):
        refused(f"1 to {MAX_PAGE}", check_page, limit)
