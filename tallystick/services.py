"""Where this process finds PostgreSQL, Claude and Stripe: real ones, or stand-ins that say so.

The settings decide (`Settings.sandboxed`), and only here. Whoever receives an `Endpoints` cannot
tell a stand-in from the real service: both are a key and an address.

A stand-in that `tallystick dev` runs is found through the note it leaves in the home folder, so
that commands in another terminal meet the same Stripe. Without one, this process serves its own.
"""

from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

from pydantic import SecretStr

from tallystick.devnote import DevNote
from tallystick.embedded import POSTGRES_FOLDER, embedded_postgres
from tallystick.settings import SANDBOX_ADMIN_KEY, SANDBOX_CLAUDE_KEY, SANDBOX_STRIPE_KEY, Settings


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Keys and addresses of the two services; an address of None is the SDK's own default."""

    anthropic_api_key: SecretStr
    anthropic_base_url: str | None
    stripe_api_key: SecretStr
    stripe_api_base: str | None
    stripe_meter_events_base: str | None
    sandboxed: frozenset[str]
    anthropic_admin_key: SecretStr | None = None
    """Reads Anthropic's usage and cost reports; without one they are not read."""


@contextmanager
def database(settings: Settings) -> Generator[str, None, None]:
    """Yield the address of the ledger's PostgreSQL: `DATABASE_URL`, or an embedded one."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    with embedded_postgres(settings.home / POSTGRES_FOLDER) as url:
        yield url


@asynccontextmanager
async def endpoints(settings: Settings) -> AsyncGenerator[Endpoints, None]:
    """Yield where Claude and Stripe are, serving stand-ins meanwhile where none runs yet.

    Raises:
        SettingsError: when one key is set without the other.
    """
    wanted = settings.sandboxed
    note = DevNote.read(settings.home)
    claude_url = note.claude_url if note else None
    stripe_url = note.stripe_url if note else None
    async with AsyncExitStack() as stack:
        if "claude" in wanted and claude_url is None:
            from tallystick.sandbox.claude import create_claude_app
            from tallystick.sandbox.server import serve

            claude_url = await stack.enter_async_context(serve(create_claude_app()))
        if "stripe" in wanted and stripe_url is None:
            from tallystick.sandbox.server import serve
            from tallystick.sandbox.stripe import create_stripe_app

            stripe_url = await stack.enter_async_context(serve(create_stripe_app()))
        yield endpoints_at(settings, wanted, claude_url, stripe_url)


def endpoints_at(
    settings: Settings, wanted: frozenset[str], claude_url: str | None, stripe_url: str | None
) -> Endpoints:
    """Return the settings' own keys and addresses, and the stand-ins' for those in `wanted`."""
    claude_stands_in, stripe_stands_in = "claude" in wanted, "stripe" in wanted
    return Endpoints(
        anthropic_api_key=settings.anthropic_api_key or SecretStr(SANDBOX_CLAUDE_KEY),
        anthropic_base_url=claude_url if claude_stands_in else settings.anthropic_base_url,
        stripe_api_key=settings.stripe_api_key or SecretStr(SANDBOX_STRIPE_KEY),
        stripe_api_base=stripe_url if stripe_stands_in else settings.stripe_api_base,
        stripe_meter_events_base=(
            stripe_url if stripe_stands_in else settings.stripe_meter_events_base
        ),
        sandboxed=wanted,
        anthropic_admin_key=settings.anthropic_admin_key
        or (SecretStr(SANDBOX_ADMIN_KEY) if claude_stands_in else None),
    )
