"""
A browser: one person who keeps cookies, and how often they were let down.
"""

from __future__ import annotations

from dataclasses import dataclass

import httpx2

_SECONDS = 30.0


@dataclass
class Tally:
    """
    What browsers met in one act.

    Attributes:
        requests: how many they sent.
        signed_out: how many of them were answered as if nobody were signed in.
        forms: how many forms were sent.
        refused: how many of them were refused.
        rotations: how often the ring's key was replaced.
        faults: how often something else was not as it had to be.
    """

    requests: int = 0
    signed_out: int = 0
    forms: int = 0
    refused: int = 0
    rotations: int = 0
    faults: int = 0


class Browser:
    """
    One person at one address; which slot answers is not theirs to know.
    """

    def __init__(self, url: str, tally: Tally, name: str) -> None:
        # No proxy of the environment: the shop is on this machine.
        self._client = httpx2.Client(base_url=url, timeout=_SECONDS, trust_env=False)
        self._tally = tally
        self._form = ""
        self.name = name

    def sign_in(self) -> None:
        """
        Sign in where nobody has been yet.
        """
        answer = self._ask("GET", f"/login?name={self.name}")
        answer.raise_for_status()

    def is_known(self) -> bool:
        """
        Look who the shop says is signed in: by its session, and by the ticket of .NET.
        """
        answer = self._ask("GET", "/me")
        said = answer.json() if answer.status_code == 200 else {"name": None}
        known = self.name == said["name"] == said.get("ticket", self.name)
        self._tally.signed_out += not known
        return known

    def has_ticket(self) -> bool:
        """
        Look whether the shop knows this person by the ticket of .NET alone.
        """
        answer = self._ask("GET", "/me")
        known = answer.status_code == 200 and answer.json()["ticket"] == self.name
        self._tally.signed_out += not known
        return known

    def draw_form(self) -> None:
        """
        Open the page with the form, and leave it open.
        """
        self._form = self._ask("GET", "/form").text

    def send_form(self) -> bool:
        """
        Send the form that lies open; return whether it was accepted.
        """
        answer = self._ask("POST", "/form", {"csrf_token": self._form})
        accepted = answer.status_code == 200
        self._tally.forms += 1
        self._tally.refused += not accepted
        return accepted

    def close(self) -> None:
        """
        Close it, and forget its cookies.
        """
        self._client.close()

    def _ask(
        self, method: str, path: str, form: dict[str, str] | None = None
    ) -> httpx2.Response:
        self._tally.requests += 1
        return self._client.request(method, path, data=form)
