"""
``kagimori ring revoke``, ``delete``, ``compromise``.
"""

from __future__ import annotations


def test_revoke_shows_what_it_cuts_and_asks(turned):
    """
    The preview names key and span, nothing happens without a yes, and payloads fail after.
    """
    (old,) = [id_ for id_, state in turned.states().items() if state == "previous"]

    said = turned.fails(6, "revoke", old)
    assert "previous" == turned.states()[old]
    turned.ok("revoke", old, "--reason", "leaked", "--yes")

    assert f"{old} (previous): whatever it protected from" in said
    assert "revoked" == turned.states()[old]


def test_revoking_the_current_key_replaces_it_in_the_same_step(ring):
    """
    Another key protects at once, and the preview says so.
    """
    old = ring.current()

    result = ring.ok("revoke", old, "--yes")

    assert "Another key takes over" in result.stderr
    assert {"revoked", "current"} == set(ring.states().values())
    assert old != ring.current()


def test_revoke_before_a_date_takes_all_older_keys(turned):
    """
    A date in the past revokes what was made before it; one that is no date is a usage error.
    """
    turned.ok("revoke", "--before", "2020-01-01", "--yes")
    assert {"previous", "current"} == set(turned.states().values())
    assert 2 == turned("revoke", "--before", "soon", "--yes").exit_code
    assert 2 == turned("revoke", "--yes").exit_code
    turned.fails(6, "revoke", "--before", "2999-01-01", "--yes")


def test_delete_needs_force_for_what_still_opens(turned):
    """
    A previous key goes by force only, the current one never, an unknown one is exit 7.
    """
    states = {state: id_ for id_, state in turned.states().items()}

    turned.fails(6, "delete", states["current"], "--force", "--yes")
    turned.fails(6, "delete", states["previous"], "--yes")
    turned.fails(7, "delete", "12345678", "--yes")
    turned.ok("delete", states["previous"], "--force", "--yes")

    assert [states["current"]] == list(turned.states())


def test_compromise_revokes_replaces_and_says_what_it_cuts(turned):
    """
    After a theft every key is revoked and a fresh one protects.
    """
    before = turned.states()

    assert 2 == turned("compromise", "--yes").exit_code
    turned.fails(6, "compromise", "--all", "--no-wait")
    told = turned.json("compromise", "--all", "--no-wait", "--yes")

    assert set(before) == {cut["key"] for cut in told["cuts"]}
    assert told["replacement"]["id"] == turned.current()
    assert {"revoked"} == {turned.states()[id_] for id_ in before}


def test_a_key_that_cannot_be_read_is_deleted_by_its_whole_id_and_force(turned):
    """
    Nobody knows what it protected, and the preview says so.
    """
    (old,) = [id_ for id_, state in turned.states().items() if state == "previous"]
    path = turned.folder / "ring" / f"key-{old}.xml"
    text = path.read_text("utf-8-sig")
    path.write_text(text.replace("<activationDate>", "<activationDate>never "))

    turned.fails(6, "delete", old, "--yes")
    result = turned.ok("delete", old, "--force", "--yes")

    assert "cannot be read" in result.stderr
    assert not path.exists()


def test_a_key_that_never_protected_cuts_nothing(ring):
    """
    Revoking a waiting key, or one that is revoked, says that nothing is cut by it.
    """
    waiting = ring.json("rotate")["key"]["id"]

    first = ring.ok("revoke", waiting, "--yes").stderr
    second = ring.ok("revoke", waiting, "--yes").stderr

    assert "has not protected anything yet" in first
    assert "nothing that it protected opens already" in second
