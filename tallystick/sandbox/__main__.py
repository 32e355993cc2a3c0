"""Serves both stand-ins in a process of their own: `python -m tallystick.sandbox`.

They outlive the workers that use them, as the real services do. One line of JSON on standard
output tells where they are once they answer.
"""

import argparse
import asyncio
import json
import signal
import sys

from tallystick.sandbox.claude import create_claude_app
from tallystick.sandbox.server import serve
from tallystick.sandbox.stripe import create_stripe_app


async def _serve(claude_port: int, stripe_port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with (
        serve(create_claude_app(), port=claude_port) as claude_url,
        serve(create_stripe_app(), port=stripe_port) as stripe_url,
    ):
        sys.stdout.write(json.dumps({"claude": claude_url, "stripe": stripe_url}) + "\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m tallystick.sandbox", description=__doc__)
    parser.add_argument("--claude-port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--stripe-port", type=int, default=0, help="0 takes any free port")
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.claude_port, arguments.stripe_port))


if __name__ == "__main__":
    main()
