"""`read_agenda`: what an account has to do next, worked out from the ledger.

A local activity, since it only reads, and an activity at all, since time zones differ by host: two
workers must never disagree about a boundary within one history (facts on Temporal, 'Billing-cycle
entity').
"""

from temporalio import activity

from activities.failures import failure
from tallystick.contracts import Agenda, StepOrder
from tallystick.errors import LEDGER_UNAVAILABLE, UNKNOWN_CUSTOMER
from tallystick.ledger.agenda import account_view
from tallystick.ledger.database import Ledger, LedgerUnavailableError
from tallystick.plans.agenda import agenda


class AgendaActivities:
    """Reads agendas from `ledger`."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger

    @activity.defn
    async def read_agenda(self, order: StepOrder) -> Agenda:
        """Return the account's agenda at `order.now`.

        Raises:
            ApplicationError: `UnknownCustomer`, final.
        """
        try:
            view = await account_view(self._ledger, order.customer_id, order.now)
        except LedgerUnavailableError as error:
            raise failure(LEDGER_UNAVAILABLE, f"the ledger is away: {error}") from error
        if view is None:
            raise failure(UNKNOWN_CUSTOMER, f"customer_id: no customer {order.customer_id!r}")
        return agenda(view, order.now)
