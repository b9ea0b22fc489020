"""
An integration pulls in its own framework, and no other.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

FRAMEWORKS = {
    *("django", "fastapi", "flask", "itsdangerous", "pydantic"),
    *("starlette", "uvicorn", "werkzeug"),
}

OWN = {
    "asgi": set(),
    "cookies": set(),
    "csrf": set(),
    "django": {"django"},
    "fastapi": {"fastapi", "pydantic", "starlette"},
    "fernet": set(),
    "flask": {"flask", "itsdangerous", "werkzeug"},
    "itsdangerous": {"itsdangerous"},
    "packing": set(),
    "peer": set(),
    "sessions": set(),
}


def loaded(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint(*sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(said.stdout.split()) & FRAMEWORKS


@pytest.mark.parametrize("name", list(OWN))
def test_integration_imports_its_framework_only(name):
    """
    Importing an integration loads the framework that it is for.
    """
    module = f"kagimori.integrations.{name}"
    if name == "django":
        module += ".ring"

    assert OWN[name] == loaded(f"import {module}")


def test_library_imports_no_framework():
    """
    ``import kagimori``, and opening a ring by it, loads none of them.
    """
    assert set() == loaded("import kagimori; kagimori.open_ring")
