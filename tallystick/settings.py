"""Every setting, read from the environment here and nowhere else.

With no keys the sandbox stands in and says so; with both keys the real services are used (or
whatever answers at the base addresses); one key without the other is refused, because a bill that
is half real is worse than none. Errors name the variable and the remedy.
"""

import re
from collections.abc import Sequence
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tallystick.payloads.keys import Keyring
from tallystick.plans.batching import LOOKED_FOR, PROVIDER_LIMITS

SANDBOX_CLAUDE_KEY = "sk-ant-sandbox"
SANDBOX_ADMIN_KEY = "sk-ant-admin-sandbox"
SANDBOX_STRIPE_KEY = "sk_live_sandbox"  # a live-mode key, since only those may use the stream
SANDBOX_WEBHOOK_SECRET = "whsec_sandbox"  # noqa: S105


_Count = Annotated[int, Field(gt=0)]
LogFormat = Literal["text", "json"]
_Port = Annotated[int, Field(gt=0, le=65_535)]
_Usd = Annotated[Decimal, Field(gt=0)]
_Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Wait = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,}")
_POSTGRESQL = ("postgresql", "postgres", "postgresql+psycopg")


class SettingsError(ValueError):
    """A setting is missing or contradicts another; the message names it and the remedy."""


def _keyring(keys: Sequence[SecretStr]) -> Keyring:
    return Keyring.parse([key.get_secret_value() for key in keys])


def _named(name: str) -> AliasChoices:
    return AliasChoices(name, name.lower())


class Settings(BaseSettings):
    """The environment of one process.

    Durations are in seconds, money in US dollars.
    """

    model_config = SettingsConfigDict(
        env_prefix="TALLYSTICK_", extra="ignore", populate_by_name=True, env_ignore_empty=True
    )

    anthropic_api_key: Annotated[
        SecretStr | None, Field(validation_alias=_named("ANTHROPIC_API_KEY"))
    ] = None
    anthropic_base_url: Annotated[
        str | None, Field(validation_alias=_named("ANTHROPIC_BASE_URL"))
    ] = None
    anthropic_admin_key: Annotated[
        SecretStr | None, Field(validation_alias=_named("ANTHROPIC_ADMIN_KEY"))
    ] = None
    stripe_api_key: Annotated[
        SecretStr | None, Field(validation_alias=_named("STRIPE_API_KEY"))
    ] = None
    stripe_api_base: Annotated[str | None, Field(validation_alias=_named("STRIPE_API_BASE"))] = None
    stripe_meter_events_base: Annotated[
        str | None, Field(validation_alias=_named("STRIPE_METER_EVENTS_BASE"))
    ] = None
    stripe_webhook_secret: Annotated[
        tuple[SecretStr, ...], NoDecode, Field(validation_alias=_named("STRIPE_WEBHOOK_SECRET"))
    ] = ()
    database_url: Annotated[str | None, Field(validation_alias=_named("DATABASE_URL"))] = None
    temporal_address: Annotated[str | None, Field(validation_alias=_named("TEMPORAL_ADDRESS"))] = (
        None
    )

    sandbox: Literal["claude", "stripe"] | None = None
    """Asks for one stand-in by name beside the other's real key."""
    home: Path = Path(".tallystick")
    """Where embedded servers keep their data and the stand-ins leave their addresses."""

    max_input_tokens: _Count = 100_000
    """Hard limit on the estimated input of one request."""
    max_cost_usd: _Usd = Decimal(10)
    """Ceiling on the estimated cost of one request: input plus `max_tokens` at the output price."""
    conversation_cap_usd: _Usd = Decimal(50)
    """What all requests of one conversation together may be charged."""
    max_unknown_outcomes: _Count = 5
    """A request whose calls ended this often without a known outcome is given up: each may cost."""

    claude_timeout: _Seconds = 600
    """The longest one Claude call may take."""
    claude_concurrency: _Count = 64
    """Claude calls in flight in one worker process."""
    claude_rpm: _Rate | None = None
    """Claude calls a minute over all workers; unset leaves the pace to Claude's own 429s.

    They keep its limits of tokens a minute in any case: what a call will read and write is known
    when it is over, so a limit before it could only guess, and would hold back what Claude takes.
    A 429 is waited out as long as it says, and its request loses nothing but that time."""
    ledger_concurrency: _Count = 32
    """Database connections of one process at the most."""

    batch_requests: Annotated[int, Field(gt=0, le=PROVIDER_LIMITS.requests)] = 10_000
    """Requests in one batch at Claude; of several smaller ones, some end sooner."""
    batch_bytes: Annotated[int, Field(gt=0, le=PROVIDER_LIMITS.body_bytes)] = 32_000_000
    """Bytes of one batch, which is held in memory while it is sent."""
    batch_poll: _Seconds = 60
    """How long until a worker looks again at the batches of a job."""
    batch_looked_for: _Seconds = LOOKED_FOR.total_seconds()
    """How long the batch of a create that was not answered is looked for before its requests are
    sent again; an answer that comes later still may mean that Claude serves them twice."""

    stripe_transport: Literal["auto", "stream", "events"] = "auto"
    """The meter event stream, or single meter events; auto takes the stream for live keys."""
    stripe_timeout: _Seconds = 30
    """The longest one Stripe call may take."""
    stripe_rps: _Rate | None = None
    """Calls to Stripe a second, of whatever kind, over all workers and web processes; unset leaves
    the pace to Stripe's own 429s, which lose nothing either.

    Unset because the number is the account's own: 25 in a sandbox and 100 live, less what else uses
    the account (facts on Stripe, 'Meters'). One number is enough for all of Stripe's limits: a call
    of the stream carries up to 100 events, so 100 calls are the 10,000 events that it takes."""
    meter_linger: _Wait = 2.0
    """How long meter events wait for company before a call that is not full goes out."""
    meter_concurrency: _Count = 1_000
    """Requests whose meter events one worker process holds open at a time."""
    shutdown_grace: _Wait = 60
    """How long a worker that was told to stop lets calls in flight finish."""

    payload_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Keys that prompts and replies are encrypted under, each NAME:KEY, the key 32 bytes in base64;
    the first encrypts, all decrypt. Unset leaves them plain."""
    codec_token: SecretStr | None = None
    """Whoever has it may have payloads decoded by `tallystick web`; unset, nobody may."""
    codec_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Where Temporal's Web UI is opened (`https://temporal.example.com`), so that its pages may ask
    `tallystick web` to decode; unset, no page may."""

    deployment: str | None = None
    """The name of the worker deployment in Temporal that this worker is of; unset, of none."""
    build_id: str | None = None
    """Which version of it this worker is."""
    log_format: LogFormat = "text"
    """`json` writes each line as an object, with the ids it concerns as fields."""
    metrics_port: _Port | None = None
    """Where one worker process answers Prometheus, at `/metrics`; unset, it does not."""
    health_port: _Port | None = None
    """Where it answers `/health` and `/ready`; unset, it does not."""
    monitor_host: str = "127.0.0.1"
    """The address that both listen on; they ask nobody who he is."""
    tracing: bool = False
    """Whether traces are sent, to where OpenTelemetry's own variables say; needs the extra `otel`.
    Not switched on by those, which whoever embeds us may have set for himself."""

    tolerance_tokens: Annotated[int, Field(ge=0)] = 100
    """A discrepancy of more tokens than that is told to the operators at once."""
    summaries_settle: _Wait = 300
    """How long Stripe is given to count what it has acknowledged, before its sums are believed."""
    report_keys: Annotated[tuple[str, ...], NoDecode] = ()
    """Ids of the API keys (`apikey_...`) whose usage is ours in Anthropic's reports; unset, all."""

    fee_percent: Annotated[Decimal, Field(ge=0)] = Decimal("2.9")
    """What the payment processor takes of each payment, shown in the margin."""
    fee_fixed_usd: Annotated[Decimal, Field(ge=0)] = Decimal("0.30")
    """What it takes besides, for each payment."""
    notice_url: str | None = None
    """Where notices are posted as JSON; unset writes them to the log."""
    notice_secret: SecretStr | None = None
    """Signs what is posted there, as Stripe signs its webhooks."""
    inbox_alert_age: _Seconds = 300
    """`/health` alerts when an event from Stripe has waited longer to be applied."""
    inbox_alert_depth: _Count = 1_000
    """`/health` alerts when more events wait."""

    @field_validator(
        "stripe_webhook_secret", "report_keys", "payload_keys", "codec_origins", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: str | None) -> str | None:
        # The messages never quote the address: it may hold a password.
        if value is not None:
            address = urlsplit(value)
            if address.scheme not in _POSTGRESQL:
                raise ValueError("must be an address like postgresql://user:password@host/name")
            _ = address.port  # raises ValueError for one that is no number
        return value

    @field_validator("payload_keys")
    @classmethod
    def _are_keys(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        _ = _keyring(value)  # raises ValueError for one that is none, without quoting it
        return value

    @field_validator("codec_token")
    @classmethod
    def _is_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _TOKEN.fullmatch(value.get_secret_value()):
            raise ValueError("must be 16 or more letters, digits and . _ ~ -: it goes into URLs")
        return value

    @field_validator("tracing")
    @classmethod
    def _can_trace(cls, value: bool) -> bool:
        if value:
            try:
                _ = import_module("opentelemetry.exporter.otlp.proto.http")
            except ModuleNotFoundError:
                raise ValueError("needs what `pip install 'tallystick[otel]'` brings") from None
        return value

    @property
    def keyring(self) -> Keyring:
        """What content is encrypted under; empty where `payload_keys` is unset."""
        return _keyring(self.payload_keys)

    @property
    def version(self) -> tuple[str, str] | None:
        """The deployment and build of a versioned worker; None of one that is not.

        Raises:
            SettingsError: when one of the two is set without the other.
        """
        if self.deployment and self.build_id:
            return self.deployment, self.build_id
        if self.deployment or self.build_id:
            raise SettingsError(
                "TALLYSTICK_DEPLOYMENT and TALLYSTICK_BUILD_ID make a versioned worker together; "
                "set both, or neither"
            )
        return None

    @property
    def sandboxed(self) -> frozenset[str]:
        """Which stand-ins are wanted: none, one, or both of `claude` and `stripe`.

        Raises:
            SettingsError: when one key is set without the other and no stand-in is asked for.
        """
        keys = {"claude": self.anthropic_api_key, "stripe": self.stripe_api_key}
        variables = {"claude": "ANTHROPIC_API_KEY", "stripe": "STRIPE_API_KEY"}
        missing = frozenset(name for name, key in keys.items() if key is None)
        if self.sandbox and self.sandbox not in missing:
            raise SettingsError(
                f"TALLYSTICK_SANDBOX={self.sandbox} asks for the stand-in while "
                f"{variables[self.sandbox]} is set; unset one of them"
            )
        if len(missing) == 1 and self.sandbox not in missing:
            (name,) = missing
            (other,) = keys.keys() - missing
            raise SettingsError(
                f"{variables[other]} is set but {variables[name]} is not; set it too, or set "
                f"TALLYSTICK_SANDBOX={name} to use the stand-in for it"
            )
        return missing


def get_settings() -> Settings:
    """Read the settings from the environment as it is now: nothing is kept from an earlier call.

    Raises:
        SettingsError: naming the variable that cannot be read.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0])
        variable = name if name.isupper() else f"TALLYSTICK_{name.upper()}"
        raise SettingsError(f"{variable}: {first['msg'].removeprefix('Value error, ')}") from None
