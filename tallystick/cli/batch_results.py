"""The results of a batch job as files: one JSONL, or one text per document. Streamed either way.

What has no reply is listed on standard error by its document's name, so that it can be seen beside
either. A request without a result yet is left out.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, cast

from tallystick.cli.output import note, print_json
from tallystick.ledger.batch_tables import ItemOutcome
from tallystick.ledger.batches import ItemResult
from tallystick.money import from_nano_usd, plain
from tallystick.payloads.columns import ColumnSeal


async def opened(
    results: AsyncIterable[ItemResult], seal: ColumnSeal
) -> AsyncGenerator[ItemResult, None]:
    """Yield the results with the provider's lines as they came.

    Raises:
        PayloadUnreadableError: one is under a key that is not here.
    """
    async for result in results:
        yield result if result.line is None else replace(result, line=seal.read_text(result.line))


async def write_lines(results: AsyncIterable[ItemResult], out: Path | None) -> int:
    """Write one JSON object a line, to standard output where `out` is None; returns how many."""
    written = 0
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    file = None if out is None else out.open("w", encoding="utf-8")
    try:
        async for result in results:
            if result.outcome is None:
                continue
            _tell_failure(result)
            if file is None:
                print_json(as_json(result))
            else:
                file.write(json.dumps(as_json(result), ensure_ascii=False) + "\n")
            written += 1
    finally:
        if file is not None:
            file.close()
    return written


async def write_folder(results: AsyncIterable[ItemResult], folder: Path) -> int:
    """Write each reply's text to a file named after its document; returns how many."""
    written = 0
    async for result in results:
        if result.outcome is None:
            continue
        _tell_failure(result)
        if result.outcome == ItemOutcome.SUCCEEDED:
            _write(folder / _file_name(result), _text(result))
            written += 1
    return written


def as_json(result: ItemResult) -> dict[str, Any]:
    """Return a result as JSON-ready data; `message` is Claude's reply, whole."""
    charge = result.charge_nano_usd
    failed = result.outcome != ItemOutcome.SUCCEEDED
    return {
        "request_id": result.request_id,
        "document": result.document,
        "outcome": result.outcome,
        "message": _message(result),
        "error": {"type": result.error_type, "message": result.error_message} if failed else None,
        "cost_usd": None if result.cost_usd is None else plain(result.cost_usd),
        "charge_usd": None if charge is None else plain(from_nano_usd(charge)),
    }


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _tell_failure(result: ItemResult) -> None:
    if result.outcome is not None and result.outcome != ItemOutcome.SUCCEEDED:
        why = ": ".join(each for each in (result.error_type, result.error_message) if each)
        note(f"{result.document or result.request_id}: {result.outcome}{why and f' ({why})'}")


def _message(result: ItemResult) -> dict[str, Any] | None:
    if result.outcome != ItemOutcome.SUCCEEDED or result.line is None:
        return None
    return cast("dict[str, Any]", json.loads(result.line)["result"]["message"])


def _text(result: ItemResult) -> str:
    message = _message(result) or {}
    blocks: list[dict[str, Any]] = message.get("content") or []
    return "".join(block["text"] for block in blocks if block.get("type") == "text")


def _file_name(result: ItemResult) -> PurePosixPath:
    """Return where a document's text goes; a name never leads out of the folder."""
    parts = (result.document or result.request_id).split("/")
    inside = [part for part in parts if part not in ("", ".", "..")]
    return PurePosixPath(*inside[:-1], f"{inside[-1] if inside else result.number}.txt")
