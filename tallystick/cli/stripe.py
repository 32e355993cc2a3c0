"""`tallystick stripe`: what has to exist in the Stripe account."""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

import typer

from tallystick.cli.access import in_ledger
from tallystick.cli.output import JsonFlag, fail, note, print_json, print_rows
from tallystick.ledger.terms import base_fees_cents
from tallystick.services import endpoints
from tallystick.settings import get_settings

_group = typer.Typer(help="Prepare the Stripe account.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.add_typer(_group, name="stripe")


@_group.callback()
def _only() -> None:
    """Keep `setup` a subcommand while it is the only one."""


@_group.command()
def setup(
    webhook_url: Annotated[
        str,
        typer.Option(help="Where Stripe is to send events: the address of `/webhooks/stripe`."),
    ] = "",
    as_json: bool = JsonFlag,
) -> None:
    """Create the meters, products, prices and webhooks that are missing. Safe to repeat.

    Base fees are those of the ledger's plans, present and to come. A webhook's secret is shown
    when it is made, and never again.
    """
    from activities.stripe_catalog import Catalog, ensure_catalog
    from activities.stripe_clients import stripe_client
    from activities.stripe_webhooks import Webhook, ensure_webhooks

    if webhook_url and not webhook_url.startswith(("https://", "http://")):
        fail(f"--webhook-url: {webhook_url!r} is not an address like https://host/webhooks/stripe")
    settings = get_settings()
    sandboxed = "stripe" in settings.sandboxed  # asked first: half-set keys need no database
    fees = in_ledger(base_fees_cents)

    async def run() -> tuple[Catalog, list[Webhook]]:
        async with endpoints(settings) as where, stripe_client(where, settings) as client:
            catalog = await ensure_catalog(client, fees)
            return catalog, await ensure_webhooks(client, webhook_url) if webhook_url else []

    if sandboxed:
        note("the sandbox stands in for Stripe: no real account is touched")
    catalog, webhooks = asyncio.run(run())
    if as_json:
        print_json({**asdict(catalog), "webhooks": [asdict(each) for each in webhooks]})
    else:
        _show(catalog, webhooks)


def _show(catalog: Any, webhooks: list[Any]) -> None:
    rows = [("meter", name, id_) for name, id_ in catalog.meters.items()]
    rows += [("product", "Claude usage", catalog.product_id), ("price", "", catalog.price_id)]
    rows += [
        ("price", f"base fee ${cents / 100:,.2f}", id_)
        for cents, id_ in catalog.base_price_ids.items()
    ]
    rows += [("webhook", f"{hook.form}, {hook.url}", hook.id) for hook in webhooks]
    print_rows(("kind", "name", "id"), rows)
    note(f"created now: {', '.join(catalog.made) or 'nothing, all was in place'}")
    secrets = [hook.secret for hook in webhooks if hook.secret is not None]
    if secrets:
        note(f"not shown again: STRIPE_WEBHOOK_SECRET={','.join(secrets)}")
