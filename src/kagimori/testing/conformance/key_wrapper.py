"""
What every `kagimori.keys.wrapping.KeyWrapper` must do.

Derive from `KeyWrapperConformance` in a test file.
"""

from __future__ import annotations

import pickle
import re
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from kagimori.errors import KeyWrapError
from kagimori.keys.protection import descriptor, xml
from kagimori.keys.wrapping import KeyWrapper, WrappedSecret

CONTEXT = "3d6d01fd-c0e7-44ae-82dd-013b996b4093"
OTHER_CONTEXT = "7187fd37-1a8a-44dc-9bd6-c57d996ba2f5"
MASTER = bytes(range(64))
SECRET = descriptor.secret_text(MASTER)
_BASE64 = re.compile(r"[A-Za-z0-9+/]{16,}={0,2}")


def meaning(text: str) -> str:
    """
    Return an element in one spelling, so that namespaces' prefixes do not count.
    """
    return xml.write(xml.parse(text))


class KeyWrapperConformance:
    """
    The suite, for wrappers that hide what they wrap. Fill in the two hooks.

    Attributes:
        binds_context: whether an envelope opens only for the key id that it was made for.
        is_authenticated: whether every altered envelope is refused. Where it is not (formats of
            others), an altered one is refused by a `KeyWrapError` or opens to an element.
        tampered: how many places of an envelope are altered.
    """

    binds_context: ClassVar[bool] = True
    is_authenticated: ClassVar[bool] = True
    tampered: ClassVar[int] = 64

    def make_wrapper(self, place: Path) -> KeyWrapper:
        """
        Return a wrapper over the wrapping key of this test; again the same key when called again.
        """
        raise NotImplementedError

    def make_other(self, place: Path) -> KeyWrapper:
        """
        Return a wrapper of the same kind over another wrapping key.
        """
        raise NotImplementedError

    # --- there and back --------------------------------------------------------------------

    def test_what_was_wrapped_is_unwrapped(self, tmp_path: Path) -> None:
        """
        A secret comes back, from the wrapper that wrapped it and from one made anew.
        """
        wrapped = self.make_wrapper(tmp_path).wrap(SECRET, CONTEXT)

        for wrapper in (self.make_wrapper(tmp_path), self.make_wrapper(tmp_path)):
            assert wrapper.can_unwrap(wrapped)
            assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))

    @pytest.mark.parametrize(
        "text",
        ["", "<&>\"'", "]]>", "鍵守 🗝", " \t two  blanks ", "a\r\nb", "x" * 100_000],
    )
    def test_any_text_survives(self, tmp_path: Path, text: str) -> None:
        """
        Characters that XML treats specially, all of Unicode, and long texts come back.
        """
        wrapper = self.make_wrapper(tmp_path)
        root = xml.element("masterKey", {"note": text.replace("\r\n", " ")}, text)
        wrapped = wrapper.wrap(xml.write(root), CONTEXT)
        opened = xml.parse(wrapper.unwrap(wrapped, CONTEXT))

        assert text == (opened.text or "")
        assert root.attrib == opened.attrib

    def test_the_envelope_is_one_element_and_hides_the_secret(
        self, tmp_path: Path
    ) -> None:
        """
        What is stored is well-formed, names its decryptor, and does not hold the secret.
        """
        wrapped = self.make_wrapper(tmp_path).wrap(SECRET, CONTEXT)
        xml.parse(wrapped.child)

        assert descriptor.class_name(wrapped.decryptor_type)
        for part in (SECRET, xml.text_of(xml.parse(SECRET))):
            assert part not in wrapped.child
            assert part not in wrapped.decryptor_type

    def test_two_envelopes_of_one_secret_differ(self, tmp_path: Path) -> None:
        """
        Wrapping draws fresh randomness each time.
        """
        wrapper = self.make_wrapper(tmp_path)
        children = {wrapper.wrap(SECRET, CONTEXT).child for _ in range(3)}

        assert 3 == len(children)

    def test_many_threads_may_share_a_wrapper(self, tmp_path: Path) -> None:
        """
        Wrapping and unwrapping side by side gives each thread its own secret back.
        """
        wrapper = self.make_wrapper(tmp_path)
        failed = []

        def work(number: int) -> None:
            secret = descriptor.secret_text(bytes([number]) * 64)
            wrapped = wrapper.wrap(secret, CONTEXT)
            if meaning(wrapper.unwrap(wrapped, CONTEXT)) != meaning(secret):
                failed.append(number)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [] == failed

    # --- refusals --------------------------------------------------------------------------

    def test_another_wrapping_key_does_not_open(self, tmp_path: Path) -> None:
        """
        K5: a wrapper over another key refuses, and says nothing of the secret.
        """
        wrapped = self.make_wrapper(tmp_path).wrap(SECRET, CONTEXT)

        with pytest.raises(KeyWrapError) as caught:
            self.make_other(tmp_path).unwrap(wrapped, CONTEXT)
        assert not caught.value.transient
        assert caught.value.text

    def test_an_envelope_of_another_kind_is_not_ours(self, tmp_path: Path) -> None:
        """
        Envelopes are told apart by the class in their type's name, of whatever version.
        """
        wrapper = self.make_wrapper(tmp_path)
        wrapped = wrapper.wrap(SECRET, CONTEXT)
        name = wrapped.decryptor_type.partition(",")[0]

        assert wrapper.can_unwrap(WrappedSecret(f"{name}, X, Version=9.9.9.9", ""))
        assert not wrapper.can_unwrap(WrappedSecret("Some.Other.XmlDecryptor, X", ""))
        assert not wrapper.can_unwrap(WrappedSecret("", wrapped.child))

    def test_k3_an_envelope_moved_to_another_key_is_refused(
        self, tmp_path: Path
    ) -> None:
        """
        K3: where the format can bind the key's id, it does.
        """
        wrapper = self.make_wrapper(tmp_path)
        wrapped = wrapper.wrap(SECRET, CONTEXT)
        if self.binds_context:
            with pytest.raises(KeyWrapError):
                wrapper.unwrap(wrapped, OTHER_CONTEXT)
        else:
            wrapper.unwrap(wrapped, OTHER_CONTEXT)

        assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))

    def test_k1_an_altered_envelope_is_refused(self, tmp_path: Path) -> None:
        """
        K1: wherever a byte of an envelope changes, it is refused by a `KeyWrapError` alone.
        """
        wrapper = self.make_wrapper(tmp_path)
        wrapped = wrapper.wrap(SECRET, CONTEXT)
        spans = [match.span() for match in _BASE64.finditer(wrapped.child)]
        places = [place for start, end in spans for place in range(start, end - 2)]
        step = max(1, len(places) // self.tampered)

        for place in places[::step]:
            old = wrapped.child[place]
            new = "A" if old != "A" else "B"
            child = wrapped.child[:place] + new + wrapped.child[place + 1 :]
            altered = WrappedSecret(wrapped.decryptor_type, child)
            try:
                opened = wrapper.unwrap(altered, CONTEXT)
            except KeyWrapError:
                continue
            assert not self.is_authenticated
            xml.parse(opened)

    @pytest.mark.parametrize(
        "child",
        [
            "",
            "nothing",
            "<x/>",
            "<x",
            "<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>",
            "\ud800",
        ],
    )
    def test_what_is_no_envelope_is_refused(self, tmp_path: Path, child: str) -> None:
        """
        Whatever stands where an envelope should be is refused as a `KeyWrapError`.
        """
        wrapper = self.make_wrapper(tmp_path)
        kind = wrapper.wrap(SECRET, CONTEXT).decryptor_type

        with pytest.raises(KeyWrapError):
            wrapper.unwrap(WrappedSecret(kind, child), CONTEXT)

    def test_an_envelope_without_one_of_its_parts_is_refused(
        self, tmp_path: Path
    ) -> None:
        """
        Each part of an envelope is needed, or does not matter; nothing else is raised.
        """
        wrapper = self.make_wrapper(tmp_path)
        wrapped = wrapper.wrap(SECRET, CONTEXT)
        count = len(list(xml.parse(wrapped.child).iter()))
        for index in range(1, count):
            root = xml.parse(wrapped.child)
            parents = {child: parent for parent in root.iter() for child in parent}
            node = list(root.iter())[index]
            parents[node].remove(node)
            self._opens_or_refuses(wrapper, wrapped, root)
        for index in range(count):
            for name in list(xml.parse(wrapped.child).iter())[index].attrib:
                root = xml.parse(wrapped.child)
                del list(root.iter())[index].attrib[name]
                self._opens_or_refuses(wrapper, wrapped, root)

    def _opens_or_refuses(
        self, wrapper: KeyWrapper, wrapped: WrappedSecret, root: xml.Element
    ) -> None:
        changed = WrappedSecret(wrapped.decryptor_type, xml.write(root))
        try:
            opened = wrapper.unwrap(changed, CONTEXT)
        except KeyWrapError:
            return
        assert meaning(SECRET) == meaning(opened)

    # --- secrets ---------------------------------------------------------------------------

    def test_k9_no_secret_shows(self, tmp_path: Path) -> None:
        """
        K9: name, repr and errors hold no secret, and a wrapper that holds keys is not pickled.
        """
        wrapper = self.make_wrapper(tmp_path)
        wrapped = wrapper.wrap(SECRET, CONTEXT)
        with pytest.raises(KeyWrapError) as caught:
            self.make_other(tmp_path).unwrap(wrapped, CONTEXT)
        shown = [wrapper.name, repr(wrapper), str(caught.value), caught.value.detail]

        assert wrapper.name
        assert not wrapper.is_plaintext
        for text in shown:
            for secret in (*self.secrets(), xml.text_of(xml.parse(SECRET))):
                assert secret not in text
        with pytest.raises(TypeError):
            pickle.dumps(wrapper)

    def secrets(self) -> tuple[str, ...]:
        """
        Return texts that must never show, such as the passphrase.
        """
        return ()
