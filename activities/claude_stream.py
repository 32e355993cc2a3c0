"""Puts a streamed reply together, so that it bills like one that was not streamed.

The wire has four traps (facts on Claude, 'Streaming' and 'Iterations'): the usage in
`message_delta` is cumulative and replaces what `message_start` said; it carries no split of cache
writes by lifetime, so the split is worked out from the start's; after a server-side fallback the
start still names the model that declined, and a `fallback` block the one that serves from there on;
and a connection that simply ends raises nothing, so a reply counts as whole only when both its stop
reason and `message_stop` were seen.

Events are taken as raw JSON: the SDK's models would drop usage fields they do not know.
"""

import json
from collections.abc import Mapping
from typing import Any, cast

_Json = dict[str, Any]


class ReplyAssembler:
    """Takes a stream's events one by one; `message` is the reply as far as it is known."""

    def __init__(self) -> None:
        self.message: _Json = {}
        self._started: _Json = {}
        self._partial_json: dict[int, str] = {}
        self._stopped = False

    @property
    def whole(self) -> bool:
        """Whether the stream told that the reply is complete."""
        return self._stopped and self.message.get("stop_reason") is not None

    @property
    def usage(self) -> _Json | None:
        """Usage so far: the bill of a whole reply, a lower bound of a broken one."""
        return self.message.get("usage")

    def take(self, event: Mapping[str, Any]) -> None:
        """Apply one event; kinds that say nothing about the reply are passed over."""
        match event.get("type"):
            case "message_start":
                self.message = dict(event["message"])
                self._started = dict(self.message.get("usage") or {})
            case "content_block_start":
                self._open(dict(event["content_block"]))
            case "content_block_delta":
                self._apply(event["index"], event["delta"])
            case "content_block_stop":
                self._finish(event["index"])
            case "message_delta":
                self.message.update(event.get("delta") or {})
                self.message["usage"] = merge_usage(self._started, event.get("usage") or {})
            case "message_stop":
                self._stopped = True
            case _:
                pass

    @property
    def _content(self) -> list[_Json]:
        return cast("list[_Json]", self.message.setdefault("content", []))

    def _open(self, block: _Json) -> None:
        self._content.append(block)
        if block.get("type") == "fallback":
            self.message["model"] = block["to"]["model"]

    def _apply(self, index: int, delta: Mapping[str, Any]) -> None:
        block = self._content[index]
        match delta.get("type"):
            case "input_json_delta":
                self._partial_json[index] = (
                    self._partial_json.get(index, "") + delta["partial_json"]
                )
            case "citations_delta":
                block["citations"] = [*(block.get("citations") or []), delta["citation"]]
            case _:
                # text, thinking, signature, compaction and what comes next: a delta carries the
                # continuation of the block's field of the same name.
                for name, value in delta.items():
                    if name == "type":
                        continue
                    earlier = block.get(name)
                    if isinstance(earlier, str) and isinstance(value, str):
                        value = earlier + value  # noqa: PLW2901
                    block[name] = value

    def _finish(self, index: int) -> None:
        if index in self._partial_json:
            self._content[index]["input"] = json.loads(self._partial_json.pop(index) or "{}")


def merge_usage(started: Mapping[str, Any], final: Mapping[str, Any]) -> _Json:
    """Return the usage of a streamed reply from its first and its latest report.

    The latest wins field by field. One-hour writes happen at the start, so growth of the total
    belongs to the five-minute writes; a latest report with a split of its own is believed.
    """
    merged = {**started, **{name: value for name, value in final.items() if value is not None}}
    split = started.get("cache_creation")
    total = merged.get("cache_creation_input_tokens")
    if isinstance(split, Mapping) and isinstance(total, int) and not final.get("cache_creation"):
        hour = cast("Mapping[str, int]", split).get("ephemeral_1h_input_tokens") or 0
        merged["cache_creation"] = {
            **split,
            "ephemeral_1h_input_tokens": hour,
            "ephemeral_5m_input_tokens": total - hour,
        }
    return merged
