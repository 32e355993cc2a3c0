"""The one place that makes a Stripe client and reads Stripe's errors.

The SDK's own retries are off: they never repeat a 429, ignore `Retry-After`, and would make one
attempt look like several to the windows that we keep; Temporal repeats instead (facts on Stripe,
'SDK'). One client serves one event loop.
"""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import stripe
from pydantic import SecretStr
from stripe import StripeClient

from activities.stripe_pace import PacedHTTPXClient
from tallystick.errors import Failure, TallystickError, classify_stripe
from tallystick.settings import Settings


class StripeAddress(Protocol):
    """Where Stripe is and with which key; an address of None is Stripe's own."""

    @property
    def stripe_api_key(self) -> SecretStr: ...  # noqa: D102
    @property
    def stripe_api_base(self) -> str | None: ...  # noqa: D102
    @property
    def stripe_meter_events_base(self) -> str | None: ...  # noqa: D102


@asynccontextmanager
async def stripe_client(
    where: StripeAddress, settings: Settings, database_url: str | None = None
) -> AsyncGenerator[StripeClient, None]:
    """Yield a client for this event loop; its connections end with the context.

    Args:
        where: Stripe's address and key.
        settings: timeout, and calls a second.
        database_url: the ledger's database, by which calls keep the pace that the settings ask for;
            without it they go at once, as a person's few calls may that set an account up.
    """
    addresses = {"api": where.stripe_api_base, "meter_events": where.stripe_meter_events_base}
    timeout, per_second = settings.stripe_timeout, settings.stripe_rps
    if per_second is not None and database_url is not None:
        http = PacedHTTPXClient(database_url, per_second, timeout=timeout)
    else:
        http = stripe.HTTPXClient(timeout=timeout)
    client = StripeClient(
        where.stripe_api_key.get_secret_value(),
        base_addresses=cast("Any", {name: url for name, url in addresses.items() if url}),
        max_network_retries=0,
        http_client=http,
    )
    try:
        yield client
    finally:
        await http.close_async()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something was not done: a row of the error table, in words, and how long to wait."""

    row: Failure
    message: str
    retry_after: float | None = None


def refusal(error: stripe.StripeError) -> Refusal:
    """Name what the SDK raised, duplicates of meter events excepted (`error_code`)."""
    status = error.http_status
    if status is None:  # the SDK's own text tells people to write to Stripe
        cause = type(error.__cause__ or error).__name__
        return Refusal(classify_stripe(None), f"no answer from Stripe: {cause}")
    told = error.user_message or type(error).__name__
    return Refusal(
        classify_stripe(status), f"Stripe answered {status}: {told}", _retry_after(error)
    )


def error_code(error: stripe.StripeError) -> str | None:
    """Return the `code` in the body, which the SDK leaves out for some statuses."""
    return error_detail(error, "code")


def error_detail(error: stripe.StripeError, name: str) -> str | None:
    """Return a field of the error in the body, None where it is missing."""
    body = cast("Any", error.json_body)
    try:
        return body["error"][name]
    except (KeyError, TypeError):
        return None


@contextmanager
def in_words() -> Generator[None, None, None]:
    """Turn what the SDK raises into an error for a person at the command line.

    Raises:
        TallystickError: saying what Stripe answered.
    """
    try:
        yield
    except stripe.StripeError as error:
        refused = refusal(error)
        raise TallystickError(refused.message, type=refused.row.type) from error


def _retry_after(error: stripe.StripeError) -> float | None:
    try:
        return max(0.0, float((error.headers or {})["retry-after"]))
    except (KeyError, ValueError):
        return None
