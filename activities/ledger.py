"""`admit_request` and `record_usage`: the ledger's two steps around a Claude call.

Both are local activities, so both may run again after a lost workflow task. Admission only reads;
recording is decided by the usage record's unique key. Prices and charges are worked out by
`tallystick.pricing` and `tallystick.plans`; this module only carries rows to them and back.
"""

from datetime import UTC, datetime
from typing import Any, cast

from temporalio import activity

from activities.claude_api import ClaudeApi, ClaudeCallError
from activities.failures import failure
from tallystick.contracts import (
    Admission,
    BillLine,
    ClaudeRequest,
    RecordedUsage,
    RecordOrder,
    RequestKey,
)
from tallystick.errors import (
    ALREADY_BILLED,
    CUSTOMER_SUSPENDED,
    INVALID_REQUEST,
    LEDGER_UNAVAILABLE,
    REQUEST_ID_REUSED,
    UNKNOWN_CUSTOMER,
)
from tallystick.ledger import attempts, customers, usage
from tallystick.ledger.customers import PlanInForce
from tallystick.ledger.database import Ledger, LedgerUnavailableError, Transaction
from tallystick.ledger.tables import Attempt, CustomerStatus
from tallystick.metering import CHARGE_METER, token_meter
from tallystick.plans import PlanTerms, charge
from tallystick.plans.guards import Limits, Pass, Refusal, Undecided, check
from tallystick.pricing import TOKEN_KINDS, Rating, TokenCounts, TokenKind, explain, rate
from tallystick.pricing.evidence import evidence


class LedgerActivities:
    """Admits requests and records usage in `ledger`."""

    def __init__(self, ledger: Ledger, api: ClaudeApi, limits: Limits):
        self._ledger = ledger
        self._api = api
        self._limits = limits

    @activity.defn
    async def admit_request(self, request: ClaudeRequest) -> Admission:
        """Decide whether Claude may be called for this request.

        Raises:
            ApplicationError: a refusal from the error table, with what there is to know.
        """
        now = datetime.now(UTC)
        try:
            async with self._ledger.begin() as tx:
                await _refuse_repeats(tx, request)
                await _may_spend(tx, request.customer_id, now)
        except LedgerUnavailableError as error:
            raise failure(LEDGER_UNAVAILABLE, f"the ledger is away: {error}") from error
        return Admission(warnings=await self._guard(request, now))

    @activity.defn
    async def record_usage(self, order: RecordOrder) -> RecordedUsage:
        """Commit the usage record of a served request, its meter events with it.

        Repeating it returns the first bill.
        """
        try:
            async with self._ledger.begin() as tx:
                recorded = await _record(tx, order)
        except LedgerUnavailableError as error:
            raise failure(LEDGER_UNAVAILABLE, f"the ledger is away: {error}") from error
        return RecordedUsage(
            bill=usage.bill_of(recorded.record), meter_events=recorded.meter_events
        )

    async def _guard(self, request: ClaudeRequest, now: datetime) -> tuple[str, ...]:
        limits = Limits(
            max_input_tokens=request.max_input_tokens or self._limits.max_input_tokens,
            max_cost_usd=request.max_cost_usd or self._limits.max_cost_usd,
        )
        verdict = check(request.params, limits, now)
        if isinstance(verdict, Undecided):
            try:
                counted = await self._api.count_tokens(request.params)
            except ClaudeCallError as error:
                raise failure(
                    error.failure,
                    f"counting the prompt's tokens: {error}",
                    retry_after=error.retry_after,
                ) from error
            verdict = check(request.params, limits, now, counted=counted)
        if isinstance(verdict, Refusal):
            raise failure(verdict.failure, verdict.message)
        assert isinstance(verdict, Pass)  # noqa: S101 - a count decides
        return verdict.warnings


async def _refuse_repeats(tx: Transaction, request: ClaudeRequest) -> None:
    key = RequestKey(customer_id=request.customer_id, request_id=request.request_id)
    billed = await usage.find(tx, key)
    if billed is None:
        return
    if billed.fingerprint != request.fingerprint:
        raise failure(
            REQUEST_ID_REUSED,
            f"request_id: {request.request_id!r} was used before with a different body; "
            "use a new id for a new request",
        )
    raise failure(
        ALREADY_BILLED,
        f"request {request.request_id!r} was answered and billed before and its reply is no "
        "longer kept; it is neither called nor billed again",
        bill=usage.bill_of(billed).model_dump(mode="json"),
    )


async def _may_spend(tx: Transaction, customer_id: str, now: datetime) -> None:
    customer = await customers.get(tx, customer_id)
    if customer is None:
        raise failure(
            UNKNOWN_CUSTOMER,
            f"customer_id: no customer {customer_id!r}; add it with "
            f"`tallystick customer add {customer_id}`",
        )
    if customer.status != CustomerStatus.ACTIVE:
        raise failure(
            CUSTOMER_SUSPENDED,
            f"customer {customer_id!r} is suspended: {customer.status_reason or 'no reason given'}",
        )
    if await customers.plan_in_force(tx, customer.plan, now) is None:
        raise failure(
            INVALID_REQUEST,
            f"customer {customer_id!r} is on plan {customer.plan!r}, which has no terms in force; "
            "run `tallystick setup`",
        )


async def _record(tx: Transaction, order: RecordOrder) -> usage.Recorded:
    attempt = await attempts.get(tx, order.attempt_id)
    if attempt.reply is None:
        recorded = await usage.recorded(tx, order.key)
        assert recorded is not None  # noqa: S101 - the reply leaves only with its record
        return recorded
    assert attempt.finished_at is not None  # noqa: S101 - set with the reply
    plan = await _plan_at(tx, order.key.customer_id, attempt.finished_at)
    rating = rate(attempt.reply, at=attempt.finished_at)
    return await usage.record(tx, _new_record(order, attempt, rating, plan))


async def _plan_at(tx: Transaction, customer_id: str, at: datetime) -> PlanInForce:
    customer = await customers.get(tx, customer_id)
    assert customer is not None  # noqa: S101 - admitted before
    plan = await customers.plan_in_force(tx, customer.plan, at)
    assert plan is not None  # noqa: S101 - admitted before, and plans are append-only
    return plan


def _new_record(
    order: RecordOrder, attempt: Attempt, rating: Rating, plan: PlanInForce
) -> usage.NewRecord:
    """Work out the row: what Claude served, what it cost, what the customer pays."""
    assert attempt.reply is not None  # noqa: S101 - the caller looked
    known = rating.cost_usd is not None
    charged = charge(rating.lines, PlanTerms.read(plan.terms)) if known else None
    # What is billed; a reply that is not billed keeps its counts in the evidence alone.
    tokens = (TokenCounts() if rating.status == "not_billed" else rating.tokens).by_kind()
    columns: dict[str, Any] = {
        "fingerprint": attempt.fingerprint,
        "conversation_id": attempt.conversation_id,
        "served_at": attempt.finished_at,
        "model": attempt.reply.get("model") or attempt.model,
        "message_id": attempt.message_id,
        "claude_request_id": attempt.claude_request_id,
        "stop_reason": attempt.reply.get("stop_reason"),
        "partial": rating.partial,
        "prompt_chars": attempt.prompt_chars,
        "response_chars": response_chars(attempt),
        **{f"{kind}_tokens": tokens[kind] for kind in TOKEN_KINDS},
        "web_searches": tokens[TokenKind.WEB_SEARCH],
        "evidence": evidence(attempt.reply),
        "status": rating.status if rating.status in ("priced", "not_billed") else "unpriced",
        "reason": rating.reason,
        "price_book": rating.book_version,
        "plan": plan.plan,
        "plan_valid_from": plan.valid_from,
        "cost_usd": rating.cost_usd,
        "charge_nano_usd": charged.nano_usd if charged else None,
        "lines": [_as_json(line) for line in rating.lines],
        "explanation": explain(rating),
        "warnings": list(order.warnings),
        "caller_metadata": order.metadata,
    }
    return usage.NewRecord(
        key=order.key,
        attempt_id=order.attempt_id,
        columns=columns,
        # Without a price there is nothing to tell Stripe yet; the events follow with the price.
        meter_values=[
            (CHARGE_METER, charged.nano_usd),
            *((token_meter(kind), tokens[kind]) for kind in TOKEN_KINDS),
        ]
        if charged
        else [],
    )


def _as_json(line: BillLine) -> dict[str, object]:
    return line.model_dump(mode="json")


def response_chars(attempt: Attempt) -> int:
    """Return the length of the reply: the characters of its text blocks."""
    blocks = cast("list[dict[str, Any]]", (attempt.reply or {}).get("content") or [])
    return sum(len(block.get("text") or "") for block in blocks)
