"""Why usage costs what it costs: re-sent history, lost caches, and the causes of a difference.

Only computes, and only from what the ledger keeps of each reply: counts, instants, bill lines.
"""

from tallystick.insight.cache import CacheMiss, cache_miss
from tallystick.insight.conversations import (
    ConversationSoFar,
    FollowedTurn,
    follow,
    resent_tokens,
    warnings_for,
)
from tallystick.insight.history import History, history_of
from tallystick.insight.spikes import Cause, Comparison, compare
from tallystick.insight.turns import Turn

__all__ = [
    "CacheMiss",
    "Cause",
    "Comparison",
    "ConversationSoFar",
    "FollowedTurn",
    "History",
    "Turn",
    "cache_miss",
    "compare",
    "follow",
    "history_of",
    "resent_tokens",
    "warnings_for",
]
