"""
The token's field of a form that is searched before anybody is known to have sent it.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from kagimori.integrations.csrf import FIELD, HEADER

FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
MOST_FORM = 1024 * 1024
"""How many bytes of a form are looked into: whoever has no session may send one."""
TOO_LARGE = f"A form over 1 MB brings its token in the header {HEADER}."

_MOST_HEAD = 1024
_PAIR = re.compile(rb"(?:^|&)" + FIELD.encode() + rb"=([^&]*)")
_BOUNDARY = re.compile(r"""(?i)\bboundary="?([^";,\s]{1,70})""")
_PART = re.compile(
    rb"(?i)^content-disposition:[^\r\n]*;[ \t]*name=\"?" + FIELD.encode() + rb"\b",
    re.MULTILINE,
)


def find_token(kind: str, body: bytes) -> bytes | None:
    """
    Return the token's field of a form, in time that grows with the form and no faster.

    Whoever has no session may send a form: it is searched, and not parsed.
    """
    if kind.lower().startswith("application/"):
        found = _PAIR.search(body)
        return unquote_to_bytes(found[1].replace(b"+", b" ")) if found else None
    boundary = _BOUNDARY.search(kind)
    if boundary is None:
        return None
    for part in body.split(b"--" + boundary[1].encode("latin-1")):
        head, _, content = part.partition(b"\r\n\r\n")
        if len(head) <= _MOST_HEAD and _PART.search(head):
            return content.removesuffix(b"\r\n")
    return None
