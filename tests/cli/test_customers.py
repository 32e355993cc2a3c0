"""`tallystick customer`: added once, in our ledger and in Stripe, and served while active."""

import re

from tests.cli.conftest import Production


async def test_a_customer_is_added_once_here_and_in_stripe(production: Production) -> None:
    added = await production.shell("customer", "add", "acme", "--name", "Acme & Sons", "--json")
    again = await production.shell("customer", "add", "acme", "--name", "Another", "--json")
    assert again.json == added.json
    assert again.err == "customer 'acme' exists already; nothing is changed\n"
    assert added.json["name"] == "Acme & Sons"
    stored = await production.stripe_client.v1.customers.retrieve_async(
        added.json["stripe_customer_id"]
    )
    assert stored.metadata["tallystick_customer_id"] == "acme"  # type: ignore[index]


async def test_a_customer_that_stripe_knows_already_is_taken_over(production: Production) -> None:
    shown = await production.shell(
        "customer", "add", "bolt", "--stripe-customer", "cus_old", "--time-zone", "Europe/Rome"
    )
    assert {"bolt", "cus_old", "pass-through", "active", "Europe/Rome"} <= set(shown.out.split())


async def test_a_long_name_breaks_between_words_and_an_id_never(production: Production) -> None:
    name = "The Worshipful Company of Tally Cutters and Receivers of the Lower Exchequer"
    added = await production.shell("customer", "add", "guild", "--name", name, "--json")
    shown = await production.shell("customer", "list")
    assert max(map(len, shown.out.splitlines())) <= 80
    assert {*name.split(), added.json["stripe_customer_id"], "pass-through"} <= set(
        shown.out.split()
    )
    listed = {row["customer_id"]: row for row in (await _json(production, "list"))}
    assert listed["guild"]["name"] == name


async def test_a_suspended_customer_is_refused_with_the_reason_until_it_is_resumed(
    production: Production,
) -> None:
    customer, reason = await production.customer(), "unpaid [invoice 7]"
    await production.shell("customer", "suspend", customer, "--reason", reason)
    assert reason in (await production.shell("customer", "show", customer)).out
    refused = await production.shell.attempt("request", customer, "Anyone there?")
    assert refused.error == f"customer {customer!r} is suspended: {reason}"
    await production.shell("customer", "resume", customer)
    await production.ask(customer, "r-1")


async def test_caps_and_terms_are_set_and_shown(production: Production) -> None:
    customer = await production.customer()
    await production.shell("customer", "cap", customer, "--spend-cap", "12.50")
    await production.shell("customer", "terms", customer, "--markup", "0.5")
    shown = await _json(production, "show", customer)
    assert shown["spend_cap_usd"] == "12.5"
    assert shown["terms"]["markup"] == "0.5"
    assert shown["month_charged_usd"] == "0"
    table = await production.shell("customer", "show", customer)
    assert re.search(r"spend cap \$ +12\.5\b", table.out)
    assert re.search(r"terms +pass-through, markup 0\.5\b", table.out)


async def _json(production: Production, *arguments: str):
    return (await production.shell("customer", *arguments, "--json")).json
