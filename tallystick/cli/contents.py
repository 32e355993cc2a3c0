"""The table of contents of `tallystick`: each command, the module that has it, and what it does.

A command's module is loaded when the command is called. The SDKs and the SQL library behind some
commands take seconds to import on a busy machine, and neither `--help` nor `prices show` should
wait for them. A command that is missing here does not exist.
"""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

CONTENTS = {
    "setup": ("running", "Bring database and Temporal to what this version needs."),
    "dev": ("running", "Run everything on this machine: servers, stand-ins, workers."),
    "worker": ("running", "Run one worker process until it is told to stop."),
    "web": ("web", "Serve Stripe's webhooks, health, metrics and what payloads say over HTTP."),
    "request": ("requests", "Ask Claude on behalf of a customer."),
    "quote": ("quote", "Say what a request would cost."),
    "batch": ("batch", "Send many requests at half the price, and follow them."),
    "customer": ("customers", "Add, show, list, move, suspend and resume customers."),
    "plan": ("plans", "List, show and add plans."),
    "wallet": ("wallet", "Prepaid credit: give, take back, buy and show it."),
    "usage": ("ledger", "Show what each customer used, what it cost and what was charged."),
    "margin": ("margin", "Show what usage was charged, what it cost, and what is left."),
    "statement": ("statement", "Show what a period came to, and what collects it."),
    "conversation": ("insight", "Show a conversation turn by turn."),
    "explain": ("insight", "Explain why a customer's period cost more or less than another."),
    "stuck": ("stuck", "Show everything that waits, and retry, correct or skip it."),
    "reconcile": ("reconcile", "Lay Claude's reports, the ledger and Stripe side by side."),
    "event": ("events", "Retry or skip events from Stripe that are parked."),
    "ledger": ("ledger", "The ledger's records."),
    "prices": ("prices", "The price book."),
    "rate": ("prices", "Rate replies from outside, one JSON object a line."),
    "rerate": ("rerate", "Price a period again with today's price book and show what differs."),
    "stripe": ("stripe", "Prepare the Stripe account."),
}


class Commands(TyperGroup):
    """The root's commands: entries of the table, of which the one that is called is loaded."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Put the real command in the place of its entry."""
        if args and args[0] in CONTENTS:
            self.add_command(load(args[0]))
        return super().resolve_command(ctx, args)


def enter_all(app: typer.Typer) -> None:
    """Give `app` every entry of the table; its class must be `Commands`."""
    for name, (_, summary) in CONTENTS.items():
        app.command(name, help=summary)(_entry)


def load(name: str) -> Any:
    """Return the command itself."""
    part = typer.Typer()
    import_module(f"tallystick.cli.{CONTENTS[name][0]}").register(part)
    return get_group(part).commands[name]


def _entry() -> None:
    """Stand for a command in the list of commands."""
