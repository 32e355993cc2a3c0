"""Billing models: from what a reply cost to what the customer is charged. Pure functions."""

from tallystick.plans.charging import Charge, charge
from tallystick.plans.examples import ExamplePlan, example_plans
from tallystick.plans.terms import PlanTerms

__all__ = ["Charge", "ExamplePlan", "PlanTerms", "charge", "example_plans"]
