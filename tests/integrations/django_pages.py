"""
The pages of the Django shop; see `tests.integrations.sites`.
"""

from __future__ import annotations

from django.contrib.auth import authenticate, login, logout
from django.http import HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.urls import path

from kagimori.integrations.cookies import Cookie, ProtectedCookie
from kagimori.integrations.django.ring import ring


def home(request):
    return JsonResponse({"user": request.session.get("user")})


def sign_in(request):
    # What django.contrib.auth.login does of a session.
    request.session.cycle_key()
    request.session["user"] = "alice"
    return HttpResponse("in")


def out(request):
    request.session.flush()
    return HttpResponse("out")


def fill(request):
    request.session["big"] = "x" * int(request.GET["n"])
    return HttpResponse("filled")


def deep(request):
    cart = request.session.setdefault("cart", {"items": []})
    cart["items"].append(1)
    request.session.modified = True
    return JsonResponse(cart["items"], safe=False)


def static(request):
    return HttpResponse("body {}", headers={"Cache-Control": "max-age=60"})


def public(request):
    headers = {"Cache-Control": "public, max-age=60", "Vary": "Accept"}
    return HttpResponse(str(request.session.get("user")), headers=headers)


def form(request):
    if request.method == "POST":
        return HttpResponse(request.body)
    return HttpResponse(get_token(request))


def fault(request):
    request.session["user"] = "mallory"
    return HttpResponse("fault", status=500)


def short(request):
    request.session["user"] = "alice"
    request.session.set_expiry(60)
    return HttpResponse("short")


def signed(request):
    response = HttpResponse(request.get_signed_cookie("theme", default="none"))
    if "set" in request.GET:
        response.set_signed_cookie("theme", request.GET["set"])
    return response


def prefs(request):
    cookie = ProtectedCookie(ring(), Cookie(name="__Host-prefs"), purpose="prefs")
    held = cookie.get(request.COOKIES) or b"none"
    response = HttpResponse(held)
    if "set" in request.GET:
        cookie.set_on(response, request.GET["set"].encode(), request.COOKIES)
    return response


def log_in(request):
    user = authenticate(request, username="bob", password=request.GET["password"])
    if user is not None:
        login(request, user)
    return HttpResponse(str(user))


def log_out(request):
    logout(request)
    return HttpResponse("out")


def who(request):
    return HttpResponse(request.user.get_username() or "nobody")


async def asynchronous(request):
    visits = await request.session.aget("visits", 0) + 1
    await request.session.aset("visits", visits)
    return JsonResponse({"user": await request.session.aget("user"), "visits": visits})


urlpatterns = [
    path("log-in", log_in),
    path("log-out", log_out),
    path("who", who),
    path("asynchronous", asynchronous),
    path("", home),
    path("sign-in", sign_in),
    path("out", out),
    path("fill", fill),
    path("deep", deep),
    path("static", static),
    path("public", public),
    path("form", form),
    path("fault", fault),
    path("short", short),
    path("signed", signed),
    path("prefs", prefs),
]
