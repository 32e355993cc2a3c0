"""Records the history of every path: `.venv/bin/python -m tests.replay.record`.

To be run when the workflow is meant to change in a way that old histories do not replay; until the
first release the recordings are then simply made anew, afterwards `workflow.patched` keeps both.
"""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from tallystick.embedded import embedded_postgres, embedded_temporal
from tallystick.exiting import end_process
from tallystick.ledger.setup import prepare
from tallystick.temporal import connect_temporal
from tests.replay.paths import PATHS
from tests.support.house import open_house

HISTORIES = Path(__file__).parent / "histories"


async def _record(url: str, folder: Path) -> None:
    HISTORIES.mkdir(exist_ok=True)
    for old in HISTORIES.glob("*.json"):
        old.unlink()
    async with embedded_temporal(folder) as server:
        temporal = await connect_temporal(server.address)
        async with open_house(temporal, url, "acme") as house:
            for name, path in PATHS.items():
                request_id = await path(house)
                await house.done(request_id)
                history = await house.workflow(request_id).fetch_history()
                pretty = json.dumps(_without_origin(json.loads(history.to_json())), indent=1)
                (HISTORIES / f"{name}.json").write_text(pretty + "\n")
                print(f"{name}: {len(history.events)} events")


def _without_origin(value: Any) -> Any:
    """Leave out what tells of the machine that recorded; replaying does not look at it."""
    if isinstance(value, list):
        return [_without_origin(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: "recorder" if name == "identity" else _without_origin(item)
        for name, item in value.items()
        if name != "stackTrace"
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, embedded_postgres(Path(folder) / "pg") as url:
        prepare(url)
        asyncio.run(_record(url, Path(folder) / "temporal"))


if __name__ == "__main__":
    main()
    end_process(0)
