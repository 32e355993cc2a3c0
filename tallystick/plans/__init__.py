"""Billing models: from what a reply cost to what the customer is charged. Pure functions."""

from tallystick.plans.charging import Charge, charge, highest_charge
from tallystick.plans.examples import ExamplePlan, example_plans
from tallystick.plans.quoting import quote_request
from tallystick.plans.terms import CustomerTerms, PlanTerms
from tallystick.plans.typical import typical_costs

__all__ = [
    "Charge",
    "CustomerTerms",
    "ExamplePlan",
    "PlanTerms",
    "charge",
    "example_plans",
    "highest_charge",
    "quote_request",
    "typical_costs",
]
