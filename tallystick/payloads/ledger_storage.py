"""Keeps large payloads in the ledger's PostgreSQL: for workers and the web process."""

from tallystick.contracts import PayloadPart
from tallystick.errors import PayloadUnreadableError
from tallystick.ledger import payloads
from tallystick.ledger.database import Ledger
from tallystick.payloads.parts import PartedStorage


class LedgerStorage(PartedStorage):
    """Stores and fetches in `ledger`.

    While PostgreSQL is away it raises `LedgerUnavailableError`: a workflow task or an attempt of an
    activity fails, and Temporal repeats it.
    """

    def __init__(self, ledger: Ledger):
        self._ledger = ledger

    async def keep(self, part: PayloadPart, content: bytes) -> None:
        """Store one part; repeating it does nothing."""
        async with self._ledger.each() as tx:
            await payloads.keep(tx, part, content)

    async def fetch(self, part: PayloadPart) -> bytes:
        """Return one part.

        Raises:
            PayloadUnreadableError: it is not there.
        """
        async with self._ledger.each() as tx:
            content = await payloads.fetch(tx, part)
        if content is None:
            raise PayloadUnreadableError(
                f"part {part.part} of the payload {part.digest} of "
                f"{part.workflow_id or 'no workflow'} is not in the ledger; see that DATABASE_URL "
                "names the database of the worker or application that wrote it"
            )
        return content
