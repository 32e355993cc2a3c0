"""What a worker needs to run accounts: each step of a cycle and of the sweep, on one Stripe client.

Opened once per process and closed with it. A cycle's steps are ledger transactions and a few calls
to Stripe each, so they share the queue, and the process, with requests.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from temporalio.client import Client
from temporalio.service import RPCError

from activities.accounts import AccountActivities
from activities.agenda import AgendaActivities
from activities.dunning import DunningActivities
from activities.event_backfill import EventBackfillActivities
from activities.invoicing import InvoicingActivities
from activities.meter_reports import MeterReportActivities
from activities.metering_check import MeteringCheckActivities
from activities.notices import NoticeActivities, notifier
from activities.settlement import SettlementActivities
from activities.stripe_clients import stripe_client
from activities.stripe_events import StripeEventActivities
from activities.stripe_subscriptions import SubscriptionActivities
from activities.stripe_summaries import MeterSummaries
from activities.top_up_collection import TopUpActivities
from activities.waking import WakingActivities, wake
from activities.wallet import WalletActivities
from tallystick.contracts import News
from tallystick.ledger.database import Ledger
from tallystick.services import Endpoints
from tallystick.settings import Settings

log = logging.getLogger("tallystick.worker")

Activity = Callable[..., Any]


@asynccontextmanager
async def billing_activities(
    ledger: Ledger, temporal: Client, where: Endpoints, settings: Settings
) -> AsyncGenerator[list[Activity], None]:
    """Yield the activities of accounts, on clients that close with the context."""
    async with (
        stripe_client(where, settings, ledger.url) as stripe,
        notifier(settings.notice_url, settings.notice_secret) as receiver,
    ):
        accounts = AccountActivities(ledger)
        dunning = DunningActivities(ledger)
        events = StripeEventActivities(ledger, stripe, temporal, _now)
        invoicing = InvoicingActivities(ledger, stripe)
        notices = NoticeActivities(ledger, receiver)
        subscriptions = SubscriptionActivities(ledger, stripe)
        wallet = WalletActivities(ledger, _now)
        yield [
            AgendaActivities(ledger).read_agenda,
            # the books of a period
            accounts.close_books,
            MeteringCheckActivities(ledger, stripe, MeterSummaries(stripe)).verify_metering,
            SettlementActivities(ledger).settle_period,
            accounts.finish_period,
            accounts.end_account,
            # Stripe's side of it
            subscriptions.open_subscription,
            subscriptions.align_subscription,
            subscriptions.check_anchor,
            subscriptions.cancel_subscription,
            invoicing.hold_draft,
            invoicing.put_on_invoice,
            invoicing.finalize_invoice,
            # payments
            invoicing.look_at_invoices,
            events.apply_stripe_events,
            TopUpActivities(ledger, stripe).collect_top_up,
            wallet.expire_grants,
            dunning.start_grace,
            dunning.remind_of_payment,
            dunning.suspend_service,
            dunning.restore_service,
            notices.send_notices,
            # the sweep
            EventBackfillActivities(ledger, stripe, _now).backfill_events,
            events.forward_events,
            MeterReportActivities(ledger, stripe, _now).handle_meter_reports,
            wallet.watch_usage,
            WakingActivities(ledger, temporal).wake_accounts,
            notices.send_operator_notices,
        ]


class Nudges:
    """Tells cycles of news in the background; `drain` waits for those under way.

    A nudge that fails is only late: the sweep finds in the ledger what it was about.
    """

    def __init__(self, temporal: Client):
        self._temporal = temporal
        self._under_way = set[asyncio.Task[None]]()

    def __call__(self, customer_id: str) -> None:
        """Tell the customer's cycle soon; never waits and never fails."""
        task = asyncio.create_task(self._wake(customer_id))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def drain(self) -> None:
        """Wait for what is under way; for a worker that stops."""
        await asyncio.gather(*self._under_way)

    async def _wake(self, customer_id: str) -> None:
        try:
            await wake(self._temporal, customer_id, News())
        except RPCError as error:
            log.warning("the cycle of %s hears of its news later: %s", customer_id, error)


def _now() -> datetime:
    return datetime.now(UTC)
