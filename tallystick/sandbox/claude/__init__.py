"""A stand-in for Claude's Messages API; `create_claude_app` makes it, README.md tells the rest."""

from tallystick.sandbox.claude.app import create_claude_app
from tallystick.sandbox.claude.latency import Latency

__all__ = ["Latency", "create_claude_app"]
