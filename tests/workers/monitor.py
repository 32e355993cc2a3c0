"""A worker as a monitor sees it: its metrics and its health, over HTTP."""

import asyncio
import json
import re
from asyncio.subprocess import Process
from collections import Counter
from typing import Any

import httpx

from tallystick.embedded import free_port
from tests.crash.drill import PATIENCE, Drill

_SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class Metrics:
    """One scrape: every sample under its name and labels."""

    def __init__(self, text: str):
        self.text = text
        self.samples = [
            (name, dict(_LABEL.findall(labels or "")), float(value))
            for name, labels, value in (
                _SAMPLE.fullmatch(line).groups()  # type: ignore[union-attr]
                for line in text.splitlines()
                if line and not line.startswith("#")
            )
        ]

    def by(self, name: str, *labels: str) -> Any:
        """Return the metric's sums: by the values of these labels, or its one value."""
        sums = Counter[tuple[str, ...]]()
        for each, labelled, value in self.samples:
            if each == name:
                sums[tuple(labelled.get(label, "") for label in labels)] += value
        if not labels:
            return sums[()]
        return {key[0] if len(labels) == 1 else key: value for key, value in sums.items()}

    @property
    def ours(self) -> dict[str, set[str]]:
        """Every metric of ours with its labels."""
        found: dict[str, set[str]] = {}
        for name, labelled, _ in self.samples:
            if name.startswith("tallystick_"):
                found.setdefault(name, set()).update(labelled)
        return found


class Watched:
    """A worker process, the ports that it answers monitors on, and its log."""

    def __init__(self, stack: Drill, process: Process, metrics_port: int, health_port: int):
        self.stack, self.process = stack, process
        self.metrics_port, self.health_port = metrics_port, health_port

    @classmethod
    async def start(cls, stack: Drill, **environment: str) -> "Watched":
        metrics, health = free_port(), free_port()
        process = await stack.start_worker(
            TALLYSTICK_METRICS_PORT=str(metrics),
            TALLYSTICK_HEALTH_PORT=str(health),
            TALLYSTICK_LOG_FORMAT="json",
            **environment,
        )
        return cls(stack, process, metrics, health)

    async def metrics(self) -> Metrics:
        async with httpx.AsyncClient(timeout=60) as http:
            return Metrics((await http.get(f"http://127.0.0.1:{self.metrics_port}/metrics")).text)

    async def until_counted(self, name: str, **labels: str) -> Metrics:
        """Wait until there is a sample with these labels that is not 0; returns all metrics."""
        async with asyncio.timeout(PATIENCE):
            while True:
                found = await self.metrics()
                if any(
                    each == name and value and labels.items() <= labelled.items()
                    for each, labelled, value in found.samples
                ):
                    return found
                await asyncio.sleep(0.05)

    async def asked(self, path: str) -> tuple[int, dict[str, Any]]:
        async with httpx.AsyncClient(timeout=PATIENCE) as http:
            answer = await http.get(f"http://127.0.0.1:{self.health_port}{path}")
        return answer.status_code, answer.json()

    async def until_ready(self, ready: bool = True) -> dict[str, Any]:
        """Wait until it says that it is ready, or that it is not; returns what it says."""
        async with asyncio.timeout(PATIENCE):
            while True:
                status, told = await self.asked("/ready")
                assert (status == 200) == told["ready"]
                if told["ready"] == ready:
                    return told
                await asyncio.sleep(0.05)

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stack.stack.worker_log().splitlines()]
