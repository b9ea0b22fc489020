"""
Where the tests' processes find the bucket of a folder.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from kagimori.ring_stores.s3 import S3Store
from tests.servers.moto import make_client

KEY = "ring/keys.xml"


def bucket_of(place: Path) -> str:
    return f"ring-{hashlib.sha256(str(place).encode()).hexdigest()[:20]}"


def store(place: Path, *, read_only: bool = False) -> S3Store:
    """
    Open the store whose server the folder names.
    """
    endpoint = (place / "endpoint").read_text()
    return S3Store(
        bucket_of(place),
        KEY,
        client=lambda: make_client("s3", endpoint),
        read_only=read_only,
    )
