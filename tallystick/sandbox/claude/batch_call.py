"""What every call about a batch has in common.

What a call does is done before its answer may be lost: a batch whose creation went unanswered is
there, and is served and billed, and a client that creates it again has a twin.
"""

from tallystick.sandbox.claude.api_call import Answer, ApiCall, Call, as_json
from tallystick.sandbox.claude.batches import Batch


class BatchCall(ApiCall):
    """A route under /v1/messages/batches."""

    def show(self, call: Call, batch: Batch) -> Answer:
        """Answer with a batch."""
        return as_json(call, batch.as_dict(call.base_url, self._service.clock()))
