"""Arms the faults of a wave at Claude's and Stripe's stand-ins, and counts what has struck."""

from collections.abc import Mapping
from dataclasses import dataclass

from tallystick.sandbox.remote import Control

from .schedule import Known, Wave

PACE = {"seconds": 0.4, "per_token": 0.002}
"""How long Claude takes: as a quick model does, and long enough for deaths to find calls open."""

Applied = Mapping[str, Mapping[str, int]]
"""How often each fault struck, by service; those that never did are there with 0."""


@dataclass(frozen=True, slots=True)
class StandIns:
    """The remote controls of one pair of stand-ins."""

    claude: Control
    stripe: Control

    def controls(self) -> Mapping[str, Control]:
        """Return them by name."""
        return {"claude": self.claude, "stripe": self.stripe}

    async def known(self) -> Known:
        """Return which faults there are."""
        return {
            service: sorted((await control.get("faults"))["known"])
            for service, control in self.controls().items()
        }

    async def slow_down(self) -> None:
        """Have Claude take its time."""
        await self.claude.post("latency", PACE)

    async def arm(self, wave: Wave) -> None:
        """Let the rates of the wave take the place of those before, and add its bursts."""
        for service, control in self.controls().items():
            await control.post("faults", wave.orders[service])

    async def disarm(self) -> Applied:
        """End all faults; returns how often each has struck."""
        struck: dict[str, dict[str, int]] = {}
        for service, control in self.controls().items():
            state = await control.get("faults")
            await control.disarm()
            struck[service] = {name: state["applied"].get(name, 0) for name in state["known"]}
        return struck
