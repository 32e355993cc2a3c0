"""GET /v1/messages/batches/{batch_id}/results: one line of JSON per item, made as it leaves.

The file has no end mark and the answer no length: a client that does not count the lines cannot
tell a whole file from one that was cut behind a line (facts on Claude, 'Message Batches'). Nothing
resumes it; it is the same file each time it is asked for.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar

from typing_extensions import override

from tallystick.sandbox.claude.api_call import Answer, Call
from tallystick.sandbox.claude.batch_call import BatchCall
from tallystick.sandbox.claude.batch_items import Item
from tallystick.sandbox.claude.errors import ApiError
from tallystick.sandbox.claude.faults import Place
from tallystick.sandbox.claude.http import answer_headers
from tallystick.sandbox.claude.streaming import Part
from tallystick.sandbox.server import Connection, connection_of


class BatchResults(BatchCall):
    """The file of results, once the batch ended and until it is archived: else 404."""

    place: ClassVar[Place] = "results"

    @override
    async def work(self, call: Call) -> Answer:
        batch = self._service.batches.find(call.path["batch_id"])
        if not batch.has_results(self._service.clock()):
            raise ApiError(404, f"{batch.id} has no results: it is {batch.status}")
        headers = answer_headers(call.request_id, "application/x-jsonl")
        lines = _lines(batch.items, connection_of(call.scope))
        return Answer(headers, lines, batch.lot.deliver)


def _lines(items: Sequence[Item], connection: Connection) -> Iterator[Part]:
    last = len(items) - 1
    for index, item in enumerate(items):
        if not connection.is_open:
            return  # a client that was killed is not to be written a whole file for
        yield Part(item.line(), last=index == last)
