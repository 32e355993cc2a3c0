"""What a key is called in reports, and which keys may read them.

A report names a key by an id that tells nothing of it. Ours is a function of the key, so the same
key has the same id in every stand-in and a test can say beforehand which it will be.
"""

import hashlib

WORKSPACE = "wrkspc_sandbox"
"""The workspace of every key."""

_MAY_READ_REPORTS = ("sk-ant-admin", "sk-ant-analytics")
"""Admin keys, and those with the scope `read:analytics`; the spelling of the latter is our own."""


def key_id(key: str) -> str:
    """Return the `api_key_id` of a key."""
    return f"apikey_{hashlib.sha256(key.encode()).hexdigest()[:24]}"


def may_read_reports(key: str) -> bool:
    """Tell whether a key may read usage and cost reports."""
    return key.startswith(_MAY_READ_REPORTS)
