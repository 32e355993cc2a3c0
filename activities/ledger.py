"""`record_usage` and `abandon_request`: how a request ends in the ledger.

Both are local activities, so both may run again after a lost workflow task: recording is decided
by the usage record's unique key, and what is abandoned stays so. Prices and charges are worked out
by `tallystick.pricing` and `tallystick.plans`; this module only carries rows to them and back.

Where a customer's content is kept, what was asked and answered is committed with the usage record:
a crash leaves both or neither. The prompt comes as an argument for that, and the reply from its
attempt.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from temporalio import activity

from activities.failures import failure
from activities.reply_columns import bill_reply
from tallystick.contracts import RecordedUsage, RecordOrder, RequestKey
from tallystick.errors import LEDGER_UNAVAILABLE
from tallystick.insight import ConversationSoFar, Turn, warnings_for
from tallystick.ledger import attempts, contents, prepaid, reservations, terms, turns, usage
from tallystick.ledger.contents import Content
from tallystick.ledger.database import Ledger, LedgerUnavailableError, Transaction
from tallystick.ledger.prepaid import Burnt
from tallystick.ledger.tables import Attempt
from tallystick.ledger.terms import TermsInForce
from tallystick.payloads.columns import ColumnSeal
from tallystick.pricing import rate


@dataclass(frozen=True, slots=True)
class _ToRecord:
    """A record, by which terms it is charged, and the content that is to be kept with it."""

    new: usage.NewRecord
    agreed: TermsInForce
    content: Content | None


class LedgerActivities:
    """Records usage and releases reservations in `ledger`, where replies are under `seal`.

    `on_news` is told the customers whose balance calls for something (a top-up, a notice), after
    that is committed. It must not wait for anything; what it does not pass on is found in the
    ledger later.
    """

    def __init__(
        self,
        ledger: Ledger,
        on_news: Callable[[str], None] | None = None,
        *,
        seal: ColumnSeal | None = None,
    ):
        self._ledger = ledger
        self._on_news = on_news
        self._seal = seal or ColumnSeal()

    @activity.defn
    async def record_usage(self, order: RecordOrder) -> RecordedUsage:
        """Commit the usage record of a served request, its meter events with it.

        Repeating it returns the first bill.
        """
        try:
            recorded = await self._record(order)
        except LedgerUnavailableError as error:
            raise failure(LEDGER_UNAVAILABLE, f"the ledger is away: {error}") from error
        return RecordedUsage(
            bill=usage.bill_of(recorded.record), meter_events=recorded.meter_events
        )

    @activity.defn
    async def abandon_request(self, key: RequestKey) -> None:
        """Close a request that ends without a record: no room kept, no call left as if in flight.

        A call that nobody waits for any more may have been served; it becomes `indeterminate`.
        """
        try:
            async with self._ledger.begin() as tx:
                await reservations.release(tx, key)
                await attempts.mark_lost(tx, key)
        except LedgerUnavailableError as error:
            raise failure(LEDGER_UNAVAILABLE, f"the ledger is away: {error}") from error

    async def _record(self, order: RecordOrder) -> usage.Recorded:
        # Reads, and then one statement that is the whole transaction. One that also burns credit
        # or keeps content has several; the connection is given back before it, so that nobody ever
        # holds two.
        async with self._ledger.each() as tx:
            found = await self._look(tx, order)
            if isinstance(found, usage.Recorded):
                return found
            if found.agreed.terms.model != "prepaid" and found.content is None:
                return await usage.record(tx, found.new)
        async with self._ledger.begin() as tx:
            burnt = await _record_with_content(tx, found)
        if burnt.news and self._on_news is not None:
            self._on_news(order.key.customer_id)
        return burnt.recorded

    async def _look(self, tx: Transaction, order: RecordOrder) -> usage.Recorded | _ToRecord:
        """Return what was recorded before, or what is to be recorded."""
        attempt = await attempts.get(tx, order.attempt_id)
        if attempt.reply is None:
            recorded = await usage.recorded(tx, order.key)
            assert recorded is not None  # noqa: S101 - the reply leaves only with its record
            return recorded
        assert attempt.finished_at is not None  # noqa: S101 - set with the reply
        standing = await terms.standing(tx, order.key.customer_id, attempt.finished_at)
        assert standing is not None  # noqa: S101 - admitted before
        agreed = standing.agreed
        assert agreed is not None  # noqa: S101 - admitted before, and plans are append-only
        so_far = None
        if attempt.conversation_id is not None:
            so_far = await turns.so_far(
                tx, order.key.customer_id, attempt.conversation_id, attempt.finished_at
            )
        reply = self._seal.read_document(attempt.reply)
        content = None
        if order.params is not None:
            content = Content(self._sealed(order.params), self._sealed(reply))
        return _ToRecord(_new_record(order, attempt, reply, agreed, so_far), agreed, content)

    def _sealed(self, said: Mapping[str, Any]) -> str:
        return self._seal.text(json.dumps(said, separators=(",", ":")))


async def _record_with_content(tx: Transaction, found: _ToRecord) -> Burnt:
    """Write the record, burn what it charges where that is credit, and keep what was said."""
    key, days = found.new.key, None
    if found.content is not None:
        days = await contents.days_held(tx, key.customer_id)
    if found.agreed.terms.model == "prepaid":
        burnt = await prepaid.record(tx, found.new, found.agreed.terms)
    else:
        burnt = Burnt(await usage.record(tx, found.new), news=False)
    if found.content is not None and days is not None and burnt.recorded.written:
        await contents.keep(tx, key, found.content, days)
    return burnt


def _new_record(
    order: RecordOrder,
    attempt: Attempt,
    reply: Mapping[str, Any],
    agreed: TermsInForce,
    so_far: ConversationSoFar | None,
) -> usage.NewRecord:
    """Work out the row: what Claude served, what it cost, what the customer pays."""
    assert attempt.finished_at is not None  # noqa: S101 - set with the reply
    rating = rate(reply, at=attempt.finished_at)
    billed = bill_reply(reply, rating, agreed, asked_model=attempt.model)
    turn = Turn(
        request_id=order.key.request_id,
        conversation_id=attempt.conversation_id,
        served_at=rating.at,
        model=billed.model,
        tokens=billed.tokens,
        lines=rating.lines,
        cost_usd=rating.cost_usd,
        charge_usd=billed.charged.usd if billed.charged else None,
    )
    columns: dict[str, Any] = {
        "fingerprint": attempt.fingerprint,
        "conversation_id": attempt.conversation_id,
        "served_at": attempt.finished_at,
        "message_id": attempt.message_id,
        "claude_request_id": attempt.claude_request_id,
        "prompt_chars": attempt.prompt_chars,
        **billed.columns,
        "warnings": [*order.warnings, *warnings_for(turn, so_far)],
        "caller_metadata": order.metadata,
    }
    return usage.NewRecord(
        key=order.key,
        attempt_id=order.attempt_id,
        columns=columns,
        meter_values=billed.meter_values,
    )
