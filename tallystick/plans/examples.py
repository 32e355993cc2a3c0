"""The plans that ship with Tallystick, read from the package's own data."""

import tomllib
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any

from tallystick.plans.terms import PlanTerms


@dataclass(frozen=True, slots=True)
class ExamplePlan:
    """One dated row: the plan's name, when it begins, its terms as JSON-ready data."""

    plan: str
    valid_from: datetime
    terms: dict[str, Any]


def example_plans() -> list[ExamplePlan]:
    """Return the shipped plans, validated."""
    text = files("tallystick.plans").joinpath("data/examples.toml").read_text()
    return [
        ExamplePlan(
            plan=row["plan"],
            valid_from=row["valid_from"],
            terms=PlanTerms.read(row["terms"]).model_dump(mode="json"),
        )
        for row in tomllib.loads(text)["plan"]
    ]
