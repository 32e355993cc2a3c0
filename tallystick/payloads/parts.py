"""Large payloads, kept by reference: cut into parts, named by a digest, checked when they return.

A history holds a reference: this driver's name, whose payload it is, its digest and its size. What
is stored is the payload as it was encoded, so encrypted where keys are set. All parts are stored
before the reference leaves, and each under a name of its own, so that a store which broke off is
simply repeated. The parts are what both ways of storing have in common: `ledger_storage` writes
them to PostgreSQL, `worker_storage` hands them to a process that can.
"""

import asyncio
import hashlib
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from temporalio.api.common.v1 import Payload
from temporalio.api.sdk.v1 import ExternalStorageReference
from temporalio.converter import (
    JSONProtoPayloadConverter,
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
    StorageDriverWorkflowInfo,
)

from tallystick.contracts import PayloadPart
from tallystick.errors import PayloadUnreadableError

DRIVER = "tallystick-ledger"
"""In histories, so never to be changed; both storages have it, since they keep the same rows."""
PART_BYTES = 500_000
"""Never to be changed either, or parts of the same payload would not fit together. A part that is
handed over is an argument or a result, and Temporal warns of those from 512 KiB on (facts on
Temporal, 'Data and limits')."""
AT_ONCE = 8
"""Parts of one payload that are under way together."""

_REFERENCE = ExternalStorageReference.DESCRIPTOR.full_name.encode()
_REFERENCES = JSONProtoPayloadConverter()
_T = TypeVar("_T")


class PartedStorage(StorageDriver):
    """Keeps payloads in parts; where is told by those who derive from it."""

    def name(self) -> str:
        """Return what histories call this storage."""
        return DRIVER

    def type(self) -> str:
        """Return what Temporal shows as the kind of storage."""
        return DRIVER

    async def store(
        self, context: StorageDriverStoreContext, payloads: Sequence[Payload]
    ) -> list[StorageDriverClaim]:
        """Store the payloads, whole, and return what they can be had back for."""
        target = context.target
        workflow_id = (target.id or "") if isinstance(target, StorageDriverWorkflowInfo) else ""
        return [await self._store(workflow_id, each.SerializeToString()) for each in payloads]

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """Return the payloads as they were stored.

        Raises:
            PayloadUnreadableError: one is not there, or not whole.
        """
        return [Payload.FromString(await self._retrieve(each)) for each in claims]

    async def resolve(self, payload: Payload) -> Payload:
        """Return what a reference stands for; any other payload is returned as it is.

        Raises:
            PayloadUnreadableError: it is not there, or not whole.
        """
        if payload.metadata.get("messageType") != _REFERENCE:
            return payload
        reference = _REFERENCES.from_payload(payload, ExternalStorageReference)
        claim = StorageDriverClaim(dict(reference.claim_data))
        return Payload.FromString(await self._retrieve(claim))

    @abstractmethod
    async def keep(self, part: PayloadPart, content: bytes) -> None:
        """Store one part; repeating it does nothing."""

    @abstractmethod
    async def fetch(self, part: PayloadPart) -> bytes:
        """Return one part.

        Raises:
            PayloadUnreadableError: it is not there.
        """

    async def _store(self, workflow_id: str, data: bytes) -> StorageDriverClaim:
        digest = hashlib.sha256(data).hexdigest()

        async def keep(number: int) -> None:
            start = number * PART_BYTES
            part = PayloadPart(workflow_id=workflow_id, digest=digest, part=number)
            await self.keep(part, data[start : start + PART_BYTES])

        await _some_at_a_time(keep, _parts(len(data)))
        return StorageDriverClaim(
            {"workflow_id": workflow_id, "digest": digest, "bytes": str(len(data))}
        )

    async def _retrieve(self, claim: StorageDriverClaim) -> bytes:
        workflow_id, digest = claim.claim_data["workflow_id"], claim.claim_data["digest"]

        async def fetch(number: int) -> bytes:
            part = PayloadPart(workflow_id=workflow_id, digest=digest, part=number)
            return await self.fetch(part)

        data = b"".join(await _some_at_a_time(fetch, _parts(int(claim.claim_data["bytes"]))))
        if hashlib.sha256(data).hexdigest() != digest:
            raise PayloadUnreadableError(
                f"the payload {digest} of {workflow_id or 'no workflow'} was changed in the ledger"
            )
        return data


def _parts(size: int) -> int:
    return -(-size // PART_BYTES)


async def _some_at_a_time(do: Callable[[int], Awaitable[_T]], count: int) -> list[_T]:
    done: list[_T] = []
    for start in range(0, count, AT_ONCE):
        some = range(start, min(start + AT_ONCE, count))
        done += await asyncio.gather(*(do(number) for number in some))
    return done
