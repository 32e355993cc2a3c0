"""The benchmark of a reconciled day, in its short form: it looks at all of it and finds nothing."""

import asyncio
import json
import sys
from pathlib import Path

RECORDS, CUSTOMERS = 400, 40
SCRIPT = Path(__file__).parents[2] / "scripts" / "bench.py"


async def test_a_day_without_differences_costs_a_call_for_each_customer_and_meter() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SCRIPT),
        "reconcile",
        "--records",
        str(RECORDS),
        "--json",
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    figures = {each["name"]: each["value"] for each in json.loads(said)}
    assert figures["records"] == RECORDS
    assert figures["discrepancies found"] == figures["steps that failed"] == 0
    # Its charge, its input and its output.
    assert figures["calls for Stripe's sums"] == 3 * CUSTOMERS
    assert figures["calls to Anthropic"] == 2
    assert figures["time, reconciling / bare sums"] > 1
    assert figures["worker's peak, MB"] > 0
