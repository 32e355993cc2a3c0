"""One data converter for everybody: pydantic's JSON, sealed, and by reference where it is large.

Client, worker and replayer must read each other, so all of them have their converter from here. An
error's message and trace are moved into a sealed payload only where there are keys: without, they
stay where Temporal's Web UI shows them.
"""

from dataclasses import replace

from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import (
    DataConverter,
    ExternalStorage,
    StorageDriver,
    StorageDriverActivityInfo,
    StorageDriverSelectContext,
)

from tallystick.contracts import FETCH_PAYLOAD_PART
from tallystick.payloads.codec import PayloadEncryption
from tallystick.payloads.failures import BoundedFailureConverter, SealedFailureConverter
from tallystick.payloads.keys import Keyring
from tallystick.payloads.parts import PartedStorage
from tallystick.payloads.worker_storage import WorkerStorage

KEPT_FROM = 256 * 1024
"""Bytes from which workers keep a payload by reference. A history holds a request twice and its
reply three times, and one message to the server, of at most 4 MiB, may carry two of them (facts on
Temporal, 'Data and limits'); half of what the server begins to warn at."""
HANDED_OVER_FROM = 1_800_000
"""Bytes from which an application does: as late as can be, since it needs a worker for it. A
payload may have 2 MiB."""


def data_converter(keys: Keyring, storage: ExternalStorage | None = None) -> DataConverter:
    """Return the converter for a process with these keys; without `storage` all is kept inline."""
    return replace(
        pydantic_data_converter,
        payload_codec=PayloadEncryption(keys),
        failure_converter_class=SealedFailureConverter if keys else BoundedFailureConverter,
        external_storage=storage,
    )


def keeping_by_workers(client: Client, keys: Keyring) -> Client:
    """Return a client on the same connection that has workers keep what is large."""
    inline = _with_converter(client, data_converter(keys))
    storage = ExternalStorage([WorkerStorage(inline)], payload_size_threshold=HANDED_OVER_FROM)
    return _with_converter(client, data_converter(keys, storage))


def keeping_in(storage: PartedStorage, client: Client, keys: Keyring) -> Client:
    """Return a client on the same connection that keeps in `storage` what is large."""

    def all_but_parts(
        context: StorageDriverSelectContext, payload: Payload
    ) -> StorageDriver | None:
        # A part goes to whoever asked for it; kept apart, it would have to be asked for again.
        match context.target:
            case StorageDriverActivityInfo(type=activity) if activity == FETCH_PAYLOAD_PART:
                return None
            case _:
                return storage

    external = ExternalStorage([storage], all_but_parts, payload_size_threshold=KEPT_FROM)
    return _with_converter(client, data_converter(keys, external))


def _with_converter(client: Client, converter: DataConverter) -> Client:
    config = client.config()
    config["data_converter"] = converter
    return Client(**config)
