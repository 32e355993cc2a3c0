"""Usage in hours that are over, on all three records: what reconciliation has to look at.

Stand-ins and workers go by the present, so what was used earlier is entered: the attempt and its
usage record are committed as of then, Claude's report is told of the call, and a worker sends the
meter events, dated as the record is.
"""

import itertools
from datetime import UTC, datetime, timedelta

from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities.ledger import LedgerActivities
from tallystick.cli.metering import deliver
from tallystick.contracts import MeterOrder, RecordOrder, RequestKey
from tallystick.ledger import attempts
from tallystick.ledger.attempts import Begun, Completion, NewAttempt
from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Outcome
from tallystick.metering import CHARGE_METER, meter_identifier
from tallystick.reconciling.intervals import HOUR, whole_hour
from tests.pricing.replies import reply, usage
from tests.support.house import PATIENCE, Control

MODEL = "claude-sonnet-5-5"
_CALL_TAKES = timedelta(seconds=2)
_numbers = itertools.count(1)


def hours_ago(hours: int) -> datetime:
    """Return the beginning of the hour that many hours before this one."""
    return whole_hour(datetime.now(UTC)) - hours * HOUR


class Past:
    """Ways to use something earlier."""

    def __init__(self, ledger: Ledger, temporal: Client, claude: Control):
        self._ledger, self._temporal, self._claude = ledger, temporal, claude

    async def use(
        self,
        customer: str,
        at: datetime,
        prompt: int = 1_000,
        answer: int = 200,
        *,
        request_id: str | None = None,
    ) -> RequestKey:
        """Have a request answered at `at`."""
        request_id = request_id or f"past-{next(_numbers)}"
        key = RequestKey(customer_id=customer, request_id=request_id)
        message = reply(MODEL, usage(prompt, answer), id=f"msg_{request_id}")
        attempt = await self._begin(key, at)
        done = Completion(
            Outcome.SUCCEEDED, message_id=message["id"], usage=message["usage"], reply=message
        )
        await self._complete(attempt, done, at)
        order = RecordOrder(key=key, attempt_id=attempt)
        steps = LedgerActivities(self._ledger)
        recorded = await ActivityEnvironment().run(steps.record_usage, order)
        await self.reported(at, prompt, answer)
        events = MeterOrder(key=key, events=recorded.meter_events)
        sent = await deliver(self._temporal, [events], patience=PATIENCE)
        assert sent.delivered == 1, sent
        return key

    async def use_and_lose_the_charge(
        self, stripe: Control, customer: str, at: datetime, prompt: int = 30_000
    ) -> RequestKey:
        """Have a request answered whose charge Stripe takes, remembers, and does not count."""
        request_id = f"past-{next(_numbers)}"
        identifier = meter_identifier(customer, request_id, CHARGE_METER)
        await stripe.order("lost_event", identifier=identifier)
        return await self.use(customer, at, prompt, request_id=request_id)

    async def lose(
        self, customer: str, at: datetime, prompt: int = 1_000, answer: int = 200
    ) -> RequestKey:
        """Have a call served at `at` whose answer nobody has seen."""
        key = RequestKey(customer_id=customer, request_id=f"past-{next(_numbers)}")
        attempt = await self._begin(key, at, estimated=prompt)
        await self._complete(attempt, Completion(Outcome.INDETERMINATE), at)
        await self.reported(at, prompt, answer)
        return key

    async def reported(self, at: datetime, prompt: int, answer: int) -> None:
        """Have Claude's reports tell of a call."""
        row = {
            "at": at.timestamp(),
            "model": MODEL,
            "tokens": {"input": prompt, "output": answer},
        }
        await self._claude.post("reports/outside", {"rows": [row]})

    async def _begin(self, key: RequestKey, at: datetime, estimated: int = 1) -> int:
        new = NewAttempt(key, "f", MODEL, None, estimated, 1)
        async with self._ledger.begin() as tx:
            begun = await attempts.begin(tx, new, at - _CALL_TAKES, max_unknown=5)
        assert isinstance(begun, Begun)
        return begun.attempt_id

    async def _complete(self, attempt_id: int, completion: Completion, at: datetime) -> None:
        async with self._ledger.begin() as tx:
            await attempts.complete(tx, attempt_id, completion, at)
