"""Create, retrieve, list, cancel and delete message batches: [build-with-claude/batch-processing].

There is no idempotency: each create that is accepted makes a batch. A batch echoes nothing of what
was sent, so only `list` helps whoever lost the answer (facts on Claude, 'Message Batches').
"""

import asyncio
import zlib
from typing import Annotated, Any, ClassVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from tallystick.sandbox.claude.api_call import Answer, Call, as_json
from tallystick.sandbox.claude.batch_bodies import MAX_BATCH_BODY, BatchRequest, check_batch
from tallystick.sandbox.claude.batch_call import BatchCall
from tallystick.sandbox.claude.batch_faults import ItemFault
from tallystick.sandbox.claude.batch_items import Item, Unserved
from tallystick.sandbox.claude.batches import Batch
from tallystick.sandbox.claude.bodies import check_messages, parse_json, validate
from tallystick.sandbox.claude.errors import ApiError
from tallystick.sandbox.claude.http import json_bytes
from tallystick.sandbox.claude.journal import BatchLot
from tallystick.sandbox.claude.keys import key_id
from tallystick.sandbox.claude.replies import Draft, new_id

_ITEMS_AT_A_TIME = 500
"""About 20 ms of work, in which the stand-in answers nobody else."""


class CreateBatch(BatchCall):
    """POST /v1/messages/batches."""

    max_body: ClassVar[int] = MAX_BATCH_BODY

    @override
    async def work(self, call: Call) -> Answer:
        requests = check_batch(parse_json(call.raw))
        lot = BatchLot(new_id("msgbatch"), call.key[-4:], key_id(call.key))
        items: list[Item] = []
        for request in requests:
            items.append(self._item(lot, request, call.key))
            if len(items) % _ITEMS_AT_A_TIME == 0:
                await asyncio.sleep(0)
        return self.show(call, self._service.batches.add(lot, items))

    def _item(self, lot: BatchLot, request: BatchRequest, key: str) -> Item:
        fault = self.pick_fault(json_bytes(request), "item")
        if isinstance(fault, ItemFault):
            return Item(lot, request["custom_id"], fault.instead())
        return Item(lot, request["custom_id"], self._draft(request, key), fault)

    def _draft(self, request: BatchRequest, key: str) -> Draft | Unserved:
        luck = zlib.crc32(request["custom_id"].encode()) / 2**32
        reads = luck < self._service.batches.pace.cache_hits
        try:
            body = check_messages(request["params"])
            return self._service.draft(body, key, batched=True, reads=reads)
        except ApiError as error:
            return Unserved("errored", error.type, error.message)


class RetrieveBatch(BatchCall):
    """GET /v1/messages/batches/{batch_id}."""

    @override
    async def work(self, call: Call) -> Answer:
        return self.show(call, self._service.batches.find(call.path["batch_id"]))


class CancelBatch(BatchCall):
    """POST /v1/messages/batches/{batch_id}/cancel."""

    @override
    async def work(self, call: Call) -> Answer:
        return self.show(call, self._service.batches.cancel(call.path["batch_id"]))


class DeleteBatch(BatchCall):
    """DELETE /v1/messages/batches/{batch_id}."""

    @override
    async def work(self, call: Call) -> Answer:
        self._service.batches.delete(call.path["batch_id"])
        return as_json(call, {"id": call.path["batch_id"], "type": "message_batch_deleted"})


class ListBatches(BatchCall):
    """GET /v1/messages/batches: newest first, a page behind or before a cursor."""

    @override
    async def work(self, call: Call) -> Answer:
        query = dict(parse_qsl(call.query))
        batches, has_more = _cut(self._service.batches.newest_first(), validate(query, _Page))
        now = self._service.clock()
        page: dict[str, Any] = {
            "data": [batch.as_dict(call.base_url, now) for batch in batches],
            "has_more": has_more,
            "first_id": batches[0].id if batches else None,
            "last_id": batches[-1].id if batches else None,
        }
        return as_json(call, page)


class _Page(BaseModel):
    model_config = ConfigDict(extra="ignore")

    limit: Annotated[int, Field(ge=1, le=1_000)] = 20
    after_id: str | None = None
    before_id: str | None = None


def _cut(batches: list[Batch], page: _Page) -> tuple[list[Batch], bool]:
    """Return a page of the batches, and whether there are more in its direction."""
    ids = [batch.id for batch in batches]
    cursor = page.before_id or page.after_id
    if cursor is not None and cursor not in ids:
        raise ApiError(400, f"No message batch {cursor!r} to page from")
    if page.before_id is not None:
        end = ids.index(page.before_id)
        start = max(end - page.limit, 0)
        return batches[start:end], start > 0
    start = 0 if page.after_id is None else ids.index(page.after_id) + 1
    end = start + page.limit
    return batches[start:end], end < len(batches)
