"""What a record keeps of a reply, to be rated again without anybody's words."""

import pytest

from tallystick.pricing import evidence, rate

from .replies import NOW, reply, usage


def test_evidence_says_nothing_that_the_reply_said():
    message = reply(
        "claude-opus-5",
        usage(1, 2),
        content=[
            {"type": "text", "text": "a secret"},
            {
                "type": "server_tool_use",
                "name": "web_search",
                "input": {"query": "a secret"},
                "caller": {"type": "code_execution_20260120", "tool_id": "t"},
            },
            "a secret",
        ],
    )
    kept = evidence(message)
    assert "a secret" not in str(kept)
    assert kept.keys() == message.keys() - {"stop_sequence"}
    assert kept | {"stop_sequence": None} == message | {
        "content": [
            {"type": "text"},
            {
                "type": "server_tool_use",
                "name": "web_search",
                "caller": {"type": "code_execution_20260120", "tool_id": "t"},
            },
            None,
        ],
    }


@pytest.mark.parametrize("content", [None, "a secret", [], [{"type": "fallback"}], ["a secret"]])
def test_evidence_rates_like_the_reply(content: object):
    message = reply("claude-opus-5", usage(1, 2), content=content, stop_reason="refusal")
    assert "a secret" not in str(evidence(message))
    assert rate(evidence(message), at=NOW) == rate(message, at=NOW)


def test_evidence_of_nothing_is_nothing():
    assert evidence({}) == {}
