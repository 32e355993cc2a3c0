"""`tallystick stripe`: what has to exist in the Stripe account."""

import asyncio
from dataclasses import asdict

import typer

from tallystick.cli.output import JsonFlag, note, print_json, print_rows
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
def setup(as_json: bool = JsonFlag) -> None:
    """Create the meters, the product and the price that are missing. Safe to repeat."""
    from activities.stripe_catalog import Catalog, ensure_catalog
    from activities.stripe_clients import stripe_client

    settings = get_settings()

    async def run() -> Catalog:
        async with endpoints(settings) as where, stripe_client(where, settings) as client:
            if "stripe" in where.sandboxed:
                note("the sandbox stands in for Stripe: no real account is touched")
            return await ensure_catalog(client)

    catalog = asyncio.run(run())
    if as_json:
        print_json(asdict(catalog))
        return
    rows = [("meter", name, id_) for name, id_ in catalog.meters.items()]
    rows += [("product", "Claude usage", catalog.product_id), ("price", "", catalog.price_id)]
    print_rows(("kind", "name", "id"), rows)
    note(f"created now: {', '.join(catalog.made) or 'nothing, all was in place'}")
