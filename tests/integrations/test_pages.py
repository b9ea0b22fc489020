"""
Every example of the integrations' pages runs, in the order in which a reader meets it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.examples import ROOT, Page

FOLDER = ROOT / "docs" / "integrations"
PAGES = sorted(FOLDER.glob("*.md"))
FILE = re.compile(r"# (shop/\w+\.py)\n")

PROBE = """
from django.test import Client
from django.urls import path
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
import kagimori.integrations.django.ring as ours
from shop import orders, urls, views

def visit(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(str(request.session["visits"]))

urls.urlpatterns += [path("visit", visit), path("theme", views.theme)]
browser = Client()
assert browser.get("/visit", secure=True).content == b"1"
ours.ring().rotate(immediate=True)
assert browser.get("/visit", secure=True).content == b"2"
assert browser.get("/theme", secure=True).content == b"light"
assert browser.get("/theme", secure=True).content == b"dark"
assert orders.order_of(orders.link(7).removeprefix("/confirm/")) == 7
print(sorted(browser.cookies))
"""


@pytest.fixture
def environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("KAGIMORI_")
    }
    tools = str(Path(sys.executable).parent)
    return {
        **kept,
        "PATH": f"{tools}{os.pathsep}{kept['PATH']}",
        "SHOP_PASSPHRASE": "four words and more words",
    }


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def here(text: str, folder: Path) -> str:
    return text.replace("/var/lib/shop", str(folder / "lib" / "shop"))


@pytest.mark.parametrize(
    "path",
    [path for path in PAGES if path.stem != "django"],
    ids=lambda path: path.stem,
)
def test_examples_of_a_page_run(path: Path, tmp_path, environment):
    """
    A page's Python runs from top to bottom, and what it asserts is so.
    """
    (tmp_path / "lib" / "shop").mkdir(parents=True)
    program = here(Page(path).python, tmp_path)

    run([sys.executable, "-W", "error", "-c", program], tmp_path, environment)

    assert list((tmp_path / "lib/shop/ring").glob("key-*.xml"))


@pytest.mark.parametrize("is_debug", [False, True], ids=["production", "debug"])
def test_lines_of_the_django_page_fit_a_new_project(tmp_path, environment, is_debug):
    """
    What `startproject` makes, with the page's lines at the end of its settings, has a ring.
    """
    (tmp_path / "lib" / "shop").mkdir(parents=True)
    run(["django-admin", "startproject", "shop", "."], tmp_path, environment)
    settings = tmp_path / "shop" / "settings.py"
    text = settings.read_text("utf-8")
    text = text.replace("ALLOWED_HOSTS = []", 'ALLOWED_HOSTS = ["*"]')
    settings.write_text(text.replace("DEBUG = True", f"DEBUG = {is_debug}"), "utf-8")
    page = Page(FOLDER / "django.md")
    for block in page.blocks("python"):
        name = FILE.match(block)
        assert name is not None, block
        with (tmp_path / name[1]).open("a", encoding="utf-8") as file:
            file.write("\n" + here(block, tmp_path))

    shell = "python manage.py check" if is_debug else page.shell
    said = run(["bash", "-ec", shell], tmp_path, environment)
    manage = [sys.executable, "manage.py", "shell", "--no-imports", "-c", PROBE]
    probed = run(manage, tmp_path, environment)

    assert "no issues" in said
    assert is_debug or (said.count("current"), said.count(" next ")) == (2, 1)
    assert ("__Host-session" in probed) != is_debug


@pytest.mark.parametrize("name", ["flask", "fastapi", "django", "asgi"])
def test_a_newcomer_needs_fewer_than_ten_lines(name):
    """
    What an application needs to have its session on a ring is one block of nine lines at most.
    """
    (block, *_) = [
        text
        for text in Page(FOLDER / f"{name}.md").blocks("python")
        if "open_ring" in text or "KAGIMORI_RING" in text
    ]

    lines = [line for line in block.splitlines() if line and not line.startswith("#")]

    assert len(lines) < 10
