"""What `tallystick stripe setup` prepares for invoicing: base fees, and where events go."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import stripe

from activities.stripe_catalog import ensure_catalog
from activities.stripe_webhooks import SNAPSHOT_EVENTS, ensure_webhooks
from tallystick.errors import TallystickError
from tallystick.sandbox.server import serve
from tallystick.stripe_events import METER_REPORTS, look_of
from tests.contract.stripe_contract import ContractRecorder, stripe_contract
from tests.sandbox.stripe_stand import LIVE, StripeStand, stripe_stand
from tests.support.stripe_destinations import WithDestinations

URL = "https://tally.example/webhooks/stripe"
OF_NO_USE = {
    "customer.subscription.pending_update_applied",
    "customer.subscription.pending_update_expired",
    "customer.subscription.trial_will_end",
    "invoice.payment_attempt_required",
    "invoice.will_be_due",
}
"""Reasons for a look that Stripe would send for what we never do: trials, pending updates."""


@pytest_asyncio.fixture(name="account")
async def _account() -> AsyncIterator[StripeStand]:
    async with stripe_stand() as stand:
        yield stand


@pytest_asyncio.fixture(name="client")
async def _client() -> AsyncIterator[stripe.StripeClient]:
    judged = ContractRecorder(WithDestinations())
    async with serve(judged) as url:
        http = stripe.HTTPXClient(timeout=10)
        yield stripe.StripeClient(LIVE, base_addresses={"api": url}, http_client=http)
        await http.close_async()
    judged.assert_all_valid()


async def test_each_base_fee_has_one_price_for_all_plans_that_have_it(
    account: StripeStand,
) -> None:
    client = account.client()
    first = await ensure_catalog(client, {4900, 9900})
    account.clock.advance(days=2)
    again = await ensure_catalog(client, {4900, 9900, 199})
    assert again.made == ("price tallystick-base-199",)
    assert {**again.base_price_ids, **first.base_price_ids} == again.base_price_ids
    for cents, price_id in again.base_price_ids.items():
        price = await client.v1.prices.retrieve_async(price_id)
        assert (price.unit_amount, price.lookup_key) == (cents, f"tallystick-base-{cents}")
        assert price.recurring is not None
        assert (price.recurring.interval, price.recurring.usage_type) == ("month", "licensed")


async def test_a_base_fee_that_was_changed_in_the_dashboard_is_made_anew(
    account: StripeStand,
) -> None:
    catalog = await ensure_catalog(account.client(), {4900})
    account.account.table("price")[catalog.base_price_ids[4900]]["active"] = False
    account.clock.advance(days=2)
    again = await ensure_catalog(account.client(), {4900})
    assert again.made == ("price tallystick-base-4900",)


async def test_webhooks_are_registered_once_and_their_secrets_shown_once(
    client: stripe.StripeClient,
) -> None:
    first = await ensure_webhooks(client, URL)
    assert [hook.form for hook in first] == ["snapshot", "thin"]
    assert all(hook.secret is not None and hook.secret.startswith("whsec_") for hook in first)
    again = await ensure_webhooks(client, URL)
    assert [hook.id for hook in again] == [hook.id for hook in first]
    assert [hook.secret for hook in again] == [None, None]
    elsewhere = await ensure_webhooks(client, "https://other.example/webhooks/stripe")
    assert {hook.id for hook in elsewhere}.isdisjoint(hook.id for hook in first)
    whole, thin = first
    endpoint = await client.v1.webhook_endpoints.retrieve_async(whole.id)
    assert endpoint.api_version == stripe.api_version
    assert set(endpoint.enabled_events) == set(SNAPSHOT_EVENTS)
    listed = await client.v2.core.event_destinations.list_async()
    (destination,) = [each for each in listed.data if each.id == thin.id]
    assert set(destination.enabled_events) == set(METER_REPORTS)


async def test_an_endpoint_that_sends_too_little_is_not_taken_for_ours(
    client: stripe.StripeClient,
) -> None:
    await client.v1.webhook_endpoints.create_async(
        {"url": URL, "enabled_events": ["invoice.paid"], "api_version": stripe.api_version}
    )
    whole, _ = await ensure_webhooks(client, URL)
    assert whole.secret is not None


async def test_a_stripe_that_refuses_is_told_in_words(account: StripeStand) -> None:
    await account.fault("refused", match="webhook_endpoints", message="Not a public address.")
    with pytest.raises(TallystickError, match="Not a public address"):
        await ensure_webhooks(account.client(), URL)


def test_every_event_that_is_a_reason_to_look_is_asked_for() -> None:
    path = stripe_contract()._paths["/v1/webhook_endpoints"]["post"]["requestBody"]
    schema = path["content"]["application/x-www-form-urlencoded"]["schema"]
    known = set(schema["properties"]["enabled_events"]["items"]["enum"])
    assert {name for name in known if look_of(name)} == {*SNAPSHOT_EVENTS} | OF_NO_USE
