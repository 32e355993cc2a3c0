"""What is drilled, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .memory import Memory
from .mischief import Applied
from .verdict import Verdict


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be drilled: everything follows from it but the machine's own pace."""

    seed: int
    seconds: float
    rate: float
    workers: int
    saturate: int | None = None
    """So many requests open all the time, instead of `rate` a second."""
    baseline: bool = False

    def repeated(self) -> str:
        """Return the command that does it again."""
        load = f"--saturate {self.saturate}" if self.saturate else f"--rate {self.rate:g}"
        return (
            f"scripts/chaos.py --seed {self.seed} --minutes {self.seconds / 60:g} {load} "
            f"--workers {self.workers}" + (" --baseline" if self.baseline else "")
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a drill came to."""

    product: Verdict
    naive: Verdict | None
    deaths: Mapping[str, int]
    applied: Applied
    memory: Memory | None
    fell: int
    """Workers that ended by themselves: at their start, while a server was away."""
    settled: float
    """Seconds from the end of the load until nothing was under way any more."""

    @property
    def holds(self) -> bool:
        """Tell whether Tallystick kept its promises, and memory where that can be told."""
        return self.product.holds and (self.memory is None or self.memory.flat is not False)

    def as_json(self) -> dict[str, Any]:
        """Return it as one object."""
        return {
            "holds": self.holds,
            "tallystick": self.product.as_json(),
            "baseline": self.naive and self.naive.as_json(),
            "killed": self.deaths,
            "fell": self.fell,
            "faults": self.applied,
            "memory_mb": self.memory and self.memory.as_json(),
            "settled_seconds": self.settled,
        }
