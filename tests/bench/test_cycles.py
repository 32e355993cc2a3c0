"""The benchmark of idle cycles, in its short form: it measures what it says it does."""

from scripts.bench_cycles import bench

COUNT = 24


async def test_an_idle_cycle_is_one_workflow_that_waits_for_one_timer() -> None:
    figures = {name: value for name, value, _ in await bench(COUNT, lanes=8, rest=0)}
    assert figures["cycles"] == COUNT
    for table in ("executions", "current_executions", "timer_info_maps", "executions_visibility"):
        assert figures[f"Temporal, rows in {table}"] == COUNT
    # Started with its first news, attributes, the agenda, and the timer: all in one task.
    assert figures["history events a cycle"] == 9
    for table in ("customers", "billing_accounts"):
        assert figures[f"PostgreSQL, rows in {table}"] == COUNT
    assert figures["PostgreSQL, rows a cycle"] == 2
    assert figures["Temporal, bytes a cycle in tables"] > figures["history bytes a cycle"] > 0
