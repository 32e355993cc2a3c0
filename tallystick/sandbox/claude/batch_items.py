"""One request inside a batch: what is kept of it, and its line in the file of results.

Of a request only the draft of its reply is kept, a few hundred bytes. The line of the results and
the row of the journal are written from it each time they are asked for, so 100,000 results can be
streamed without ever being in memory together. An item that will not be served has the reason in
the draft's place.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

from tallystick.sandbox.claude.errors import error_body
from tallystick.sandbox.claude.faults import ClaudeFault
from tallystick.sandbox.claude.http import json_bytes
from tallystick.sandbox.claude.journal import BatchLot
from tallystick.sandbox.claude.replies import Draft, Reply
from tallystick.sandbox.claude.used import Used, used_by

Outcome = Literal["succeeded", "errored", "canceled", "expired"]


@dataclass(frozen=True, slots=True)
class Unserved:
    """Why an item has no reply; an errored one names the type of error and says what is wrong."""

    outcome: Outcome
    error_type: str = ""
    message: str = ""


CANCELED, EXPIRED = Unserved("canceled"), Unserved("expired")


@dataclass(slots=True)
class Item:
    """One request of a batch, and what becomes of it if it gets its turn."""

    lot: BatchLot
    custom_id: str
    work: Draft | Unserved
    fault: ClaudeFault | None = None

    def answer(self) -> Reply | Unserved:
        """Return the reply, the same each time, or why there is none."""
        if isinstance(self.work, Unserved):
            return self.work
        reply = self.work.write(f"msg_{self._fingerprint()}")
        return reply if self.fault is None else self.fault.reshape(reply)

    def line(self) -> bytes:
        """Return the item's line in the file of results."""
        line = {"custom_id": self.custom_id, "result": self._result()}
        return json_bytes(line) + b"\n"

    def as_dict(self) -> dict[str, Any]:
        """Return the item as a row of the journal.

        Raises:
            TypeError: it was not served, so it has none.
        """
        reply = self._reply()
        return {
            "batch_id": self.lot.batch_id,
            "custom_id": self.custom_id,
            "message_id": reply.id,
            "model": reply.model,
            "served_at": self.lot.ended_at,
            "usage": reply.usage(),
            "served": reply.served.as_dict(),
            "billable": reply.billable.as_dict(),
            "stop_reason": reply.stop_reason,
            "streamed": False,
            "delivered": self.lot.delivered,
            "fault": None if self.fault is None else self.fault.name,
            "key_last4": self.lot.key_last4,
        }

    @property
    def used(self) -> tuple[Used, ...]:
        """What the reports are told of the item once its batch ended.

        Raises:
            TypeError: it was not served.
        """
        reply, lot = self._reply(), self.lot
        return used_by(
            reply,
            at=lot.ended_at or 0,
            key_id=lot.key_id,
            product="message_batches_api",
            ids=(lot.batch_id, self.custom_id, reply.id),
        )

    def _reply(self) -> Reply:
        reply = self.answer()
        if isinstance(reply, Unserved):
            raise TypeError(f"{self.custom_id} was not served")
        return reply

    def _result(self) -> dict[str, Any]:
        answer = self.answer()
        if isinstance(answer, Reply):
            return {"type": "succeeded", "message": answer.message()}
        if answer.outcome != "errored":
            return {"type": answer.outcome}
        error = error_body(answer.error_type, answer.message, f"req_{self._fingerprint()}")
        return {"type": "errored", "error": error}

    def _fingerprint(self) -> str:
        return hashlib.sha256(f"{self.lot.batch_id}\0{self.custom_id}".encode()).hexdigest()[:24]
