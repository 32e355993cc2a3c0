"""What a worker process tells monitors: metrics, log lines, readiness, and how it ends.

The tests share one worker and come in this order: the last one ends it.
"""

import asyncio
import signal
from collections import Counter
from pathlib import Path

import pytest

from scripts.chaos_parts.load import marked
from tallystick.errors import UnknownCustomerError
from tests.crash.drill import Drill
from tests.workers.conftest import KEY
from tests.workers.monitor import Watched

TABLE = Path(__file__).parents[2] / "docs" / "metrics.md"
PROMPT = "planted-in-a-prompt"


async def test_metrics_say_what_the_books_say(stack: Drill, watched: Watched) -> None:
    await stack.claude.order("error_529", match=marked("overloaded"))
    await stack.claude.order("spend_limit", match=marked("parked"))
    for request_id in ("Claude-1", "Claude-2", "overloaded"):
        stack.ask(request_id)
    with pytest.raises(UnknownCustomerError):
        await stack.insist("refused", customer="nobody")
    await stack.finished()
    stack.ask("parked")
    seen = await watched.until_counted("tallystick_requests_total", outcome="parked")

    books = await stack.books()
    assert seen.by("tallystick_requests_total", "outcome", "type") == {
        ("answered", ""): 3,
        ("refused", "UnknownCustomer"): 1,
        ("parked", "ClaudeSpendLimit"): 1,
    }
    calls = Counter((a["outcome"], a["error_type"] or "") for a in books.attempts)
    assert calls["failed", "ClaudeOverloaded"] == 1
    assert seen.by("tallystick_claude_calls_total", "outcome", "type") == calls
    charged = sum(record["charge_nano_usd"] for record in books.records)
    assert charged > 0
    assert seen.by("tallystick_charge_nano_usd_total") == charged
    cost = sum(record["cost_usd"] for record in books.records)
    assert abs(int(seen.by("tallystick_cost_nano_usd_total")) - cost * 10**9) <= len(books.records)
    tokens = seen.by("tallystick_tokens_total", "kind")
    assert tokens.keys() >= {"input", "output"}
    for kind, number in tokens.items():
        assert number == sum(record[f"{kind}_tokens"] for record in books.records)
    assert seen.by("tallystick_meter_events_total", "outcome") == {"delivered": len(books.outbox)}
    assert seen.by("temporal_request_total") > 0
    await stack.temporal.get_workflow_handle("claude-request/acme/parked").signal("retry_now")
    await stack.finished()


async def test_every_metric_has_a_row_and_none_tells_whose_it_is(watched: Watched) -> None:
    seen = await watched.until_counted("tallystick_ledger_up")
    rows = [line.split("|") for line in TABLE.read_text().splitlines() if "| `tallystick_" in line]
    documented = {name.strip(" `"): set(labels.split("`")[1::2]) for _, name, labels, *_ in rows}
    temporal_s_own = {"namespace", "task_queue", "workflow_type"}
    for name, labels in seen.ours.items():
        assert labels - temporal_s_own == documented[name], name
    # Of those that are not there, nothing has come to be counted.
    assert documented.keys() - seen.ours.keys() == {
        "tallystick_requests_unpriced_total",
        "tallystick_web_searches_total",
    }
    assert "acme" not in seen.text


async def test_a_port_that_another_worker_has_is_told_with_its_setting(
    stack: Drill, watched: Watched
) -> None:
    before = len(stack.stack.worker_log())
    port = str(watched.metrics_port)
    refused = await stack.stack.start_worker(TALLYSTICK_METRICS_PORT=port)
    assert await refused.wait() == 1
    stack.stack.workers.remove(refused)
    (line,) = stack.stack.worker_log()[before:].splitlines()
    assert line.startswith(f"error: TALLYSTICK_METRICS_PORT: cannot listen on 127.0.0.1:{port}")
    (stack.stack.home / "worker.log").write_text(stack.stack.worker_log()[:before])


async def test_lines_about_a_request_carry_its_ids_and_no_content(
    stack: Drill, watched: Watched
) -> None:
    await stack.claude.order("error_401", match=marked("failing"))
    for request_id in ("failing", "served"):
        said = f"{marked(request_id)} {PROMPT}"
        stack.ask(request_id, messages=[{"role": "user", "content": said}])
    with pytest.raises(Exception, match="401"):
        await stack.asked.pop(("acme", "failing"))
    reply = await stack.asked["acme", "served"]

    (failed,) = [line for line in watched.log() if line.get("request_id") == "failing"]
    assert failed["customer_id"] == "acme"
    assert failed["workflow_id"] == "claude-request/acme/failing"
    assert (failed["activity"], failed["attempt"]) == ("call_claude", 1)
    assert failed["run_id"]
    assert "ClaudeForbidden" in failed["exception"]
    text = reply.content[0].text
    assert text
    for secret in (PROMPT, KEY, text):
        assert secret not in stack.stack.worker_log()


async def test_readiness_follows_the_servers_and_a_second_signal_ends_it_all(
    stack: Drill, watched: Watched
) -> None:
    told = await watched.until_ready()
    assert told == {"ready": True, "stage": "working", "postgresql": True, "temporal": True}
    await stack.stack.kill_postgres()
    told = await watched.until_ready(False)
    assert told["postgresql"] is False
    assert (await watched.asked("/health"))[0] == 200  # no reason to restart a worker
    await stack.stack.restart_postgres()
    await stack.stack.kill_temporal()
    told = await watched.until_ready(False)
    assert told["temporal"] is False
    await stack.stack.restart_temporal()
    await watched.until_ready()

    hold = await stack.claude.hold(match=marked("in-flight"))
    stack.ask("in-flight")
    await stack.claude.caught(hold)
    watched.process.send_signal(signal.SIGTERM)
    told = await watched.until_ready(False)
    assert told["stage"] == "draining"
    assert told["postgresql"] is told["temporal"] is True
    assert await watched.asked("/health") == (200, {"alive": True})

    watched.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(watched.process.wait(), 30) == 128 + signal.SIGTERM
    stack.stack.workers.remove(watched.process)
    request = stack.temporal.get_workflow_handle("claude-request/acme/in-flight")
    await request.terminate("its worker has left it, and no other one runs")
    with pytest.raises(Exception, match="completed before"):
        await stack.asked.pop(("acme", "in-flight"))
    assert all(line["level"] for line in watched.log())  # Temporal's own lines are JSON too
