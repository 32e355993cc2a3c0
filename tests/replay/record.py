"""Records the history of every path: `.venv/bin/python -m tests.replay.record [WORKFLOW ...]`.

To be run when a workflow is meant to change in a way that old histories do not replay; until the
first release the recordings are then simply made anew, afterwards `workflow.patched` keeps both.
"""

import argparse
import asyncio
import itertools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
from temporalio.client import WorkflowHandle

from tallystick.embedded import VIRTUAL_TIME, embedded_postgres, embedded_temporal
from tallystick.exiting import end_process
from tallystick.ledger.setup import prepare
from tallystick.temporal import connect_temporal
from tests.replay.paths import WORKFLOWS
from tests.replay.stage import Stage

HISTORIES = Path(__file__).parent / "histories"
RECORDER = "recorder"
_numbers = itertools.count(1)


async def _record(workflows: Sequence[str], url: str, folder: Path) -> None:
    async def new_database() -> str:
        return await asyncio.to_thread(_new_database, url)

    async with embedded_temporal(folder, extra_args=VIRTUAL_TIME) as server:
        temporal = await connect_temporal(server.address)
        for workflow in workflows:
            recordings = HISTORIES / workflow
            recordings.mkdir(parents=True, exist_ok=True)
            for old in recordings.glob("*.json"):
                old.unlink()

            async def keep(
                path: str, run: WorkflowHandle[Any, Any], recordings: Path = recordings
            ) -> None:
                history = await run.fetch_history()
                pretty = json.dumps(without_origin(json.loads(history.to_json())), indent=1)
                (recordings / f"{path}.json").write_text(pretty + "\n")
                print(f"{recordings.name}, {path}: {len(history.events)} events", flush=True)

            await WORKFLOWS[workflow].drive(Stage(temporal, new_database, keep))


def _new_database(url: str) -> str:
    name = f"recording_{next(_numbers)}"
    plain = url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    made = url.replace("/postgres?", f"/{name}?")
    prepare(made)
    return made


def without_origin(value: Any) -> Any:
    """Leave out what tells of the machine that recorded; replaying does not look at it."""
    if isinstance(value, list):
        return [without_origin(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("kind") == "TASK_QUEUE_KIND_STICKY":
        return {**value, "name": RECORDER}
    return {
        name: RECORDER if name == "identity" else without_origin(item)
        for name, item in value.items()
        if name != "stackTrace"
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workflows", nargs="*", help=f"{', '.join(WORKFLOWS)}; all if none")
    wanted = parser.parse_args().workflows or list(WORKFLOWS)
    if unknown := set(wanted) - set(WORKFLOWS):
        parser.error(f"no paths for {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as folder, embedded_postgres(Path(folder) / "pg") as url:
        asyncio.run(_record(wanted, url, Path(folder) / "temporal"))


if __name__ == "__main__":
    main()
    end_process(0)
