"""Calls to Stripe inside an activity: what the SDK raises becomes a row of the error table."""

from collections.abc import Generator
from contextlib import contextmanager

import stripe

from activities.failures import failure
from activities.stripe_clients import refusal


@contextmanager
def stripe_calls() -> Generator[None, None, None]:
    """Name what a call to Stripe fails with.

    Raises:
        ApplicationError: a row of the error table, with the wait that Stripe asked for.
    """
    try:
        yield
    except stripe.StripeError as error:
        refused = refusal(error)
        raise failure(refused.row, refused.message, retry_after=refused.retry_after) from error
