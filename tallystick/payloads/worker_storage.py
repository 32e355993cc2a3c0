"""Keeps large payloads without PostgreSQL: for applications, which have Temporal's address alone.

The parts are handed to a worker as activities that belong to no workflow, and fetched from one the
same way. So an application needs no second address, credential or open port to send a document;
the price is that the parts also lie in Temporal, as those activities' arguments and results, until
its retention is over. They went through the codec once more on that way, so they are as unreadable
there as everything else. Small payloads, nearly all of them, go straight to Temporal and need no
worker to be up.
"""

from datetime import timedelta
from typing import Any
from uuid import uuid4

from temporalio.client import ActivityFailureError, Client
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from tallystick.contracts import FETCH_PAYLOAD_PART, KEEP_PAYLOAD_PART, TASK_QUEUE, PayloadPart
from tallystick.errors import PAYLOAD_UNREADABLE, PayloadUnreadableError, UnavailableError
from tallystick.payloads.parts import PartedStorage

PATIENCE = timedelta(seconds=60)
"""For one part. A worker that is there takes milliseconds."""


class WorkerStorage(PartedStorage):
    """Stores and fetches through workers, by way of `client`, which must not store by reference."""

    def __init__(self, client: Client):
        self._client = client

    async def keep(self, part: PayloadPart, content: bytes) -> None:
        """Have a worker store one part; repeating it does nothing.

        Raises:
            UnavailableError: no worker, or no Temporal, answers in time.
        """
        await self._ask(KEEP_PAYLOAD_PART, [part, content], type(None))

    async def fetch(self, part: PayloadPart) -> bytes:
        """Have a worker fetch one part.

        Raises:
            PayloadUnreadableError: it is not there.
            UnavailableError: no worker, or no Temporal, answers in time.
        """
        return await self._ask(FETCH_PAYLOAD_PART, [part], bytes)

    async def _ask(self, activity: str, arguments: list[Any], result: type) -> Any:
        try:
            return await self._client.execute_activity(
                activity,
                args=arguments,
                id=f"{activity}/{uuid4()}",
                task_queue=TASK_QUEUE,
                result_type=result,
                schedule_to_close_timeout=PATIENCE,
            )
        except ActivityFailureError as error:
            cause = error.cause
            if isinstance(cause, ApplicationError) and cause.type == PAYLOAD_UNREADABLE.type:
                raise PayloadUnreadableError(cause.message) from None
            raise UnavailableError(
                f"no worker took or gave a part of a large payload within "
                f"{PATIENCE.total_seconds():g} s; see that one runs (`tallystick worker`), and ask "
                "again with the same request_id and body"
            ) from error
        except RPCError as error:
            raise UnavailableError(
                f"Temporal does not pass on a part of a large payload: {error}; TEMPORAL_ADDRESS "
                "says where it is"
            ) from error
