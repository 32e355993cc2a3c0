"""How the official SDK is set up wherever Claude is called: nothing retries, nothing traces.

A retry inside the SDK would be a call that no attempt row knows of. And variables that an
environment may set for something else make the SDK put prompts and replies into spans; ours tell
ids alone (`tallystick.tracing`).
"""

from anthropic import AsyncAnthropic


def claude_client(api_key: str, base_url: str | None, *, timeout: float) -> AsyncAnthropic:
    """Return a client that gives up after `timeout` seconds; no `base_url` means the real API."""
    return AsyncAnthropic(
        api_key=api_key, base_url=base_url, max_retries=0, timeout=timeout, open_telemetry=False
    )
