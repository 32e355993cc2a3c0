"""Stops in PostgreSQL: a transaction of one request waits at a stated statement, or in its commit.

A worker cannot be killed "between the commit and the report" by watching and being quick. So the
database holds it there, with means of its own and nothing in production code. A trigger takes an
advisory lock. Where the test has that lock already, the statement waits, and a worker killed now
has heard nothing; its transaction is lost, unless the statement was the whole of it. Where the test
has not, the transaction asks for synchronous replication to a standby that does not exist: its
commit is on disk and is never confirmed, so a worker killed now has committed and will never know.

The stop is known by its lock, so that a test waits for this request's transaction and no other.
"""

import asyncio
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import AsyncConnection

from tests.support.house import PATIENCE

Statement = Literal["begin attempt", "end attempt", "record", "note delivery"]
Moment = Literal["before", "committed"]

_TRIGGERS: dict[Statement, str] = {
    "begin attempt": "INSERT ON attempts",
    "end attempt": "UPDATE OF outcome ON attempts",
    "record": "INSERT ON usage_records",
    "note delivery": "UPDATE OF delivered_at ON meter_events",
}

_SCHEMA = """
CREATE TABLE stops (
    id serial PRIMARY KEY, request_id text, statement text, moment text,
    UNIQUE (request_id, statement)
);
CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE found stops;
BEGIN
    SELECT * INTO found FROM stops
    WHERE request_id = NEW.request_id AND statement = TG_ARGV[0];
    IF found.id IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(found.id);
        IF found.moment = 'committed' THEN
            PERFORM set_config('synchronous_commit', 'on', true);
        END IF;
    END IF;
    RETURN NEW;
END $$;
"""

_STOPPED = """
SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND classid = 0 AND objid = %s AND pid <> pg_backend_pid()
AND wait_event IN ('advisory', 'SyncRep')
"""


@dataclass(frozen=True, slots=True)
class Stop:
    """One stop that is set."""

    connection: AsyncConnection
    id: int
    moment: Moment

    async def reached(self) -> None:
        """Wait until the request's transaction is in it."""
        async with asyncio.timeout(PATIENCE):
            while not await self._waiting():
                await asyncio.sleep(0.02)

    async def lift(self) -> None:
        """Remove the stop and let whoever waits in it go on."""
        await self.remove()
        await self.release()

    async def remove(self) -> None:
        """Let those who come later pass; who waits in the stop goes on waiting."""
        await self.connection.execute("DELETE FROM stops WHERE id = %s", [self.id])

    async def release(self) -> None:
        """Let whoever waits in the stop go on."""
        if self.moment == "before":
            await self.connection.execute("SELECT pg_advisory_unlock(%s)", [self.id])
        for pid in await self._waiting() if self.moment == "committed" else []:
            # A cancelled wait for a standby ends well: what was committed stays committed.
            await self.connection.execute("SELECT pg_cancel_backend(%s)", [pid])

    async def _waiting(self) -> list[int]:
        return [
            pid for (pid,) in await (await self.connection.execute(_STOPPED, [self.id])).fetchall()
        ]


class Stops:
    """The stops of one database."""

    def __init__(self, connection: AsyncConnection):
        self._connection = connection

    @classmethod
    async def install(cls, database_url: str) -> "Stops":
        """Teach the database to stop. Commits wait for the standby only where a stop says so."""
        plain = database_url.replace("postgresql+psycopg://", "postgresql://")
        connection = await psycopg.AsyncConnection.connect(plain, autocommit=True)
        await connection.execute(_SCHEMA)
        for number, (statement, event) in enumerate(_TRIGGERS.items()):
            await connection.execute(
                f"CREATE TRIGGER stop_{number} BEFORE {event} "
                f"FOR EACH ROW EXECUTE FUNCTION stop('{statement}')"
            )
        await connection.execute("ALTER SYSTEM SET synchronous_commit = 'local'")
        await connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        await connection.execute("SELECT pg_reload_conf()")
        return cls(connection)

    async def set(self, request_id: str, statement: Statement, moment: Moment) -> Stop:
        """Let the request's next such statement wait: before it, or when it is committed."""
        inserted = await self._connection.execute(
            "INSERT INTO stops (request_id, statement, moment) VALUES (%s, %s, %s) RETURNING id",
            [request_id, statement, moment],
        )
        row = await inserted.fetchone()
        assert row is not None
        stop = Stop(self._connection, row[0], moment)
        if moment == "before":
            await self._connection.execute("SELECT pg_advisory_lock(%s)", [stop.id])
        return stop

    async def close(self) -> None:
        await self._connection.close()
