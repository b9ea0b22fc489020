"""
The shop: the web application that stands in each slot.

    python -m demos.swap.shop SLOT SOCKET

`SOCKET` is the number of a listening socket that was inherited. The ring is the one that the
slot's environment names; the application's name stands here, in the code.

    /login?name=   sign somebody in        /form   GET: draw a form; POST: send it
    /me            who is signed in        /slot   which slot this is, and its current key

Who signs in gets two cookies. The session is Kagimori's own. The ticket is the one that ASP.NET
Core's cookie authentication would write, so that a slot of .NET knows them too, and the reverse.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import kagimori
from kagimori.errors import ProtectionError
from kagimori.integrations.asgi import (
    CsrfMiddleware,
    PeerMiddleware,
    SessionMiddleware,
    csrf_token,
)
from kagimori.integrations.cookies import Cookie
from kagimori.integrations.session import Session
from kagimori.keys.protection.ring import ProtectionRing
from kagimori.keys.protection.ticket_cookies import OpenedTicket, TicketCookies
from kagimori.keys.protection.tickets import Ticket

APPLICATION = "shop"


def make_app(slot: str, ring: ProtectionRing) -> Starlette:
    """
    Return the shop of one slot.
    """
    tickets = TicketCookies(ring)

    # Not async: a ticket of a key that is not known yet makes the ring look for it, and Starlette
    # runs such functions in a thread.
    def login(request: Request) -> Response:
        name = request.query_params["name"]
        session: Session = request.scope["session"]
        session.sign_in(user=name)
        response = PlainTextResponse("signed in")
        _issue(response, tickets, Ticket.of(name))
        return response

    def me(request: Request) -> Response:
        opened = _opened(tickets, request.cookies)
        response = JSONResponse(
            {
                "slot": slot,
                "name": request.session.get("user"),
                "ticket": opened.ticket.name if opened else None,
            }
        )
        if opened and opened.needs_renewal:
            _issue(response, tickets, opened.renewed)
        return response

    def draw(request: Request) -> Response:
        return PlainTextResponse(csrf_token(request))

    def send(request: Request) -> Response:
        # Whoever comes here has passed the CsrfMiddleware.
        return PlainTextResponse("accepted")

    def here(request: Request) -> Response:
        return JSONResponse({"slot": slot, "key": ring.current_key_id})

    # In a shop for others the cookie is Cookie(), which browsers take over https only.
    cookie = Cookie.for_plain_http("shop")
    return Starlette(
        routes=[
            Route("/login", login),
            Route("/me", me),
            Route("/form", draw),
            Route("/form", send, methods=["POST"]),
            Route("/slot", here),
        ],
        middleware=[
            Middleware(PeerMiddleware, ring=ring),
            Middleware(SessionMiddleware, ring=ring, cookie=cookie),
            Middleware(CsrfMiddleware, ring=ring),
        ],
    )


def _opened(tickets: TicketCookies, cookies: Mapping[str, str]) -> OpenedTicket | None:
    try:
        return tickets.open(cookies)
    except ProtectionError:
        return None


def _issue(response: Response, tickets: TicketCookies, ticket: Ticket) -> None:
    for name, value in tickets.issue(ticket):
        response.set_cookie(name, value, httponly=True, samesite="lax")


def main(slot: str, number: str) -> None:
    """
    Serve the shop of one slot on an inherited socket.
    """
    app = make_app(slot, kagimori.open_ring(application=APPLICATION))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    server.run(sockets=[socket.socket(fileno=int(number))])


if __name__ == "__main__":
    main(*sys.argv[1:])
