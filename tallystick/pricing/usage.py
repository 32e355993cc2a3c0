"""Reading Claude's usage object: from raw JSON to portions that each have one model and one price.

A reply is one portion, or several when the server sampled more than once for it (`iterations`).
Which counts include which others is decided here and nowhere else (facts on Claude, 'Usage fields'
and 'Iterations, stop reasons, refusals'):

- `input_tokens` excludes cached input; `cache_creation_input_tokens` is the sum of its split.
- `message` iterations are what the top level sums up, so they replace it; `compaction` and
  `advisor_message` come on top, the latter at their own model's price.
- After a server-side fallback each attempt is a portion at its own model's price. The top level
  then counts the attempt that served, so it is not compared. An attempt of another model that put
  out nothing was declined before output, which is free (*inferred*: iterations have no content).

Whatever does not fit is refused by name. A count that cannot be read, a cache write of unknown
lifetime, a new kind of count or iteration: each could be money, and a guess here is a wrong bill.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from tallystick.pricing.tokens import TokenCounts

MAX_COUNT = 10**12
"""No request counts a trillion of anything; beyond it the number is garbage, not usage."""

_USAGE_FIELDS = frozenset(
    {
        "input_tokens",
        "output_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "cache_creation",
        "server_tool_use",
        "service_tier",
        "inference_geo",
        "speed",
        "iterations",
        "output_tokens_details",  # a breakdown of output_tokens, never priced again
        "fallback_credit",  # its repricing already shows as writes moved to reads
        "type",
        "model",
    }
)
_SPLIT_FIELDS = frozenset({"ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"})
_TOOL_FIELDS = frozenset({"web_search_requests", "web_fetch_requests", "code_execution_requests"})
_COUNT_SUFFIXES = ("_tokens", "_requests")
_CODE_TOOLS = ("code_execution", "bash_code_execution", "text_editor_code_execution")
_WEB_TOOLS = ("web_search", "web_fetch")

Object = Mapping[str, Any]


class UnreadableError(ValueError):
    """The usage cannot be billed as it stands; the message names the field and the trouble."""


class Portion(NamedTuple):
    """What one model sampled once: its counts share one price."""

    model: str
    counts: TokenCounts


class Usage(NamedTuple):
    """A usage object, read.

    `portions` are to be billed; `declined` were served free of charge.
    """

    portions: tuple[Portion, ...]
    declined: tuple[Portion, ...]
    web_searches: int


def read_usage(usage: Object, model: str) -> Usage:
    """Read the usage of a reply by `model`.

    Raises:
        UnreadableError: naming the field.
    """
    _refuse_unknown_counts(usage, _USAGE_FIELDS, "usage")
    iterations = usage.get("iterations")
    if iterations is None or iterations == []:
        portions, declined = (Portion(model, read_counts(usage, "usage")),), ()
    elif isinstance(iterations, list):
        portions, declined = _read_iterations(usage, cast("list[object]", iterations), model)
    else:
        raise UnreadableError("usage.iterations is not a list")
    return Usage(portions, declined, _web_searches(usage))


def read_counts(usage: Object, where: str, *, inherited: Object | None = None) -> TokenCounts:
    """Read one set of counts, with cache writes by lifetime.

    Args:
        usage: the object that holds the counts.
        where: its name in messages.
        inherited: the split of the sum that these counts are part of, for when they have none.
    """
    if usage.get("input_tokens") is None:
        raise UnreadableError(f"{where}.input_tokens is missing")
    if usage.get("output_tokens") is None:
        raise UnreadableError(f"{where}.output_tokens is missing")
    five_minutes, one_hour = _cache_writes(usage, where, inherited)
    return TokenCounts(
        count(usage, "input_tokens", where),
        count(usage, "output_tokens", where),
        five_minutes,
        one_hour,
        count(usage, "cache_read_input_tokens", where),
    )


def count(holder: Object, name: str, where: str) -> int:
    """Return a count; absent and null are 0."""
    value = holder.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise UnreadableError(f"{where}.{name} is not a plausible whole number")
    return value


def ran_code(usage: Object, content: Sequence[Any]) -> bool:
    """Tell whether the reply ran code in a container whose time is billed.

    Code execution is free together with the web tools of 2026-02-09 and later. The reply does not
    name the tools' versions, but only those can be called from code, so a web call that came from
    code proves them. Without that proof the container's time is billed, and the reply does not tell
    it (facts on Claude, 'Prices', code execution).
    """
    tools: Object = usage.get("server_tool_use") or {}
    ran = count(tools, "code_execution_requests", "usage.server_tool_use") > 0
    for position, block in enumerate(content):
        called = _object(block, f"content[{position}]")
        if called.get("type") != "server_tool_use":
            continue
        name = called.get("name")
        if name in _CODE_TOOLS:
            ran = True
        elif name in _WEB_TOOLS:
            caller = called.get("caller")
            kind = cast("Object", caller).get("type") if isinstance(caller, dict) else None
            if isinstance(kind, str) and kind.startswith("code_execution"):
                return False
    return ran


def _read_iterations(
    usage: Object, iterations: list[object], model: str
) -> tuple[tuple[Portion, ...], tuple[Portion, ...]]:
    entries = [
        _object(entry, f"usage.iterations[{position}]") for position, entry in enumerate(iterations)
    ]
    fallback = any(
        entry.get("type") == "fallback_message"
        or (entry.get("type") == "message" and entry.get("model") not in (None, model))
        for entry in entries
    )
    top = usage.get("cache_creation")
    portions: list[Portion] = []
    declined: list[Portion] = []
    summed: list[TokenCounts] = []
    for position, entry in enumerate(entries):
        where = f"usage.iterations[{position}]"
        _refuse_unknown_counts(entry, _USAGE_FIELDS, where)
        kind = entry.get("type")
        if kind in ("compaction", "advisor_message"):
            portions.append(
                Portion(_model_of(entry, where, model, fallback), read_counts(entry, where))
            )
            continue
        if kind not in ("message", "fallback_message"):
            raise UnreadableError(f"{where}.type is not a known kind of iteration")
        counts = read_counts(entry, where, inherited=None if fallback else top)
        summed.append(counts)
        if fallback and kind == "message" and entry.get("model") != model and not counts.output:
            declined.append(Portion(_named(entry, where) or "unnamed", counts))
        else:
            portions.append(Portion(_model_of(entry, where, model, fallback), counts))
    if not summed:
        portions.insert(0, Portion(model, read_counts(usage, "usage")))
    else:
        _compare(usage, summed, plain=not fallback)
    return tuple(portions), tuple(declined)


def _model_of(entry: Object, where: str, model: str, fallback: bool) -> str:
    named = _named(entry, where)
    if named is not None:
        return named
    if entry.get("type") in ("message", "compaction") and not fallback:
        return model
    raise UnreadableError(f"{where}.model is missing")


def _named(entry: Object, where: str) -> str | None:
    named = entry.get("model")
    if named is not None and not isinstance(named, str):
        raise UnreadableError(f"{where}.model is not text")
    return named


def _compare(usage: Object, summed: list[TokenCounts], *, plain: bool) -> None:
    parts = {
        "input_tokens": sum(counts.input for counts in summed),
        "output_tokens": sum(counts.output for counts in summed),
        "cache_read_input_tokens": sum(counts.cache_read for counts in summed),
        "cache_creation_input_tokens": sum(
            counts.cache_write_5m + counts.cache_write_1h for counts in summed
        ),
    }
    for name, total in parts.items():
        if count(usage, name, "usage") != total and plain:
            raise UnreadableError(
                f"usage.{name} is not the sum of the message entries in usage.iterations"
            )


def _cache_writes(usage: Object, where: str, inherited: Object | None) -> tuple[int, int]:
    total = count(usage, "cache_creation_input_tokens", where)
    split = usage.get("cache_creation")
    if split is None:
        return _inherit_lifetimes(total, where, inherited) if total else (0, 0)
    where = f"{where}.cache_creation"
    lifetimes = _object(split, where)
    _refuse_unknown_counts(lifetimes, _SPLIT_FIELDS, where)
    five_minutes = count(lifetimes, "ephemeral_5m_input_tokens", where)
    one_hour = count(lifetimes, "ephemeral_1h_input_tokens", where)
    if usage.get("cache_creation_input_tokens") is not None and five_minutes + one_hour != total:
        raise UnreadableError(f"{where} does not add up to cache_creation_input_tokens")
    return five_minutes, one_hour


def _inherit_lifetimes(total: int, where: str, inherited: Object | None) -> tuple[int, int]:
    """Take lifetimes from the whole where it leaves no choice; 1h costs 1.6 times 5m."""
    if isinstance(inherited, dict):
        five_minutes = count(inherited, "ephemeral_5m_input_tokens", "usage.cache_creation")
        one_hour = count(inherited, "ephemeral_1h_input_tokens", "usage.cache_creation")
        if total == five_minutes + one_hour:
            return five_minutes, one_hour
        if five_minutes and not one_hour:
            return total, 0
        if one_hour and not five_minutes:
            return 0, total
    raise UnreadableError(f"{where}.cache_creation is missing: the writes' lifetime is unknown")


def _web_searches(usage: Object) -> int:
    where = "usage.server_tool_use"
    tools = usage.get("server_tool_use")
    if tools is None:
        return 0
    tools = _object(tools, where)
    _refuse_unknown_counts(tools, _TOOL_FIELDS, where)
    count(tools, "web_fetch_requests", where)  # free, and still refused when it is garbage
    return count(tools, "web_search_requests", where)


def _refuse_unknown_counts(holder: Object, known: frozenset[str], where: str) -> None:
    if holder.keys() <= known:
        return
    for name in sorted(holder.keys() - known):
        if name.endswith(_COUNT_SUFFIXES) and holder[name]:
            raise UnreadableError(f"{where}.{name[:100]} is not a count that the price book knows")


def _object(value: object, where: str) -> Object:
    if not isinstance(value, dict):
        raise UnreadableError(f"{where} is not an object")
    return cast("Object", value)
