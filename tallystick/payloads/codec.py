"""Seals what goes through Temporal: arguments, results, failures, summaries and details.

A payload is sealed whole, its own encoding with it, and marked with the name of its key as
Temporal's samples mark theirs. Whatever is not marked is left as it is on reading. So encryption is
switched on without a halt, old histories stay readable, and a process without keys writes plain
JSON but still says in words what it cannot read.

Temporal runs codecs on the event loop, outside the workflow's sandbox and its limit of two seconds.
Sealing takes microseconds, and a few milliseconds for the largest payload there may be, so there is
no thread. An error here fails a workflow task or an attempt of an activity, both of which Temporal
repeats: what lacks a key waits for a worker that has it.
"""

from collections.abc import Sequence

from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from tallystick.payloads.keys import Keyring

ENCODING = b"binary/encrypted"
KEY_NAME = "encryption-key-id"
_ABOUT = b"tallystick payload"


class PayloadEncryption(PayloadCodec):
    """Seals payloads under the first of `keys`, if there is one, and opens those under any."""

    def __init__(self, keys: Keyring):
        self._keys = keys

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Return the payloads sealed."""
        return [self._sealed(each) for each in payloads] if self._keys else list(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Return the payloads as they were before `encode`.

        Raises:
            PayloadUnreadableError: one is under a key that is not here.
        """
        return [self._opened(each) for each in payloads]

    def _sealed(self, payload: Payload) -> Payload:
        name, data = self._keys.seal(payload.SerializeToString(), _ABOUT)
        return Payload(metadata={"encoding": ENCODING, KEY_NAME: name.encode()}, data=data)

    def _opened(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != ENCODING:
            return payload
        name = payload.metadata.get(KEY_NAME, b"").decode(errors="replace")
        return Payload.FromString(self._keys.open(name, payload.data, _ABOUT))
