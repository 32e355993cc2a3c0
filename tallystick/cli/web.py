"""`tallystick web`: the process that Stripe's webhooks reach, and monitors."""

import asyncio
from typing import Annotated

import typer

from tallystick.logs import configure_logging
from tallystick.settings import get_settings


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command()(web)


def web(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes any.", min=0, max=65535)] = 8080,
) -> None:
    """Serve Stripe's webhooks, health, metrics and what payloads say over HTTP.

    POST /webhooks/stripe, GET /health, GET /metrics and, where TALLYSTICK_CODEC_TOKEN is set,
    /codec/TOKEN for Temporal's Web UI, until told to stop. Put TLS in front of it.
    """
    from tallystick.web.main import run_web

    configure_logging(get_settings().log_format)
    asyncio.run(run_web(get_settings(), host=host, port=port))
