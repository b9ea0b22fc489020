"""
``kagimori ring rewrap``, ``copy``, ``export``, ``import``.
"""

from __future__ import annotations


def test_rewrap_moves_to_another_wrapper(ring):
    """
    After rewrap the new wrapper opens the ring and the old one does not.
    """
    token = ring.ok("protect", "--purpose", "a", typed="hello").stdout.strip()
    clear = ring.environ.get("KAGIMORI_RING_WRAPPER", "plaintext:")

    assert clear.rstrip(":") in ring.fails(6, "rewrap", "--to", "passphrase:env:NEW")
    ring.environ["NEW"] = "five more words than before"
    ring.ok("rewrap", "--to", "passphrase:env:NEW", "--yes")

    ring.wrap()
    assert ring("list").exit_code == 3
    ring.environ["KAGIMORI_RING_WRAPPER"] = "passphrase:env:NEW"
    assert "hello" == ring.ok("unprotect", token, "--purpose", "a").stdout


def test_second_envelopes_open_a_ring_whose_wrapper_is_lost(bare):
    """
    The wrapper kept for disaster opens the ring alone, and wraps it for a new one.
    """
    ring = bare
    ring.wrap()
    ring.ok("init")
    ring.environ["SECOND"] = "seven other words in a safe"
    told = ring.json("rewrap", "--recovery", "passphrase:env:SECOND")
    assert told["rewrapped"] is None
    assert told["second_envelopes_written"] == 1
    token = ring.ok("protect", "--purpose", "a", typed="hello").stdout.strip()

    ring.environ |= {
        "RING_PASSPHRASE": None,
        "KAGIMORI_RING_WRAPPER": "passphrase:env:SECOND",
    }
    assert "hello" == ring.ok("unprotect", token, "--purpose", "a").stdout
    ring.environ["NEW"] = "five more words than before"
    ring.ok("rewrap", "--to", "passphrase:env:NEW", "--yes")
    ring.environ["KAGIMORI_RING_WRAPPER"] = "passphrase:env:NEW"
    assert (
        ring.json("rewrap", "--no-recovery", "--yes")["second_envelopes_removed"] == 1
    )


def test_copy_takes_a_whole_ring_and_again_what_came_meanwhile(turned, tmp_path):
    """
    Ids and payloads are the same in the copy; it is repeated while the old ring is in use.
    """
    token = turned.ok("protect", "--purpose", "a", typed="hello").stdout.strip()
    source = f"file://{tmp_path}/ring"
    target = f"file://{tmp_path}/copy.xml?layout=document"

    first = turned.json("copy", source, target)
    turned.ok("rotate")
    second = turned.json("copy", source, target)

    assert (2, 0) == (len(first["keys"]), len(first["already"]))
    assert (1, 2) == (len(second["keys"]), len(second["already"]))
    opened = turned.ok("unprotect", token, "--purpose", "a", "--ring", target)
    assert "hello" == opened.stdout


def test_copy_leaves_an_app_service_folder_of_clear_keys(bare, tmp_path):
    """
    Clear keys come out wrapped, and nothing wraps them by default.
    """
    bare.environ["KAGIMORI_RING_WRAPPER"] = None
    bare.ok("init", "--wrapper", "plaintext:")
    source, target = f"file://{tmp_path}/ring", f"file://{tmp_path}/copy"

    bare.fails(3, "copy", source, target)
    bare.ok("copy", source, target, "--wrapper", "passphrase:env:RING_PASSPHRASE")

    (copied,) = (tmp_path / "copy").glob("key-*.xml")
    assert "encryptedSecret" in copied.read_text("utf-8-sig")
    assert "unencrypted" not in copied.read_text("utf-8-sig")


def test_a_key_travels_under_a_passphrase_from_a_variable(turned, tmp_path):
    """
    What export wrote import reads, and nothing in it is readable.
    """
    (old,) = [id_ for id_, state in turned.states().items() if state == "previous"]
    path = tmp_path / "key.txt"

    env = ("--passphrase-env", "EXPORT_PASSPHRASE")
    turned.ok("export", old[:8], *env, "--out", str(path))
    turned.fails(3, "export", old, *env, "--out", str(path))
    turned.ok("delete", old, "--force", "--yes")
    turned.ok("import", str(path), *env)

    assert "previous" == turned.states()[old]
    assert 0o600 == path.stat().st_mode & 0o777
    assert "masterKey" not in path.read_text("utf-8")


def test_a_weak_passphrase_or_none_is_refused(ring, tmp_path):
    """
    A passphrase comes from one place, is strong, and is never an argument.
    """
    weak = tmp_path / "weak"
    weak.write_text("secret")
    weak.chmod(0o644)

    assert 2 == ring("export", ring.current()).exit_code
    result = ring("export", ring.current(), "--passphrase-file", str(weak))

    assert result.exit_code == 3
    assert "others may read it" in result.stderr
    assert "secret" not in result.stdout


def test_export_prints_and_import_reads_standard_input(turned):
    """
    Without files the text goes through pipes; what is no exported key is refused.
    """
    (old,) = [id_ for id_, state in turned.states().items() if state == "previous"]
    env = ("--passphrase-env", "EXPORT_PASSPHRASE")

    text = turned.ok("export", old, *env).stdout
    turned.ok("delete", old, "--force", "--yes")
    told = turned.json("import", *env, typed=text)

    assert old == told["key"]["id"]
    assert turned("import", *env, typed="nonsense").exit_code == 3
    assert turned("import", "/nowhere", *env).exit_code == 3


def test_a_second_envelope_is_told_of_and_taken_away_after_asking(ring):
    """
    What rewrap did is said in words, and one envelope alone is confirmed.
    """
    ring.environ["SECOND"] = "seven other words in a safe"

    written = ring.ok("rewrap", "--recovery", "passphrase:env:SECOND").stdout
    ring.fails(6, "rewrap", "--no-recovery")
    removed = ring.ok("rewrap", "--no-recovery", "--yes").stdout

    assert "Second envelopes written: 1." in written
    assert "Second envelopes taken away: 1." in removed
    both = ("--no-recovery", "--recovery", "passphrase:env:SECOND")
    assert 2 == ring("rewrap", *both).exit_code


def test_rewrapping_into_the_clear_warns(ring):
    """
    plaintext: leaves keys readable, and the warning comes before the question.
    """
    said = ring.fails(6, "rewrap", "--to", "plaintext:")

    assert "in the clear" in said
    assert "in the clear" in ring.ok("rewrap", "--to", "plaintext:", "--yes").stderr


def test_secrets_in_addresses_are_refused_wherever_one_is_given(ring):
    """
    Every address on the command line is checked, before anything is read or written.
    """
    bad = "certificate:/a.pfx?password=hush"

    for arguments in (
        ["rewrap", "--to", bad],
        ["rewrap", "--recovery", bad],
        ["copy", "file:///a", "file:///b", "--wrapper", bad],
        ["copy", "file:///a", "file:///b", "--from-wrapper", bad],
        ["copy", "redis://:hush@localhost/0", "file:///b"],
    ):
        assert "hush" not in ring.fails(3, *arguments)
