"""From a statement to a final invoice: `hold_draft`, `put_on_invoice`, `finalize_invoice`.

The invoice of a period is Stripe's own where a subscription runs, held as a draft meanwhile, and
beside it (or instead of it) one of ours where there is none that can still be changed. Nothing is
remembered between steps: each looks at what is there. An item is found again by its marks and made
under a key of its statement line, so a step that is killed anywhere leaves what its repetition
finds.

An invoice is made final only after every line of it was compared with the statement. What differs
keeps it a draft and tells an operator; a customer is never charged first and asked afterwards.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from stripe import Invoice, StripeClient
from temporalio import activity

from activities.collecting import OnInvoices, Wanted, differences, extra_lines, wanted_items
from activities.drafts import hold
from activities.looks import refresh_invoice
from activities.stripe_calls import stripe_calls
from activities.stripe_invoices import (
    MARK_CUSTOMER,
    MARK_LINE,
    MARK_PERIOD,
    MARK_STATEMENT,
    Line,
    Marks,
    add_item,
    ensure_invoice,
    lines,
    marked,
    seen,
)
from activities.stripe_periods import StripePeriod, agreed_at, invoice_of, numbered_period
from activities.transactions import transaction
from tallystick.contracts import StepOrder, StepResult
from tallystick.ledger import accounts, agenda, invoices
from tallystick.ledger.database import Ledger, Transaction
from tallystick.ledger.invoices import Collection
from tallystick.ledger.notices import raise_notice

DIFFERENCE_LOOK = timedelta(hours=1)
"""An invoice that differs waits for a person; it is compared again this often."""


@dataclass(frozen=True, slots=True)
class _Invoices:
    """The invoices of a period: Stripe's, and ours beside it; with the lines of both."""

    stripes: Invoice | None
    ours: Invoice | None
    lines: list[Line]

    @property
    def held(self) -> bool:
        return self.stripes is not None and self.stripes.status == "draft"

    @property
    def on(self) -> OnInvoices:
        return OnInvoices(self.lines, self.held)

    @property
    def all(self) -> list[Invoice]:
        return [each for each in (self.stripes, self.ours) if each is not None]


class InvoicingActivities:
    """Has the statements of `ledger` collected through Stripe."""

    def __init__(self, ledger: Ledger, client: StripeClient):
        self._ledger = ledger
        self._client = client

    @activity.defn
    async def hold_draft(self, order: StepOrder) -> StepResult:
        """Keep the invoice of the period that the subject numbers a draft."""
        of = await numbered_period(self._ledger, self._client, order)
        return await hold(self._ledger, self._client, of, order.now)

    @activity.defn
    async def put_on_invoice(self, order: StepOrder) -> StepResult:
        """Put what Stripe's own lines do not collect of a statement on the period's invoice."""
        of = await numbered_period(self._ledger, self._client, order)
        made = await self._put(of, await self._collection(of), order.now)
        return StepResult(words=f"{made} line(s) are items of the invoice")

    @activity.defn
    async def finalize_invoice(self, order: StepOrder) -> StepResult:
        """Make the period's invoice final, once it says what its statement says."""
        of = await numbered_period(self._ledger, self._client, order)
        collection = await self._collection(of)
        found = await self._find(of, collection)
        if not found.held:  # somebody else made it final: what it lacks goes on ours
            await self._put(of, collection, order.now)
            found = await self._find(of, collection)
        told = differences(collection, found.on)
        if told:
            return await self._differs(of, found, told, order.now)
        for invoice in found.all:
            await self._finalize(of, invoice, order.now)
        await self._finish(of, collection, found, order.now)
        ids = ", ".join(invoice.id for invoice in found.all)
        return StepResult(words=f"final: {ids}" if ids else "there was nothing to invoice")

    @activity.defn
    async def look_at_invoices(self, order: StepOrder) -> StepResult:
        """Ask Stripe about the invoice that the subject names, or about all that are unpaid."""
        ids = [order.subject]
        if not order.subject:
            async with transaction(self._ledger) as tx:
                unpaid = await agenda.unpaid_invoices(tx, order.customer_id)
            ids = [invoice.invoice_id for invoice in unpaid]
        told: list[str] = []
        for each in ids:
            row = await refresh_invoice(self._ledger, self._client, each, order.now)
            told.append(f"{each} is {row.status}" if row else f"{each} is not known")
        return StepResult(words="; ".join(told))

    # --- Looking ----------------------------------------------------------------------------------
    async def _collection(self, of: StripePeriod) -> Collection:
        async with transaction(self._ledger) as tx:
            collection = await invoices.collection(tx, of.customer_id, of.ordinal)
        assert collection is not None, "a period is settled before it is invoiced"  # noqa: S101
        return collection

    async def _find(self, of: StripePeriod, collection: Collection) -> _Invoices:
        with stripe_calls():
            stripes = await invoice_of(self._client, of)
            ours = await marked(
                self._client, of.stripe_customer_id, _of_ours(of, collection), of.period.end
            )
            found = [
                line
                for invoice in (stripes, ours)
                if invoice is not None
                for line in await lines(self._client, invoice.id)
            ]
        return _Invoices(stripes, ours, found)

    # --- Putting ----------------------------------------------------------------------------------
    async def _put(self, of: StripePeriod, collection: Collection, now: datetime) -> int:
        """Create the items that are missing; returns how many there are then."""
        found = await self._find(of, collection)
        wanted = wanted_items(collection, found.on)
        there = found.on.ours(collection.statement_id)
        items = {
            number: (lines[0].item_id or "", lines[0].invoice_id) for number, lines in there.items()
        }
        missing = [each for each in wanted if each.number not in there]
        if missing:
            target = found.stripes if found.stripes is not None and found.held else None
            if target is None:
                target = await self._our_own(of, collection, now)
            for each in missing:
                item_id = await self._add(of, collection, target, each)
                items[each.number] = (item_id, target.id)
        async with transaction(self._ledger) as tx:
            for number, (item_id, invoice_id) in items.items():
                await invoices.note_item(tx, collection.statement_id, number, item_id, invoice_id)
        return len(wanted)

    async def _add(
        self, of: StripePeriod, collection: Collection, target: Invoice, wanted: Wanted
    ) -> str:
        with stripe_calls():
            return await add_item(
                self._client,
                target,
                marks={**_marks(of, collection), MARK_LINE: str(wanted.number)},
                key=f"statement-{collection.statement_id}-{wanted.number}@{target.id}",
                amount_cents=wanted.amount_cents,
                description=wanted.description,
                period=of.period,
            )

    async def _our_own(self, of: StripePeriod, collection: Collection, now: datetime) -> Invoice:
        """Return an invoice of ours for what no draft of Stripe's can take any more."""
        # The terms of the period itself, which end with it.
        at = of.period.end - timedelta(microseconds=1)
        agreed = await agreed_at(self._ledger, of.customer_id, at)
        with stripe_calls():
            invoice = await ensure_invoice(
                self._client,
                of.stripe_customer_id,
                marks=_of_ours(of, collection),
                key=f"statement-{collection.statement_id}-invoice",
                since=of.period.end,
                terms_days=agreed.terms.payment_terms_days,
                description=f"Statement {of.ordinal}",
            )
        await self._note(of, invoice, now)
        return invoice

    async def _note(self, of: StripePeriod, invoice: Invoice, now: datetime) -> None:
        with stripe_calls():
            looked = await seen(self._client, invoice, now)
        async with transaction(self._ledger) as tx:
            await invoices.note(tx, looked, of.customer_id, purpose="period", ordinal=of.ordinal)

    # --- Making final -----------------------------------------------------------------------------
    async def _differs(
        self, of: StripePeriod, found: _Invoices, told: list[str], now: datetime
    ) -> StepResult:
        what = "; ".join(told)
        async with transaction(self._ledger) as tx:
            await raise_notice(
                tx,
                of.customer_id,
                key=f"invoice-differs:{of.ordinal}",
                kind="invoice_differs",
                audience="operator",
                message=f"The invoice of period {of.ordinal} does not say what its statement says "
                f"and stays a draft: {what}.",
                facts={
                    "ordinal": of.ordinal,
                    "invoices": [each.id for each in found.all],
                    "differences": told,
                },
                at=now,
            )
        return StepResult(
            words=f"the invoice differs from the statement: {what}", again_at=now + DIFFERENCE_LOOK
        )

    async def _finalize(self, of: StripePeriod, invoice: Invoice, now: datetime) -> None:
        if invoice.status == "draft":
            with stripe_calls():
                invoice = await self._client.v1.invoices.finalize_invoice_async(
                    invoice.id, {"auto_advance": True}
                )
        await self._note(of, invoice, now)

    async def _finish(
        self, of: StripePeriod, collection: Collection, found: _Invoices, now: datetime
    ) -> None:
        """Note that the period is invoiced; a subscription that has ended collects no more."""
        extra = extra_lines(collection, found.on)
        async with transaction(self._ledger) as tx:
            if extra:
                await _tell_of_extra(tx, of, extra, now)
            await accounts.set_invoiced_until(tx, of.customer_id, of.period.end)
            if of.ended is not None and not of.is_last:
                await accounts.set_subscription(tx, of.customer_id, None)


async def _tell_of_extra(
    tx: Transaction, of: StripePeriod, extra: list[Line], now: datetime
) -> None:
    names = ", ".join(
        f"{line.description or line.item_id} ({line.amount_cents} cents)" for line in extra
    )
    await raise_notice(
        tx,
        of.customer_id,
        key=f"invoice-extra:{of.ordinal}",
        kind="invoice_has_more",
        audience="operator",
        message=f"The invoice of period {of.ordinal} has lines that no statement has: {names}.",
        facts={"ordinal": of.ordinal, "items": [line.item_id for line in extra]},
        at=now,
    )


def _of_ours(of: StripePeriod, collection: Collection) -> Marks:
    return {**_marks(of, collection), MARK_PERIOD: str(of.ordinal)}


def _marks(of: StripePeriod, collection: Collection) -> Marks:
    return {MARK_CUSTOMER: of.customer_id, MARK_STATEMENT: str(collection.statement_id)}
