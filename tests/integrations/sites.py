"""
One small shop, written for each framework, with the same pages.

    /          who is signed in          /sign-in   sign alice in      /out    sign out
    /fill?n=   keep n characters         /deep      grow a list        /static no session
    /form      GET: a CSRF token; POST: refused without one            /fault  status 500
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import django
from django.conf import settings
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from kagimori.integrations.asgi import (
    CsrfMiddleware,
    PeerMiddleware,
    SessionMiddleware,
    csrf_token,
)
from kagimori.integrations.cookies import Cookie
from kagimori.integrations.fastapi import CsrfToken, CurrentSession, protect
from kagimori.keys.protection.ring import ProtectionRing
from tests.integrations.browser import Send, through_asgi, through_wsgi

TOKEN = "peer-" * 9


def starlette_app(ring: ProtectionRing, **options: Any) -> Any:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def home(request):
        return JSONResponse({"user": request.session.get("user")})

    async def sign_in(request):
        request.session.sign_in(user="alice")
        return PlainTextResponse("in")

    async def out(request):
        request.session.sign_out()
        return PlainTextResponse("out")

    async def fill(request):
        request.session["big"] = "x" * int(request.query_params["n"])
        return PlainTextResponse("filled")

    async def deep(request):
        request.session.setdefault("cart", {"items": []})["items"].append(1)
        return JSONResponse(request.session["cart"]["items"])

    async def static(request):
        return PlainTextResponse("body {}", headers={"Cache-Control": "max-age=60"})

    async def form(request):
        if request.method == "POST":
            return PlainTextResponse(await request.body())
        return PlainTextResponse(csrf_token(request))

    async def public(request):
        user = request.session.get("user")
        headers = {"Cache-Control": "public, max-age=60", "Vary": "Accept"}
        return PlainTextResponse(str(user), headers=headers)

    return Starlette(
        routes=[
            Route("/", home),
            Route("/sign-in", sign_in),
            Route("/out", out),
            Route("/fill", fill),
            Route("/deep", deep),
            Route("/static", static),
            Route("/public", public),
            Route("/form", form, methods=["GET", "POST"]),
            Route("/api/hook", form, methods=["POST"]),
        ],
        middleware=[
            Middleware(PeerMiddleware, ring=ring, token=TOKEN),
            Middleware(SessionMiddleware, ring=ring, **options),
            Middleware(CsrfMiddleware, ring=ring, exempt=["/api/"]),
        ],
    )


def fastapi_app(ring: ProtectionRing, **options: Any) -> Any:
    app = FastAPI()
    protect(app, ring, csrf_exempt=["/api/"], **options)

    @app.get("/")
    async def home(session: CurrentSession) -> dict[str, Any]:
        return {"user": session.get("user")}

    @app.get("/sign-in")
    def sign_in(session: CurrentSession) -> str:
        session.sign_in(user="alice")
        return "in"

    @app.get("/out")
    def out(session: CurrentSession) -> str:
        session.sign_out()
        return "out"

    @app.get("/fill")
    def fill(session: CurrentSession, n: int) -> str:
        session["big"] = "x" * n
        return "filled"

    @app.get("/deep")
    def deep(session: CurrentSession) -> list[int]:
        session.setdefault("cart", {"items": []})["items"].append(1)
        found: list[int] = session["cart"]["items"]
        return found

    @app.get("/static")
    def static(response: Response) -> str:
        response.headers["Cache-Control"] = "max-age=60"
        return "body {}"

    @app.get("/public")
    def public(session: CurrentSession, response: Response) -> str:
        response.headers["Cache-Control"] = "public, max-age=60"
        response.headers["Vary"] = "Accept"
        return str(session.get("user"))

    @app.get("/form", response_class=PlainTextResponse)
    def draw(token: CsrfToken) -> str:
        return token

    @app.post("/form")
    async def post(request: Request) -> Response:
        return PlainTextResponse(await request.body())

    app.post("/api/hook")(post)
    return app


def flask_app(ring: ProtectionRing, **options: Any) -> Any:
    import flask

    from kagimori.integrations.flask import (
        CsrfProtect,
        RingSessionInterface,
        add_peer,
    )

    app = flask.Flask("shop")
    app.session_interface = RingSessionInterface(ring, **options)
    csrf = CsrfProtect(app, ring, exempt=["/api/"])
    add_peer(app, ring, token=TOKEN)

    @app.get("/")
    def home():
        return {"user": flask.session.get("user")}

    @app.get("/sign-in")
    def sign_in():
        flask.session.sign_in(user="alice")
        return "in"

    @app.get("/out")
    def out():
        flask.session.sign_out()
        return "out"

    @app.get("/fill")
    def fill():
        flask.session["big"] = "x" * int(flask.request.args["n"])
        return "filled"

    @app.get("/deep")
    def deep():
        flask.session.setdefault("cart", {"items": []})["items"].append(1)
        return flask.session["cart"]["items"]

    @app.get("/static")
    def static_page():
        return "body {}", {"Cache-Control": "max-age=60"}

    @app.get("/public")
    def public():
        headers = {"Cache-Control": "public, max-age=60", "Vary": "Accept"}
        return str(flask.session.get("user")), headers

    @app.get("/form")
    def draw():
        return csrf.token()

    @app.post("/form")
    @app.post("/api/hook")
    def post():
        return flask.request.get_data(as_text=True) or flask.request.form.to_dict()

    return app


def configure_django() -> None:
    """
    Set Django up, once in this process. The ring comes with each site.
    """
    if settings.configured:
        return
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "kagimori.integrations.django",
        ],
        KAGIMORI_RING=None,
        MIDDLEWARE=[
            "kagimori.integrations.django.middleware.PeerMiddleware",
            "kagimori.integrations.django.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        ROOT_URLCONF="tests.integrations.django_pages",
        SECRET_KEY="what signed before",
        SESSION_COOKIE_NAME="__Host-session",
        SESSION_COOKIE_SECURE=True,
        SESSION_ENGINE="kagimori.integrations.django.sessions",
        SIGNING_BACKEND="kagimori.integrations.django.signing.RingSigner",
        USE_TZ=True,
    )
    django.setup()


def django_site(ring: ProtectionRing, **changes: Any) -> Send:
    """
    Return a way to the Django shop of one slot: its ring is in the settings while it serves.
    """
    configure_django()
    from django.core.wsgi import get_wsgi_application
    from django.test import override_settings

    def send(*request: Any) -> Any:
        with override_settings(KAGIMORI_RING=ring, **changes):
            return through_wsgi(get_wsgi_application())(*request)

    return send


SITES: dict[str, Callable[..., Send]] = {
    "starlette": lambda ring: through_asgi(starlette_app(ring)),
    "fastapi": lambda ring: through_asgi(fastapi_app(ring)),
    "flask": lambda ring: through_wsgi(flask_app(ring)),
    "django": django_site,
}


def plain_http() -> Cookie:
    return Cookie.for_plain_http()


def as_form(**fields: str) -> bytes:
    from urllib.parse import urlencode

    return urlencode(fields).encode()


def question(challenge: str = "AAAA", *texts: str) -> bytes:
    return json.dumps({"challenge": challenge, "open": list(texts)}).encode()
