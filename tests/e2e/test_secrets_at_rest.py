"""
No secret lies readable in folder, database, write-ahead log, logs or metrics.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import shutil

import joserfc.jwk
import pytest

from kagimori.compose import opened
from kagimori.crypto.jwk import Jwk
from kagimori.keys.documents import RINGS
from kagimori.keys.material import open_secret
from kagimori.keys.protection import descriptor
from kagimori.keys.timeline import KeyUse
from kagimori.settings import read_settings
from kagimori.tokens.records import FAMILIES
from kagimori.tokens.refresh_token import RefreshToken
from kagimori.tokens.tag_keys import PURPOSES
from tests.e2e.searching import Secrets, contents, written
from tests.e2e.server import (
    EMERGENCY,
    NO_THROTTLE,
    TESTCLIENT,
    Program,
    Server,
    basic,
    eventually,
    free_port,
)

TALKATIVE = {**NO_THROTTLE, "KAGIMORI_LOG_LEVEL": "debug"}
PRIVATE = ("d", "p", "q", "dp", "dq", "qi")


class Witness:
    """
    Writes down every secret of an installation, as its clients and its own process know them.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.secrets = Secrets()

    def tokens(self, answer):
        """
        Take note of a token answer; return it.
        """
        if "refresh_token" in answer:
            token = RefreshToken.parse(answer["refresh_token"])
            raw = token.to_bytes()
            self.secrets.add("refresh token", answer["refresh_token"])
            # B3: version, family id, generation, then the secret, its tag and a checksum.
            self.secrets.add("inner secret of a refresh token", raw[-52:-20])
            self.secrets.add("tag of a refresh token", raw[-20:-4])
        _, payload, signature = answer["access_token"].split(".")
        # The head is public, and so is what it encodes.
        self.secrets.add("access token", f"{payload}.{signature}", signature)
        return answer

    def keys(self):
        """
        Take note of all key material by unwrapping it.
        """
        asyncio.run(self._keys())

    async def _keys(self):
        async with opened(read_settings(self.server.data, {})) as installation:
            for key in installation.ring._live.contents.keys:
                _, master = descriptor.read_secret(
                    key.stored.id, key.stored.text, key.material._unwrap
                )
                self.secrets.add("ring master key", master)
            for tenant in await installation.tenants.list():
                for use in (KeyUse.SIGNING, KeyUse.COOKIE):
                    await self._ring(installation, tenant.id, use)
                await self._tag_keys(installation, tenant.id)

    async def _ring(self, installation, tenant, use):
        stored = await RINGS.get(installation.store, tenant, use.value)
        for key in stored.value.keys:
            if key.private is None:
                continue
            secret = open_secret(installation.ring, tenant, use, key)
            if use is KeyUse.COOKIE:
                self.secrets.add("cookie key", secret)
                continue
            members = json.loads(secret)
            self.secrets.add(
                "private key", *(members[n] for n in PRIVATE if n in members)
            )

    async def _tag_keys(self, installation, tenant):
        for family in await FAMILIES.find(installation.store, tenant, limit=1000):
            text = family.value.tag_key.text
            protector = installation.ring.protector(*PURPOSES, tenant)
            self.secrets.add("tag key", protector.unprotect(text).payload)


def places(server):
    """
    Return all that a thief of disk, backup, logs or metrics gets.
    """
    found = contents(server.data)
    found += [("log", server.log.encode()), ("output", server.said.encode())]
    if not server.is_over:
        found.append(("metrics", server.admin("/metrics").body))
    return found


def refresh_often(witness, client, token, times, authorization=TESTCLIENT):
    for _ in range(times):
        token = witness.tokens(client.refresh(token, authorization))["refresh_token"]
    return token


# --- the search itself ---------------------------------------------------------------------


ENCODINGS = {
    "text": lambda s: s,
    "hex": lambda s: s.hex().encode(),
    "HEX": lambda s: s.hex().upper().encode(),
    "base64": base64.b64encode,
    "base64url": base64.urlsafe_b64encode,
    "within base64, 1": lambda s: base64.b64encode(b"x" + s + b"yz"),
    "within base64, 2": lambda s: base64.b64encode(b"xx" + s + b"yz"),
    "within base64url": lambda s: base64.urlsafe_b64encode(b"xx" + s),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ["kagimori.db", "kagimori.db-wal", "ring/key-1.xml"])
def test_the_search_finds_what_was_planted(tmp_path, encoding, name):
    """
    A secret in any file and encoding is found; its hash and another secret are not.
    """
    known, planted = Secrets(), secrets.token_bytes(32)
    known.add("planted", planted)
    noise = secrets.token_bytes(50_000) + hashlib.sha256(planted).digest()
    (tmp_path / "ring").mkdir()
    (tmp_path / name).write_bytes(noise)
    clean = known.find(contents(tmp_path))

    (tmp_path / name).write_bytes(noise + ENCODINGS[encoding](planted) + noise)
    found = known.find(contents(tmp_path))

    assert [] == clean
    assert [f"planted in {name}"] == found


def test_the_search_finds_what_a_text_encodes_and_what_pages_split():
    """
    A token's bytes are found where the token was decoded, and half of a long value is enough.
    """
    known, inner = Secrets(), secrets.token_bytes(300)
    known.add("token", "kgm_rt_" + base64.urlsafe_b64encode(inner).decode().rstrip("="))

    assert known.find([("raw", inner)])
    assert known.find([("first half", inner[:140])])
    assert known.find([("second half", inner[160:])])
    assert [] == known.find([("other", secrets.token_bytes(300))])
    assert all(len(form) >= 24 for form in written(secrets.token_bytes(32)))


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "Ed25519"])
@pytest.mark.parametrize("form", ["JWK", "PEM", "PEM in JSON", "DER"])
def test_the_search_finds_private_keys_in_every_form(algorithm, form):
    """
    Of a key only the private members are looked for, and found in JWK, PEM and DER; the public
    half is no find.
    """
    jwk = Jwk.generate(algorithm)
    members = jwk.to_dict(private=True)
    key = joserfc.jwk.import_key(members)
    known = Secrets()
    known.add("private key", *(members[name] for name in PRIVATE if name in members))

    private, public = {
        "JWK": (json.dumps(members).encode(), json.dumps(jwk.to_dict()).encode()),
        "PEM": (key.as_pem(private=True), key.as_pem(private=False)),
        "PEM in JSON": tuple(
            json.dumps({"key": key.as_pem(private=half).decode()}).encode()
            for half in (True, False)
        ),
        "DER": (key.as_der(private=True), key.as_der(private=False)),
    }[form]

    assert ["private key in file"] == known.find([("file", private)])
    assert [] == known.find([("file", public)])


# --- a real installation -------------------------------------------------------------------


def test_K9_no_secret_of_a_long_scenario_is_found_anywhere(make_server, tmp_path):
    """
    init, users, clients, refreshes, rotations, revocations, tenants: nothing of it lies readable.
    """
    port = free_port()
    server = make_server(demo=False, port=port, environ=TALKATIVE)
    witness = Witness(server)
    known, program = witness.secrets, server.program

    passphrase = "walnut-lantern-" + secrets.token_urlsafe(24)
    file = tmp_path / "passphrase"
    file.write_text(passphrase + "\n")
    file.chmod(0o600)
    made = program.json(
        *("init", "--issuer", f"http://localhost:{port}", "--owner", "boss"),
        *("--wrapper", f"passphrase:file:{file}"),
    )
    known.add("passphrase", passphrase)
    known.add("owner link", made["owner_link"].partition("invitation=")[2])
    witness.keys()

    users = {name: f"seven {secrets.token_hex(6)} herons" for name in ("mina", "otto")}
    for name, password in users.items():
        program.ok("users", "create", name, "--password-stdin", typed=password + "\n")
    program.ok(
        "apis", "create", "orders", "--identifier", "urn:orders", "--scope", "read"
    )
    chosen = secrets.token_urlsafe(30)
    made = program.ok(
        *(
            "clients",
            "create",
            "old",
            "--profile",
            "legacy-2015",
            "--grant",
            "password",
        ),
        *("--grant", "refresh_token", "--api", "orders", "--secret-stdin", "--yes"),
        typed=chosen + "\n",
    )
    shop = program.json(
        *("clients", "create", "shop", "--grant", "refresh_token", "--api", "orders"),
        *("--allow-operator-grants", "--may-introspect"),
    )
    second = program.json("clients", "add-secret", "shop")
    robot = program.json(
        *("clients", "create", "robot", "--grant", "client_credentials"),
        *("--api", "orders"),
    )
    known.add("password", *users.values())
    known.add("client secret", chosen, *(m["secret"] for m in (shop, second, robot)))
    known.add("credentials", *(basic("shop", m["secret"])[6:] for m in (shop, second)))

    server.start("--access-log")
    with server.client() as client:
        old, as_shop = basic("old", chosen), basic("shop", second["secret"])
        for name, password in users.items():
            form = {"grant_type": "password", "username": name, "password": password}
            token = witness.tokens(client.ok(form, old))["refresh_token"]
            token = refresh_often(witness, client, token, 30, old)
        program.ok(*EMERGENCY)
        witness.keys()
        issued = witness.tokens(
            program.json("tokens", "issue", "--client", "shop", "--user", "mina")
        )
        kept = refresh_often(witness, client, issued["refresh_token"], 20, as_shop)
        program.ok(*EMERGENCY, "--algorithm", "RS256")
        program.ok("keys", "rotate", "cookie", "--now", "--emergency")
        program.ok("keys", "rotate", "signing")
        witness.keys()
        form = {"grant_type": "client_credentials"}
        machine = witness.tokens(client.ok(form, basic("robot", robot["secret"])))

        # Whatever a clumsy client does with a secret, it reaches no log.
        for path in ("/oauth/token", "/oauth/introspect", "/nowhere", "/readyz"):
            client.get(f"{path}?access_token={machine['access_token']}")
            client.get(f"{path}?password={users['mina']}".replace(" ", "+"))
            client.post(path, {"refresh_token": kept, "username": chosen}, None)
            client.get(path, machine["access_token"])
        client.post("/oauth/token", {**form, "client_secret": chosen}, as_shop)
        client.send("POST", "/oauth/token", b'{"password":"%s"}' % chosen.encode())
        client.post("/oauth/introspect", {"token": kept}, as_shop)
        client.post("/oauth/introspect", {"token": machine["access_token"]}, as_shop)
        for text in (kept, machine["access_token"], "kgm_rt_" + "A" * 90):
            program("tokens", "inspect", typed=text + "\n")

        # Reuse, revocations, and a protection ring that turns.
        client.try_refresh(issued["refresh_token"], as_shop)
        assert 200 == client.post("/oauth/revoke", {"token": kept}, as_shop).status
        revoke = {"token": machine["access_token"]}
        client.post("/oauth/revoke", revoke, basic("robot", robot["secret"]))
        users["mina"] = f"nine {secrets.token_hex(6)} otters"
        known.add("password", users["mina"])
        program.ok("users", "password", "mina", "--password-stdin", typed=users["mina"])
        program.ok("users", "disable", "otto", "--yes")
        secret_id = program.json("clients", "show", "shop")["secrets"][0]["id"]
        program.ok("clients", "withdraw-secret", "shop", secret_id, "--yes")
        asyncio.run(_turn_protection_ring(server))
        witness.keys()

        program.ok("tenants", "create", "acme")
        of = ("--tenant", "acme")
        program.ok("apis", "create", "api", "--identifier", "urn:acme", *of)
        made = program.json(
            *("clients", "create", "robot", "--grant", "client_credentials"),
            *("--api", "api", *of),
        )
        known.add("client secret", made["secret"])
        acme = basic("robot", made["secret"])
        assert eventually(lambda: _status(client, form, acme) == 200, 3)
        witness.tokens(client.ok(form, acme, "/t/acme"))
        witness.keys()
        program.ok("keys", "revoke", "signing", program.current(), "--yes")
        witness.keys()
        program.ok("doctor")

        running = known.find(places(server))
        server.kill()
        after_kill = known.find(places(server))
        server.start()
        program.ok("tenants", "delete", "acme", "--yes", "--force")
        server.stop()
        after_stop = known.find(places(server))

    assert {
        "access token",
        "client secret",
        "cookie key",
        "credentials",
        "inner secret of a refresh token",
        "owner link",
        "passphrase",
        "password",
        "private key",
        "refresh token",
        "ring master key",
        "tag key",
        "tag of a refresh token",
    } == known.kinds
    assert known.count("inner secret of a refresh token") >= 80
    assert known.count("ring master key") >= 2
    assert known.count("private key") >= 30
    assert ([], [], []) == (running, after_kill, after_stop)
    # The search would have found them: one that is planted in the very same files is found.
    with (server.data / "kagimori.db").open("ab") as database:
        database.write(base64.b64encode(b"...." + chosen.encode()))
    assert ["client secret in kagimori.db"] == known.find(contents(server.data))


def _status(client, form, authorization):
    return client.post("/t/acme/oauth/token", form, authorization).status


async def _turn_protection_ring(server):
    async with opened(read_settings(server.data, {})) as installation:
        installation.ring.rotate(
            immediate=True, reason="to see what lies under it move"
        )


# --- the demo world ------------------------------------------------------------------------


def test_K10_of_the_demo_only_its_passphrase_file_and_published_words_are_found(
    make_server, tmp_path
):
    """
    The demo's passphrase lies in its one file; of tokens and keys there is nothing.
    """
    server = make_server(environ=TALKATIVE).start("--access-log")
    witness = Witness(server)
    witness.secrets.add("passphrase", (server.data / "passphrase").read_text().strip())
    witness.keys()
    with server.client() as client:
        token = witness.tokens(client.password_grant())["refresh_token"]
        for _ in range(3):
            token = refresh_often(witness, client, token, 10)
            server.program.ok(*EMERGENCY)
            witness.keys()
        access = witness.tokens(client.password_grant())["access_token"]
        assert 200 == client.secret(access).status
    running = witness.secrets.find(places(server))
    server.kill()

    found = witness.secrets.find(places(server))

    assert ["passphrase in passphrase"] == running == found
    modes = {
        (server.data / name).stat().st_mode & 0o77 for name, _ in contents(server.data)
    }
    assert {0} == modes
    # A copy without that file holds nothing that opens it.
    copy = shutil.copytree(server.data, tmp_path / "copy")
    (copy / "passphrase").unlink()
    assert [] == witness.secrets.find(contents(copy))
    assert 3 == Program(copy)("keys", "list").exit_code
