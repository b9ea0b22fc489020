"""
``kagimori ring rotate``, ``activate``, ``cancel``.
"""

from __future__ import annotations


def test_rotate_stages_a_key_and_a_second_one_is_refused(ring):
    """
    A successor waits; another needs --replace (exit 4); cancel takes it back.
    """
    current = ring.current()
    first = ring.json("rotate", "--reason", "spring")["key"]["id"]

    ring.fails(4, "rotate")
    second = ring.json("rotate", "--replace")["key"]["id"]

    assert {current: "current", second: "next"} == ring.states()
    assert first != second
    assert second == ring.json("cancel")["key"]
    ring.fails(6, "cancel")


def test_rotate_now_needs_propagation_or_an_emergency(ring):
    """
    --now is refused before nodes can have the key (exit 5); an emergency asks first.
    """
    before = ring.current()

    ring.fails(5, "rotate", "--now")
    ring.ok("rotate")
    ring.fails(5, "rotate", "--now")
    assert "--yes" in ring.fails(6, "rotate", "--now", "--emergency")
    assert 2 == ring("rotate", "--emergency").exit_code
    assert before == ring.current()
    ring.ok("rotate", "--now", "--emergency", "--yes")

    assert before != ring.current()
    assert "previous" == ring.states()[before]


def test_activate_takes_a_key_by_the_first_characters_of_its_id(ring):
    """
    A waiting key is named by a prefix; too early is exit 5, unknown is exit 7.
    """
    waiting = ring.json("rotate")["key"]["id"]

    ring.fails(5, "activate", waiting[:8])
    ring.fails(7, "activate", "zzzzzzzz")
    ring.ok("activate", waiting[:8], "--emergency", "--yes")

    assert waiting == ring.current()
