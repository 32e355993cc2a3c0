"""The drill itself, as a person runs it: shorter, and with nothing taken out."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.chaos_parts.verdict import PROMISES

ROOT = Path(__file__).parents[2]


async def chaos(*arguments: str) -> dict[str, Any]:
    """Run the drill; returns its object. Its log tells what went wrong."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "scripts" / "chaos.py"),
        "--json",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # What names a real system is none of a drill's business.
        env={**os.environ, "DATABASE_URL": "postgresql://somebody-elses/ledger"},
    )
    out, err = await process.communicate()
    assert process.returncode == 0, out.decode() + err.decode()
    return json.loads(out)


def must_hold(side: dict[str, Any]) -> None:
    assert {name: side[name] for name in PROMISES} == dict.fromkeys(PROMISES, 0)
    assert side["holds"] is True
    assert side["asked"] == side["answered"] + sum(side["refused"].values())
    assert side["answered"] == side["billed_once"] + side["free"] + side["unpriced"]


async def test_whatever_dies_and_fails_nothing_is_lost_and_nothing_billed_twice() -> None:
    shown = await chaos("--minutes", "0.15", "--workers", "2", "--seed", "15", "--baseline")
    ours, theirs = shown["tallystick"], shown["baseline"]
    must_hold(ours)
    assert shown["killed"] == {"worker": 1, "Temporal": 1, "PostgreSQL": 1}
    struck = {
        service: {f for f, n in faults.items() if n} for service, faults in shown["faults"].items()
    }
    # Not all have their turn in so short a time, but calls were lost and requests refused.
    assert struck["claude"] >= {"undelivered", "error_400", "error_402", "unknown_model"}
    assert len(struck["stripe"]) >= 3
    assert ours["billed_once"] > ours["asked"] / 2
    assert ours["refused"]
    assert ours["paid_again"] > 0
    assert all(sums["ledger"] > 0 for sums in ours["totals"].values()), "all kinds were used"
    # The same load on the naive pattern, counted by the same journals.
    assert theirs["asked"] == ours["asked"]
    assert theirs["lost"] + theirs["half_billed"] + theirs["billed_twice"] > 0
    assert theirs["unaccounted"] > 0


@pytest.mark.long
@pytest.mark.parametrize("seed", ["2", "3"])
async def test_so_it_is_for_five_minutes(seed: str) -> None:
    shown = await chaos("--minutes", "5", "--seed", seed, "--baseline")
    must_hold(shown["tallystick"])
    assert shown["tallystick"]["asked"] > 1_000
    # What the fault lists have for requests has struck; the rest is for message batches.
    never = {f for faults in shown["faults"].values() for f, times in faults.items() if not times}
    assert never <= {
        "item_errored", "item_invalid", "item_expired",
        "cut_results", "truncated_results", "stalled_results",
    }  # fmt: skip
    # So short a drill is mostly warming up, and says so.
    assert shown["memory_mb"]["flat"] is None
    assert shown["memory_mb"]["growth"] < 0.3


@pytest.mark.long
async def test_for_half_an_hour_memory_stays_flat_too() -> None:
    shown = await chaos("--minutes", "30", "--seed", "4")
    must_hold(shown["tallystick"])
    assert shown["memory_mb"]["flat"] is True


@pytest.mark.long
async def test_so_it_is_with_as_much_as_gets_through() -> None:
    shown = await chaos("--minutes", "2", "--saturate", "32")
    must_hold(shown["tallystick"])
    assert shown["baseline"] is None
