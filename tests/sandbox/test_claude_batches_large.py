"""A batch as large as they come, in a stand-in with a process and a memory of its own."""

import json
import subprocess
import sys
import time

import anthropic
import httpx
import psutil

from tallystick.sandbox.claude.batch_bodies import MAX_REQUESTS
from tests.sandbox.claude_batches import HEADERS, counts, requests

_FLAT = 32 * 1024 * 1024


def test_the_results_of_100_000_items_stream_through_flat_memory_and_tally_to_the_token():
    stand = subprocess.Popen([sys.executable, "-m", "tallystick.sandbox"], stdout=subprocess.PIPE)
    try:
        assert stand.stdout is not None
        url = json.loads(stand.stdout.readline())["claude"]
        with (
            anthropic.Anthropic(api_key="k", base_url=url, max_retries=0) as client,
            httpx.Client(base_url=url, timeout=60) as http,
        ):
            batches = client.messages.batches
            batch = batches.create(requests=requests(MAX_REQUESTS))
            while batch.processing_status != "ended":
                time.sleep(0.2)
                batch = batches.retrieve(batch.id)
            assert counts(batch) == {"succeeded": MAX_REQUESTS}
            with http.stream("GET", batch.results_url, headers=HEADERS) as answer:
                next(answer.iter_raw())
            left = (http.get("/_sandbox/totals")).json()
            memory = psutil.Process(stand.pid)
            before = peak = memory.memory_info().rss
            seen, size, tokens = set(), 0, {"input": 0, "output": 0}
            with http.stream("GET", batch.results_url, headers=HEADERS) as answer:
                for text in answer.iter_lines():
                    line = json.loads(text)
                    seen.add(line["custom_id"])
                    usage = line["result"]["message"]["usage"]
                    size += len(text)
                    tokens["input"] += usage["input_tokens"]
                    tokens["output"] += usage["output_tokens"]
                    if len(seen) % 5_000 == 0:
                        peak = max(peak, memory.memory_info().rss)
            totals = (http.get("/_sandbox/totals")).json()
    finally:
        stand.terminate()
        stand.wait(30)
    assert len(seen) == MAX_REQUESTS
    assert size > 1.5 * _FLAT, "or flat memory would prove nothing"
    assert peak - before < _FLAT
    billable = totals["billable_in_batches"]
    assert billable["requests"] == MAX_REQUESTS
    assert {kind: billable[kind] for kind in tokens} == tokens
    assert left["billable_by_delivery"]["unknown"] == billable, "who left has not got them all"
    assert totals["billable_by_delivery"]["yes"] == billable
