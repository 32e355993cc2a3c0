"""`tallystick setup` and `stripe setup`: the second run finds everything in place."""

from tallystick.sandbox.server import serve
from tallystick.sandbox.stripe import create_stripe_app
from tests.cli.conftest import Production


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
    assert len(first.json["meters"]) == 6
    assert len(first.json["made"]) == 8  # the meters, the product and the price
    ids = {*first.json["meters"].values(), first.json["product_id"], first.json["price_id"]}
    assert ids <= set(again.out.split())
    assert again.err == "created now: nothing, all was in place\n"
