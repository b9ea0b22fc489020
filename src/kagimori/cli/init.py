"""
``kagimori init``: make an installation for real use.
"""

from __future__ import annotations

import asyncio

import click

from kagimori.cli.command import Command, option, session
from kagimori.cli.running import cause


@click.command("init", cls=Command, help="help.init")
@option("--issuer", required=True, metavar="URL", help="option.issuer")
@option("--wrapper", metavar="URL", help="option.wrapper")
@option("--ring", metavar="URL", help="option.ring")
@option("--store", metavar="URL", help="option.store")
@option(
    "--signing-algorithm", default="ES256", metavar="A", help="option.signing_algorithm"
)
@option("--owner", default="owner", metavar="USERNAME", help="option.owner")
@option("--insecure-plaintext-keys", is_flag=True, help="option.insecure_plaintext")
@click.pass_context
def command(
    context: click.Context,
    *,
    issuer: str,
    wrapper: str | None,
    ring: str | None,
    store: str | None,
    signing_algorithm: str,
    owner: str,
    insecure_plaintext_keys: bool,
) -> None:
    """
    Make data folder, ring, database, first keys and owner; write the settings last.
    """
    from kagimori.founding import found
    from kagimori.opening import location_from_environment, wrapper_from_environment
    from kagimori.settings import DEFAULT_RING, DEFAULT_STORE, Settings, data_folder

    output = session(context).output
    settings = Settings(
        data=data_folder(session(context).data),
        issuer=issuer.rstrip("/"),
        ring=ring or location_from_environment() or DEFAULT_RING,
        store=store or DEFAULT_STORE,
        wrapper=wrapper
        or (None if insecure_plaintext_keys else wrapper_from_environment()),
    )
    made = asyncio.run(
        found(
            settings,
            signing_algorithm=signing_algorithm,
            owner=owner,
            insecure_plaintext_keys=insecure_plaintext_keys,
            cause=cause("kagimori init"),
        )
    )
    if insecure_plaintext_keys:
        output.warn(output.texts("init.plaintext"))
    if output.as_json:
        output.json(
            {
                "data": str(made.settings.data),
                "issuer": made.settings.issuer,
                "owner": owner,
                "owner_link": made.owner_link,
            }
        )
        return
    output.say("init.made", folder=made.settings.data)
    output.say("init.owner", owner=owner, link=made.owner_link)
    output.say("init.next", folder=made.settings.data)
