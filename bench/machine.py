"""
What the figures were measured on.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sqlite3
import subprocess
from datetime import UTC, datetime
from pathlib import Path


def _processor() -> str:
    """
    Return the processor's name, where the system tells it.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()


def _node() -> str:
    """
    Return the version of Node.js, or a dash.
    """
    node = shutil.which("node")
    if not node:
        return "-"
    return subprocess.run(
        [node, "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()


def conditions() -> dict[str, str]:
    """
    Return the date, the machine and the versions that matter.

    Read before a figure is measured: its load is what others asked of the machine.
    """
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cryptography": importlib.metadata.version("cryptography"),
        "uvicorn": importlib.metadata.version("uvicorn"),
        "sqlite": sqlite3.sqlite_version,
        "node": _node(),
        "node-oidc-provider": "9.13.3",
    }
