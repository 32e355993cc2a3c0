"""The benchmark of volumes and workers, in its short form: each figure is of what it names."""

import asyncio
import json
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench.py"
BUSY = "100,000 a day"
AT_ONCE = "Claude answers at once, 1 workers"


async def test_volumes_and_cores_are_measured_on_the_requests_asked_for() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), "scale", "--short", "--json", stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    figures = {each["name"]: each["value"] for each in json.loads(said)}
    assert figures[f"{BUSY}: requests asked for, 10 times the day's mean"] == 12
    # Each has three meter events, and a hundred go in a call: in company they save calls.
    with_company = figures[f"{BUSY}: calls to Stripe per 1,000 requests"]
    alone = figures[f"{BUSY}, events linger 0 s: calls to Stripe per 1,000 requests"]
    assert 0 < with_company < alone
    assert figures[f"{AT_ONCE}: of one worker's"] == 1
    for part in ("workers", "Temporal", "PostgreSQL", "stand-ins", "application"):
        assert figures[f"{AT_ONCE}: CPU ms a request, {part}"] > 0
