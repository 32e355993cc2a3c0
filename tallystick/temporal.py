"""How everybody here talks to Temporal: one converter, one way to connect, one set of attributes.

Client, worker and replayer must encode payloads alike or a workflow written by one cannot be read
by another, so all of them take `DATA_CONVERTER` from here.
"""

import asyncio

from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError

from tallystick.contracts import BillingState
from tallystick.errors import UnavailableError

DATA_CONVERTER = pydantic_data_converter
CONNECT_PATIENCE = 10.0
"""Seconds after which an unreachable server is reported instead of waited for."""

CUSTOMER_ID = SearchAttributeKey.for_keyword("CustomerId")
BILLING_STATE = SearchAttributeKey.for_keyword("BillingState")
CLAUDE_MODEL = SearchAttributeKey.for_keyword("ClaudeModel")
STRIPE_CUSTOMER_ID = SearchAttributeKey.for_keyword("StripeCustomerId")


def request_attributes(customer_id: str, model: str) -> TypedSearchAttributes:
    """Return what a new request is found by."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(CUSTOMER_ID, customer_id),
            SearchAttributePair(CLAUDE_MODEL, model),
            SearchAttributePair(BILLING_STATE, BillingState.ACTIVE),
        ]
    )


async def connect_temporal(address: str | None = None) -> Client:
    """Connect as Temporal's own variables say (`TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, ...).

    Args:
        address: overrides `TEMPORAL_ADDRESS`.

    Raises:
        UnavailableError: when no server answers; the message names the setting.
    """
    config = ClientConfig.load_client_connect_config()
    if address is not None:
        config["target_host"] = address
    target = config.get("target_host") or "localhost:7233"
    config["target_host"] = target
    try:
        return await asyncio.wait_for(
            Client.connect(**config, data_converter=DATA_CONVERTER), CONNECT_PATIENCE
        )
    except (RPCError, RuntimeError, OSError, TimeoutError) as error:
        raise UnavailableError(
            f"no Temporal server answers at {target}; start one (`tallystick dev`) or set "
            "TEMPORAL_ADDRESS to where yours is"
        ) from error
