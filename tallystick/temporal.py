"""How everybody here talks to Temporal: one way to connect, one set of search attributes.

Search attributes are never encrypted and anybody who may look into Temporal reads them: they hold
ids, a model and a state, and no content.
"""

import asyncio

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.client import Client, Interceptor
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError

from tallystick.contracts import SEARCH_ATTRIBUTES, BillingState
from tallystick.devnote import DevNote
from tallystick.errors import UnavailableError
from tallystick.payloads.converter import data_converter, keeping_by_workers
from tallystick.payloads.keys import Keyring
from tallystick.settings import get_settings

DEFAULT_ADDRESS = "localhost:7233"
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


async def connect_temporal(address: str | None = None, *, keys: Keyring | None = None) -> Client:
    """Connect as Temporal's own variables say (`TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, ...).

    Where they name no address, a `tallystick dev` that runs in the home folder is found. Payloads
    are encrypted where keys are set, and large ones kept by workers (`tallystick.payloads`).

    Args:
        address: overrides `TEMPORAL_ADDRESS`.
        keys: overrides `TALLYSTICK_PAYLOAD_KEYS`.

    Raises:
        UnavailableError: when no server answers; the message names the setting.
        SettingsError: when a setting cannot be read.
    """
    settings = get_settings()
    keys = settings.keyring if keys is None else keys
    config = ClientConfig.load_client_connect_config()
    target = address or config.get("target_host") or _running_dev() or DEFAULT_ADDRESS
    config["target_host"] = target
    try:
        client = await asyncio.wait_for(
            Client.connect(
                **config,
                data_converter=data_converter(keys),
                interceptors=[_tracing()] if settings.tracing else [],
            ),
            CONNECT_PATIENCE,
        )
    except (RPCError, RuntimeError, ValueError, OSError, TimeoutError) as error:
        raise UnavailableError(
            f"no Temporal server answers at {target}; start one (`tallystick dev`) or set "
            "TEMPORAL_ADDRESS to where yours is"
        ) from error
    return keeping_by_workers(client, keys)


async def ensure_search_attributes(client: Client) -> list[str]:
    """Register the search attributes that the namespace lacks; returns their names.

    Raises:
        UnavailableError: when the server does not allow it; the message says what to run instead.
    """
    operator = client.operator_service
    try:
        present = await operator.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace)
        )
        missing = [name for name in SEARCH_ATTRIBUTES if name not in present.custom_attributes]
        if missing:
            await operator.add_search_attributes(
                AddSearchAttributesRequest(
                    namespace=client.namespace,
                    search_attributes=dict.fromkeys(
                        missing, IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
                    ),
                )
            )
    except RPCError as error:
        raise UnavailableError(
            f"Temporal does not let us register search attributes ({error}); register "
            f"{', '.join(SEARCH_ATTRIBUTES)} as Keyword in namespace {client.namespace!r}"
        ) from error
    return missing


def _tracing() -> Interceptor:
    from tallystick.tracing import interceptor  # of an extra that few install

    return interceptor()


def _running_dev() -> str | None:
    note = DevNote.read(get_settings().home)
    return note.temporal_address if note else None
