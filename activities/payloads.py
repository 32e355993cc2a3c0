"""Large payloads: kept and fetched for applications, and forgotten with their workflows.

`keep_payload_part` and `fetch_payload_part` are what an application without PostgreSQL has done for
it (`tallystick.payloads.worker_storage`). `sweep_payloads` deletes what no history refers to any
more, and asks the one who knows: a payload that nobody has needed for as long as Temporal keeps
closed workflows is deleted when its workflow is unknown there, and else looked at again after as
long. A workflow that waits for months keeps its payloads, whatever the retention is.

The same step removes what was said in requests and in results of batch jobs whose date has come,
which asks nobody.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from temporalio import activity
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from activities.failures import failure
from activities.transactions import transaction
from tallystick.contracts import PayloadPart
from tallystick.errors import PAYLOAD_UNREADABLE, TEMPORAL_UNAVAILABLE, PayloadUnreadableError
from tallystick.ledger import batch_results, contents, payloads
from tallystick.ledger.database import Ledger, Transaction
from tallystick.payloads.ledger_storage import LedgerStorage

SHORTEST = timedelta(days=1)
"""However short the retention is: a payload is stored before its workflow begins."""
AT_ONCE = 200
"""Workflows that one run asks for; the next run takes the rest."""
CONTENTS_AT_ONCE, CONTENTS_A_RUN = 2_000, 20_000
"""Requests whose content one transaction removes, and one run: by the minute, 28,800,000 a day. Of
batch jobs a transaction takes one, whose end takes its prompts away in one as well."""


class PayloadActivities:
    """Keeps large payloads in `ledger` for workflows of the server behind `client`."""

    def __init__(self, ledger: Ledger, client: Client):
        self._ledger = ledger
        self._storage = LedgerStorage(ledger)
        self._client = client

    @activity.defn
    async def keep_payload_part(self, part: PayloadPart, content: bytes) -> None:
        """Store one part; repeating it does nothing."""
        await self._storage.keep(part, content)

    @activity.defn
    async def fetch_payload_part(self, part: PayloadPart) -> bytes:
        """Return one part.

        Raises:
            ApplicationError: it is not there, and never will be: it is stored before it is named.
        """
        try:
            return await self._storage.fetch(part)
        except PayloadUnreadableError as error:
            raise ApplicationError(
                str(error), type=PAYLOAD_UNREADABLE.type, non_retryable=True
            ) from error

    @activity.defn
    async def sweep_payloads(self) -> int:
        """Delete payloads of workflows that Temporal has forgotten, and old content of requests.

        Returns of how many workflows and requests together.
        """
        kept = await self._remove_old(lambda tx: contents.remove_old(tx, CONTENTS_AT_ONCE))
        results = await self._remove_old(batch_results.remove_old)
        return kept + results + await self._forget_payloads()

    async def _remove_old(self, some: Callable[[Transaction], Awaitable[int]]) -> int:
        removed = 0
        while removed < CONTENTS_A_RUN:
            async with transaction(self._ledger) as tx:
                chunk = await some(tx)
            if not chunk:
                break
            removed += chunk
        return removed

    async def _forget_payloads(self) -> int:
        now = datetime.now(UTC)
        before = now - max(await self._retention(), SHORTEST)
        async with transaction(self._ledger) as tx:
            old = await payloads.old_workflows(tx, before, AT_ONCE)
        forgotten = 0
        for workflow_id in old:
            known = bool(workflow_id) and await self._is_known(workflow_id)
            async with transaction(self._ledger) as tx:
                if known:
                    await payloads.still_needed(tx, workflow_id, now)
                else:
                    await payloads.forget(tx, workflow_id, before)
            forgotten += not known
        return forgotten

    async def _retention(self) -> timedelta:
        try:
            namespace = await self._client.workflow_service.describe_namespace(
                DescribeNamespaceRequest(namespace=self._client.namespace)
            )
        except RPCError as error:
            raise failure(TEMPORAL_UNAVAILABLE, f"asking for the retention: {error}") from error
        return namespace.config.workflow_execution_retention_ttl.ToTimedelta()

    async def _is_known(self, workflow_id: str) -> bool:
        try:
            await self._client.get_workflow_handle(workflow_id).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            raise failure(TEMPORAL_UNAVAILABLE, f"asking for {workflow_id}: {error}") from error
        return True
