"""
The import contracts cover everything that there is.
"""

from __future__ import annotations

import tomllib

from tests.meta.tree import ROOT


def contract(name: str) -> dict[str, list[str]]:
    """
    Return a contract of `make layers`.
    """
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (found,) = [entry for entry in contracts if entry["id"] == name]
    return found


def children(folder: str) -> set[str]:
    """
    Return the modules that lie in a folder of the package.
    """
    package = ROOT / "src" / "kagimori" / folder
    prefix = ".".join(("kagimori", *filter(None, [folder])))
    return {
        f"{prefix}.{path.stem}"
        for path in package.iterdir()
        if path.stem not in ("__init__", "__pycache__", "py")
        and (path.is_dir() or path.suffix == ".py")
    }


def test_no_module_escapes_the_rule_about_cryptography():
    """
    Every part of the package but `crypto` is held to it; a new part has to be named.
    """
    held = set(contract("cryptography")["source_modules"])

    assert children("") - {"kagimori.crypto"} == held


def test_every_part_has_its_layer():
    """
    Every part is in the list of layers, or is an adapter, or stands beside them by design.
    """
    layers = {
        part.split(" ")[0]
        for layer in contract("layers")["layers"]
        for part in layer.split(" | ")
    }
    adapters = set(contract("adapters-above")["forbidden_modules"])
    beside = {"kagimori.adapters", "kagimori.opening", "kagimori.storage"}

    assert children("") <= layers | adapters | beside


def test_every_adapter_of_the_store_is_one():
    """
    Each module under `storage` is foundation, or forbidden to all but the composition root.
    """
    adapters = set(contract("adapters-above")["forbidden_modules"])

    assert children("storage") - {"kagimori.storage.migrations"} == {
        name for name in adapters if name.startswith("kagimori.storage.")
    } | {"kagimori.storage.store"}
