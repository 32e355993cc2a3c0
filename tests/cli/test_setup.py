"""`tallystick setup` and `stripe setup`: the second run finds everything in place."""

from tallystick.sandbox.server import serve
from tallystick.sandbox.stripe import create_stripe_app
from tests.cli.conftest import Production
from tests.support.stripe_destinations import WithDestinations


async def test_set_up_makes_a_bare_database_usable_and_may_be_repeated(
    production: Production, bare_database: str
) -> None:
    refused = await production.shell.attempt("customer", "list", DATABASE_URL=bare_database)
    assert refused.error.endswith("lacks this version's tables; run `tallystick setup`")
    first = await production.shell("setup", "--json", DATABASE_URL=bare_database)
    again = await production.shell("setup", "--json", DATABASE_URL=bare_database)
    assert first.json == again.json
    assert first.json["database_revision"]
    added = await production.shell("customer", "add", "acme", DATABASE_URL=bare_database)
    assert "acme" in added.out


async def test_the_stripe_account_is_prepared_once(production: Production) -> None:
    async with serve(create_stripe_app()) as account:
        first = await production.shell("stripe", "setup", "--json", STRIPE_API_BASE=account)
        again = await production.shell("stripe", "setup", STRIPE_API_BASE=account)
    told = first.json
    assert len(told["meters"]) == 6
    assert {"product tallystick_claude_usage", "product tallystick_base_fee"} < {*told["made"]}
    # The base fee of the plan that ships as an example.
    base_price = told["base_price_ids"]["9900"]
    ids = {*told["meters"].values(), told["product_id"], told["price_id"], base_price}
    assert ids <= set(again.out.split())
    assert again.err == "created now: nothing, all was in place\n"


async def test_webhooks_are_registered_and_their_secrets_shown_once(
    production: Production,
) -> None:
    register = ("stripe", "setup", "--webhook-url", "https://tally.example/webhooks/stripe")
    async with serve(WithDestinations()) as account:
        first = await production.shell(*register, STRIPE_API_BASE=account)
        again = await production.shell(*register, "--json", STRIPE_API_BASE=account)
    assert first.err.count("whsec_") == 2
    assert [hook["secret"] for hook in again.json["webhooks"]] == [None, None]
    assert {hook["id"] for hook in again.json["webhooks"]} <= set(first.out.split())
    refused = await production.shell.attempt("stripe", "setup", "--webhook-url", "tally.example")
    assert refused.error.startswith("--webhook-url: 'tally.example' is not an address")
