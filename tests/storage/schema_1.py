"""
What a program of schema 1 asks of a database, frozen: it is never changed, whatever comes later.

``python -m tests.storage.schema_1 FILE NAME TIMES`` counts the document NAME up, as the release
that shipped schema 1 would beside a newer one during a deploy, and prints where it arrived.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import time

SCHEMA = 1

LOAD = """
SELECT s.last_commit, d0.id, d0.version, d0.body, d0.expires FROM state s
LEFT JOIN document d0 ON d0.tenant = ?1 AND d0.kind = ?3 AND d0.id = ?4
AND (d0.expires IS NULL OR d0.expires > max(?2, s.last_commit - 5000000))
"""
INSERT = """
INSERT INTO document (tenant, kind, id, version, expires, sweep, indexes, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
UPDATE = """
UPDATE document SET version = ?, expires = ?, body = ?
WHERE tenant = ? AND kind = ? AND id = ? AND version = ?
"""
INDEX = "INSERT OR REPLACE INTO document_index VALUES (?, ?, ?, ?, ?)"
STATE = "SELECT revision, last_commit, counter FROM state"
END = "UPDATE state SET revision = ?, last_commit = max(last_commit, ?), counter = ?"


def connect(path: str) -> sqlite3.Connection:
    """
    Open the database as schema 1 does: refuse it only if it says so.
    """
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    query = "SELECT oldest_reader FROM schema_level"
    (oldest_reader,) = connection.execute(query).fetchone()
    assert oldest_reader <= SCHEMA, "too new"
    return connection


def increment(connection: sqlite3.Connection, id_: str) -> int:
    """
    Add one to the number in a document; return the new number.
    """
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            break
        except sqlite3.OperationalError:
            time.sleep(random.uniform(0.0001, 0.002))
    now = time.time_ns() // 1000
    revision, _, counter = connection.execute(STATE).fetchone()
    row = connection.execute(LOAD, ("acme", now, "number", id_)).fetchone()
    number = 1 if row[1] is None else int(row[3]) + 1
    body, expires = b"%d" % number, now + 3_600_000_000
    if row[1] is None:
        new = ("acme", "number", id_, revision + 1, expires, expires, '{"by":"old"}')
        changed = connection.execute(INSERT, (*new, body)).rowcount
        connection.execute(INDEX, ("acme", "number", "by", "old", id_))
    else:
        same = ("acme", "number", id_, row[2])
        changed = connection.execute(
            UPDATE, (revision + 1, expires, body, *same)
        ).rowcount
    assert changed == 1
    connection.execute(END, (revision + 1, now, counter + 1))
    connection.execute("COMMIT")
    return number


if __name__ == "__main__":
    database = connect(sys.argv[1])
    for _ in range(int(sys.argv[3])):
        reached = increment(database, sys.argv[2])
    database.close()
    sys.stdout.write(f"{reached}\n")
