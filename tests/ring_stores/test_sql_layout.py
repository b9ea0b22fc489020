"""
The table that our store and EF Core share.
"""

from __future__ import annotations

import sqlite3

import pytest

from kagimori.errors import ConflictError, RingMalformedError, StoreError
from kagimori.keys.protection import elements, xml
from kagimori.ring_stores.marks import MOST_ELEMENTS
from kagimori.testing.conformance.key_store import ONE, STATE, TWO, meaning, of
from kagimori.testing.conformance.key_store_worker import named
from tests.ring_stores.sql_worlds import World, world

KINDS = ("sqlite", "postgresql", "mariadb")


@pytest.fixture(params=KINDS)
def place(request, tmp_path) -> World:
    return world(request.param, tmp_path, request)


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request, tmp_path) -> World:
    return world(request.param, tmp_path, request)


def test_rows_of_ef_core_are_the_ring(place):
    """
    What EF Core wrote is read under its friendly names; rows without XML are no elements.
    """
    place.migrate()
    assert place.store().load().version is None
    for friendly, text in ((ONE.name, ONE.xml), (None, None), ("empty", "")):
        place.insert(friendly, text)
    place.insert(None, TWO.xml)

    assert of(ONE, TWO) == meaning(place.store().load())


def test_ef_core_reads_what_we_write(place):
    """
    Each element is one row of one line without declaration; our state is one more root element.
    """
    store = place.store()
    after = store.commit([ONE, STATE], (), None)
    store.commit([TWO], (), after.version)

    texts = {friendly: text for _, friendly, text in place.rows()}
    assert {ONE.name, TWO.name, "state"} == set(texts)
    assert all("\n" not in text and "<?xml" not in text for text in texts.values())
    assert elements.is_state(xml.parse(texts["state"]))


def test_ef_core_inserts_after_our_commits(place):
    """
    EF Core's counter is past our explicit ids, in a table of its own making and of ours.
    """
    place.migrate()
    for table in (place, None):
        if table is None:
            with place.session() as session:
                session.run(f"DROP TABLE {place.quoted(place.table)}")
        store = place.store()
        for number in range(4):
            version = store.load().version
            store.commit([named(f"a{number}"), named(f"b{number}")], (), version)
            place.insert(f"key-{number}", named(f"dotnet-{number}").xml)
        store.commit([], [named("a1").name], store.load().version)
        place.insert(ONE.name, ONE.xml)

        found = meaning(place.store().load())
        assert 4 + 8 == len(found)
        assert ONE.name in found


@pytest.mark.parametrize("gap", [50, 5_000, 50_000_000])
def test_ids_of_ef_core_beyond_a_gap_are_no_trouble(server, gap):
    """
    Where the counter is far ahead of the rows, or far behind them, both go on writing.
    """
    server.migrate()
    store = server.store()
    store.commit([ONE], (), None)
    table, id_ = server.quoted(server.table), server.quoted("Id")
    friendly, text = server.quoted("FriendlyName"), server.quoted("Xml")
    with server.session() as session:
        # A row by hand, under an id that the counter of PostgreSQL does not know of.
        session.run(
            f"INSERT INTO {table} ({id_}, {friendly}, {text}) VALUES (?, ?, ?)",
            *(gap, TWO.name, TWO.xml),
        )
    store.commit([named("mine")], (), store.load().version)
    server.insert("theirs", named("theirs").xml)
    store.commit([], [TWO.name], store.load().version)
    server.insert("later", named("later").xml)

    names = set(meaning(store.load()))
    assert {ONE.name, named("mine").name, "theirs", "later"} == names


def test_a_table_without_a_counter_takes_our_commits(tmp_path, request):
    """
    A table whose ids have no default is written to all the same.
    """
    place = world("postgresql", tmp_path, request)
    place.migrate(
        'CREATE TABLE "{table}" ("Id" integer PRIMARY KEY, "FriendlyName" text, "Xml" text)'
    )
    after = place.store().commit([ONE], (), None)
    place.store().commit([TWO], (), after.version)

    assert [1, 3, 4] == [row[0] for row in place.rows()]
    assert of(ONE, TWO) == meaning(place.store().load())


def test_identity_always_is_written_to(tmp_path, request):
    """
    Ids that PostgreSQL gives always (GENERATED ALWAYS, and serial) are overridden.
    """
    place = world("postgresql", tmp_path, request)
    for column in ("integer GENERATED ALWAYS AS IDENTITY", "serial"):
        place.migrate(
            'CREATE TABLE "{table}" ("Id" '
            + column
            + ' PRIMARY KEY, "FriendlyName" text, '
            '"Xml" text)'
        )
        store = place.store()
        after = store.commit([ONE], (), None)
        place.insert(TWO.name, TWO.xml)
        assert of(ONE, TWO) == meaning(store.load()) != meaning(after)
        with place.session() as session:
            session.run(f'DROP TABLE "{place.table}"')


def test_columns_of_another_naming_convention_are_found(place):
    """
    Columns in snake case are the same columns; a table without them is no ring's.
    """
    text = "longtext" if place.kind == "mariadb" else "text"
    key = {
        "sqlite": "integer PRIMARY KEY AUTOINCREMENT",
        "postgresql": "serial PRIMARY KEY",
        "mariadb": "int AUTO_INCREMENT PRIMARY KEY",
    }[place.kind]
    table = place.quoted(place.table)
    place.migrate(f"CREATE TABLE {table} (id {key}, friendly_name {text}, xml {text})")
    place.store().commit([ONE], (), None)
    assert of(ONE) == meaning(place.store().load())

    with place.session() as session:
        session.run(f"DROP TABLE {table}")
    place.migrate(f"CREATE TABLE {table} (id {key}, name {text})")
    with pytest.raises(StoreError, match="no column friendlyname and no xml"):
        place.store().load()


def test_rings_lie_side_by_side(place):
    """
    Two tables of one database are two rings.
    """
    other = f"{place.table}_other"
    place.store().commit([ONE], (), None)
    place.store(table=other).commit([TWO], (), None)

    assert of(ONE) == meaning(place.store().load())
    assert of(TWO) == meaning(place.store(table=other).load())
    assert place.store().name != place.store(table=other).name


def test_what_ef_core_adds_in_between_is_a_conflict(place):
    """
    A commit decided before EF Core's insert is refused; decided after it, it holds.
    """
    store = place.store()
    before = store.commit([ONE], (), None)
    place.insert(TWO.name, TWO.xml)
    with pytest.raises(ConflictError):
        store.commit([named("three")], (), before.version)
    store.commit([named("three")], (), store.load().version)

    assert of(ONE, TWO, named("three")) == meaning(store.load())


def test_rows_removed_by_hand_are_seen(place):
    """
    A row that somebody deletes or changes moves version and probe, even back at the top.
    """
    store = place.store()
    after = store.commit([ONE, TWO], (), None)
    seen = [(after.version, store.probe())]
    table, id_ = place.quoted(place.table), place.quoted("Id")
    text = place.quoted("Xml")
    for statement in (
        f"UPDATE {table} SET {text} = '<a />' WHERE {id_} = 1",
        f"DELETE FROM {table} WHERE {id_} = 1",
        f"DELETE FROM {table} WHERE {id_} = 3",
        f"DELETE FROM {table}",
    ):
        with place.session() as session:
            session.run(statement)
        seen.append((store.load().version, store.probe()))

    assert 5 == len({version for version, _ in seen})
    assert 5 == len({token for _, token in seen})
    assert seen[-1][0] is None


def test_several_states_become_one(place):
    """
    Of several state elements, as a merged backup may hold, the newest counts, and one is left.
    """
    store = place.store()
    store.commit([ONE, STATE], (), None)
    older = STATE.xml.replace('generation="7"', 'generation="9"')
    place.insert(None, older)
    state = next(e for e in store.load().elements if e.name == elements.STATE)
    assert 9 == elements.read_state(xml.parse(state.xml)).generation
    store.commit([TWO], (), store.load().version)

    states = [text for _, _, text in place.rows() if "urn:kagimori" in text]
    assert 1 == len(states)
    assert 'generation="9"' in states[0]


def test_names_of_strangers_do_no_harm(place):
    """
    A row whose friendly name is ours for the state, or no name, is named by what it holds.
    """
    place.migrate()
    place.insert("state", ONE.xml)
    place.insert("../x y", TWO.xml)

    assert of(ONE, TWO) == meaning(place.store().load())


def test_a_row_that_is_no_xml_makes_the_ring_unreadable(place):
    """
    Unreadable is not absent: a broken row without a name is an error, and nothing is written.
    """
    place.migrate()
    place.insert(None, "<broken")

    with pytest.raises(RingMalformedError):
        place.store().load()
    with pytest.raises(RingMalformedError):
        place.store().commit([ONE], (), None)
    assert 1 == len(place.rows())


def test_columns_too_short_or_of_another_character_set_are_refused(tmp_path, request):
    """
    What a table would give back changed is not committed; an element that fits is.
    """
    place = world("mariadb", tmp_path, request)
    server = request.getfixturevalue("mariadb")
    server.run("SET GLOBAL sql_mode = ''")
    try:
        place.migrate(
            "CREATE TABLE `{table}` (Id int AUTO_INCREMENT PRIMARY KEY, FriendlyName "
            "varchar(200), Xml varchar(2000) CHARACTER SET latin1)"
        )
        long = named("y" * 3000)
        for element in (named("鍵守"), long):
            with pytest.raises(StoreError, match="give back") as caught:
                place.store().commit([element], (), None)
            assert not isinstance(caught.value, ConflictError)
            assert not caught.value.transient
        assert [] == place.rows()
        place.store().commit([ONE], (), None)
    finally:
        server.run("SET GLOBAL sql_mode = DEFAULT")

    assert of(ONE) == meaning(place.store().load())


def test_ids_that_are_used_up_are_refused(place):
    """
    EF Core's ids are 32 bits wide: the one beyond is not given.
    """
    place.migrate()
    id_, text = place.quoted("Id"), place.quoted("Xml")
    with place.session() as session:
        session.run(
            f"INSERT INTO {place.quoted(place.table)} ({id_}, {text}) VALUES (?, ?)",
            *(2**31 - 2, ONE.xml),
        )
    store = place.store()
    with pytest.raises(StoreError, match="used up"):
        store.commit([TWO], (), store.load().version)
    assert of(ONE) == meaning(store.load())
    store.commit([], [ONE.name], store.load().version)

    assert [2**31 - 1] == [row[0] for row in place.rows()]


def test_a_table_with_too_many_rows_is_refused(tmp_path, request):
    """
    A ring has a bounded number of elements.
    """
    place = world("sqlite", tmp_path, request)
    place.migrate()
    with place.session() as session:
        session.run(
            f'INSERT INTO "{place.table}" ("Xml") WITH RECURSIVE n(i) AS (SELECT 1 UNION '
            f"ALL SELECT i + 1 FROM n WHERE i <= {MOST_ELEMENTS}) SELECT '' FROM n"
        )

    with pytest.raises(StoreError, match="more than"):
        place.store().load()
    with place.session() as session:
        session.run(f'DELETE FROM "{place.table}" WHERE "Id" > 10')
    assert () == place.store().load().elements


def test_a_sqlite_file_is_its_owners(tmp_path, request):
    """
    The first commit makes file and folder for their owner alone; a load makes nothing.
    """
    place = tmp_path / "deep" / "folder"
    store = world("sqlite", place, request).store()
    assert store.load().version is None
    assert store.probe() is None
    assert not place.exists()
    store.commit([ONE], (), None)

    assert 0o600 == (place / "ring.db").stat().st_mode & 0o777
    assert 0o700 == place.stat().st_mode & 0o777
    assert () == store.loose_modes()
    assert not store.others_may_write()


def test_a_sqlite_file_in_wal_mode_serves_too(tmp_path, request):
    """
    EF Core makes its databases in WAL mode: that is left as it is.
    """
    place = world("sqlite", tmp_path, request)
    place.migrate()
    connection = sqlite3.connect(tmp_path / "ring.db")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    place.store().commit([ONE], (), None)

    assert of(ONE) == meaning(place.store(read_only=True).load())
    connection = sqlite3.connect(tmp_path / "ring.db")
    assert ("wal",) == connection.execute("PRAGMA journal_mode").fetchone()
    connection.close()
