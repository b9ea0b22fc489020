"""
What operators and probes ask: alive, ready, figures.
"""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta

import pytest

from kagimori.errors import RestoredError, StoreError
from kagimori.events import Event, Severity
from kagimori.http.app import make_admin_app, make_app
from kagimori.http.live import Live
from kagimori.http.metrics import BUCKETS, Metrics, mark_dead
from tests.http.world import PASSWORD, TESTCLIENT, world


def run(tmp_path, work):
    async def scene():
        async with world(tmp_path) as made:
            return await work(made)

    return asyncio.run(scene())


@pytest.mark.parametrize(
    "host", ["localhost:3000", "10.1.2.3:9", "evil.example", "\xff"]
)
def test_probes_answer_on_any_host(tmp_path, host):
    """
    Probes call by address, so the host is not asked.
    """

    async def both(w):
        return await w.get("/healthz", host=host), await w.get("/readyz", host=host)

    health, ready = run(tmp_path, both)

    assert (200, {"status": "ok"}) == (health.status, health.json)
    assert (200, {"ready": True, "problems": []}) == (ready.status, ready.json)
    assert "no-store" == ready.headers["cache-control"]


def test_not_ready_names_every_reason_by_code(tmp_path):
    """
    503 with codes on the public listener; sentences and hints on the admin listener only.
    """

    async def both(w):
        w.clock.advance(timedelta(hours=1))
        await w.installation.beat()
        w.clock.advance(-timedelta(hours=1))
        await w.installation.check_marks()
        public = await w.get("/readyz")
        admin = await w.get("/readyz", app=w.admin)
        health = await w.get("/healthz")
        return public, admin, health

    public, admin, health = run(tmp_path, both)

    assert (503, {"ready": False, "problems": [{"code": "clock"}]}) == (
        public.status,
        public.json,
    )
    assert 503 == admin.status
    assert "clock" in admin.json["problems"][0]["text"]
    assert admin.json["problems"][0]["hint"]
    assert 200 == health.status


def test_K13_a_server_that_cannot_open_yet_listens_and_says_why(tmp_path):
    """
    Before the installation opens, probes tell the reason and nothing is signed.
    """

    async def unopened(w):
        live = Live()
        metrics = Metrics()
        app = make_app(
            live, w.installation.settings, w.installation.clock, metrics, w.places
        )
        admin = make_admin_app(live, w.installation.clock, metrics)
        starting = await w.get("/readyz", app=app)
        live.opening = StoreError("The vault does not answer.", transient=True)
        waiting = await w.get("/readyz", app=admin)
        refused = [
            await w.post("/oauth/token", PASSWORD, authorization=TESTCLIENT, app=app),
            await w.get("/oidc/jwks", app=app),
            await w.get("/secret", app=app),
        ]
        live.serve(w.installation)
        opened = await w.get("/readyz", app=app)
        token = await w.post(
            "/oauth/token", PASSWORD, authorization=TESTCLIENT, app=app
        )
        live.draining = True
        draining = await w.get("/readyz", app=app)
        return starting, waiting, refused, opened, token, draining

    starting, waiting, refused, opened, token, draining = run(tmp_path, unopened)

    assert [{"code": "starting"}] == starting.json["problems"]
    assert "The vault does not answer." == waiting.json["problems"][0]["text"]
    for answer in refused:
        assert (503, "temporarily_unavailable") == (answer.status, answer.json["error"])
        assert int(answer.headers["retry-after"]) >= 1
    assert 200 == opened.status == token.status
    assert [{"code": "draining"}] == draining.json["problems"]


def test_K7_a_restored_database_stops_the_endpoints(tmp_path):
    """
    Not ready means that no token is made or told of, until it is accepted.
    """

    async def restored(w):
        w.installation._restored = (RestoredError("older", part="database"),)
        w.live.judge()
        stopped = await w.post("/oauth/token", PASSWORD, authorization=TESTCLIENT)
        ready = await w.get("/readyz")
        w.installation._restored = ()
        w.live.judge()
        again = await w.post("/oauth/token", PASSWORD, authorization=TESTCLIENT)
        return stopped, ready, again

    stopped, ready, again = run(tmp_path, restored)

    assert 503 == stopped.status
    assert [{"code": "restored"}] == ready.json["problems"]
    assert 200 == again.status


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_are_read_only(tmp_path, path):
    """
    HEAD is answered, POST gets 405 with Allow.
    """

    async def both(w):
        return await w.send("HEAD", path), await w.post(path)

    head, post = run(tmp_path, both)

    assert 200 == head.status
    assert (405, "GET, HEAD") == (post.status, post.headers["allow"])


# --- figures -------------------------------------------------------------------------------


def test_figures_stand_on_the_admin_listener_only(tmp_path):
    """
    Requests by route and status, tokens by grant, refreshes by outcome, latency, readiness.
    """

    async def some(w):
        signed = await w.sign_in()
        await w.refresh(signed["refresh_token"])
        await w.post("/oauth/token", {}, authorization=TESTCLIENT)
        await w.get("/nowhere")
        public = await w.get("/metrics")
        return public, await w.get("/metrics", app=w.admin, host="10.0.0.1")

    public, admin = run(tmp_path, some)

    assert 404 == public.status
    assert admin.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = admin.body.decode()
    for line in (
        'kagimori_http_requests_total{route="token",status="200"} 2.0',
        'kagimori_http_requests_total{route="token",status="400"} 1.0',
        'kagimori_http_requests_total{route="unknown",status="404"} 2.0',
        'kagimori_tokens_issued_total{grant="password"} 1.0',
        'kagimori_tokens_issued_total{grant="refresh_token"} 1.0',
        'kagimori_refresh_total{outcome="rotated"} 1.0',
        'kagimori_http_seconds_count{route="token"} 3.0',
        'kagimori_http_seconds_bucket{le="+Inf",route="token"} 3.0',
        "kagimori_ready 1.0",
    ):
        assert line in text.splitlines()


def test_B10_refreshes_are_counted_by_outcome():
    """
    Each event of a redemption counts once under its outcome; what else happened does not.
    """
    metrics = Metrics()
    for name, severity in (
        ("refresh.rotated", Severity.INFO),
        ("refresh.reuse_detected", Severity.ALARM),
        ("refresh.foreign_client", Severity.WARNING),
        ("refresh.replay_divergent", Severity.WARNING),
        ("refresh.tag_key_lost", Severity.ALARM),
    ):
        metrics.emit(Event(name, {}, severity))

    lines = metrics.text().decode().splitlines()

    assert {
        'kagimori_refresh_total{outcome="rotated"} 1.0',
        'kagimori_refresh_total{outcome="reuse"} 1.0',
        'kagimori_refresh_total{outcome="foreign"} 1.0',
    } == {line for line in lines if line.startswith("kagimori_refresh_total{")}
    assert 'kagimori_events_total{event="refresh.replay_divergent"} 1.0' in lines
    assert 'kagimori_alarms_total{event="refresh.tag_key_lost"} 1.0' in lines


def test_S2_labels_never_grow_with_what_peers_send(tmp_path):
    """
    Paths, methods and hosts that are made up share one label.
    """

    async def flood(w):
        for number in range(50):
            await w.get(f"/made-up-{number}")
            await w.send(f"M{number}", "/oauth/token")
            await w.get("/x", host=f"h{number}.example")
        return (await w.get("/metrics", app=w.admin)).body.decode()

    text = run(tmp_path, flood)

    routes = set(re.findall(r'kagimori_http_requests_total\{route="([^"]+)"', text))
    assert {"unknown", "token"} == routes


def test_latencies_fall_into_their_buckets():
    """
    A time on a bound belongs to its bucket; the sum is kept.
    """
    metrics = Metrics()
    for seconds in (0.0005, 0.001, 0.003, 99.0):
        metrics.answered("token", 200, seconds)

    text = metrics.text().decode()

    assert 'bucket{le="0.001",route="token"} 2.0' in text
    assert 'bucket{le="0.005",route="token"} 3.0' in text
    assert 'bucket{le="10.0",route="token"} 3.0' in text
    assert 'bucket{le="+Inf",route="token"} 4.0' in text
    assert 'kagimori_http_seconds_sum{route="token"} 99.0045' in text
    assert len(BUCKETS) + 1 == text.count("kagimori_http_seconds_bucket")


def test_figures_of_several_workers_are_added_up(tmp_path):
    """
    Whoever is asked gives the sum; a worker that died keeps its counts and leaves readiness.
    """
    one, two = Metrics(str(tmp_path)), Metrics(str(tmp_path))
    one.ready, two.ready = True, False
    one.answered("token", 200, 0.002)
    two.answered("token", 200, 0.002)
    two.refused(431)
    two.share()
    (next(tmp_path.glob("*.json"))).rename(tmp_path / "4242.json")

    together = one.text().decode()
    mark_dead(str(tmp_path), 4242)
    mark_dead(str(tmp_path), 4343)
    after = one.text().decode()

    assert 'kagimori_http_requests_total{route="token",status="200"} 2.0' in together
    assert 'kagimori_connections_refused_total{status="431"} 1.0' in together
    assert 'kagimori_http_seconds_count{route="token"} 2.0' in together
    assert "kagimori_ready 0.0" in together
    assert "kagimori_processes 2.0" in together
    assert 'kagimori_http_requests_total{route="token",status="200"} 2.0' in after
    assert "kagimori_ready 1.0" in after
    assert "kagimori_processes 1.0" in after
