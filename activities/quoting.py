"""`quote_request`: what a request would be charged, for applications that have no ledger.

It reads the customer's terms and, if asked to, Claude's count of the prompt; it reserves nothing,
so a quote is not a promise of room. Run as an activity of its own, without a workflow.
"""

from datetime import UTC, datetime

from temporalio import activity

from activities.claude_api import ClaudeApi, ClaudeCallError
from activities.failures import failure
from tallystick.contracts import QuoteOrder, RequestQuote
from tallystick.errors import (
    INVALID_REQUEST,
    LEDGER_UNAVAILABLE,
    UNKNOWN_CUSTOMER,
    UNKNOWN_MODEL,
)
from tallystick.ledger import terms
from tallystick.ledger.database import Ledger, LedgerUnavailableError
from tallystick.ledger.terms import TermsInForce
from tallystick.plans import quote_request
from tallystick.pricing import NoPriceError


class QuotingActivities:
    """Quotes by the terms in `ledger`."""

    def __init__(self, ledger: Ledger, api: ClaudeApi):
        self._ledger = ledger
        self._api = api

    @activity.defn
    async def quote_request(self, order: QuoteOrder) -> RequestQuote:
        """Return what the body would cost the customer now.

        Raises:
            ApplicationError: a row of the error table.
        """
        now = datetime.now(UTC)
        agreed = await self._agreed(order.customer_id, now) if order.customer_id else None
        try:
            counted = await self._api.count_tokens(order.params) if order.count else None
            if agreed is None:
                return quote_request(order.params, now, counted=counted)
            return quote_request(order.params, now, agreed.terms, plan=agreed.plan, counted=counted)
        except NoPriceError as error:
            raise failure(UNKNOWN_MODEL, f"params.model: {error}") from error
        except ClaudeCallError as error:
            told = f"counting the prompt's tokens: {error}"
            raise failure(error.failure, told, retry_after=error.retry_after) from error

    async def _agreed(self, customer_id: str, now: datetime) -> TermsInForce:
        try:
            async with self._ledger.begin() as tx:
                standing = await terms.standing(tx, customer_id, now)
        except LedgerUnavailableError as error:
            raise failure(LEDGER_UNAVAILABLE, f"the ledger is away: {error}") from error
        if standing is None:
            raise failure(UNKNOWN_CUSTOMER, f"customer_id: no customer {customer_id!r}")
        if standing.agreed is None:
            raise failure(
                INVALID_REQUEST,
                f"plan {standing.customer.plan!r} has no terms in force; run `tallystick setup`",
            )
        return standing.agreed
