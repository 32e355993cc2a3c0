"""The codec server: what Temporal's Web UI and command line get from it, and nobody else."""

import base64
import json
import os
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToDict, ParseDict
from pydantic import SecretStr
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.converter import ExternalStorage

from tallystick.ledger.database import Ledger
from tallystick.payloads.codec import PayloadEncryption
from tallystick.payloads.converter import data_converter
from tallystick.payloads.keys import Keyring
from tallystick.payloads.ledger_storage import LedgerStorage
from tallystick.web.codec import codec_server
from tallystick.web.serving import serve

TOKEN = "let-me-read-what-they-wrote"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PAGE = "https://temporal.example.com"
KEYS = Keyring.parse([f"a:{base64.b64encode(os.urandom(32)).decode()}"])


@pytest_asyncio.fixture
async def web(ledger: Ledger) -> AsyncIterator[httpx.AsyncClient]:
    app = codec_server(
        PayloadEncryption(KEYS), LedgerStorage(ledger), token=SecretStr(TOKEN), origins=[PAGE]
    )
    async with (
        serve(app, host="127.0.0.1", port=0) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as http,
    ):
        yield http


def as_json(*payloads: Payload) -> dict[str, object]:
    return MessageToDict(Payloads(payloads=payloads))


def values(answer: httpx.Response) -> list[object]:
    payloads = ParseDict(answer.raise_for_status().json(), Payloads()).payloads
    return [json.loads(each.data) for each in payloads]


async def test_what_is_encrypted_is_read_with_the_token(web: httpx.AsyncClient) -> None:
    sealed = await data_converter(KEYS).encode(["a hazel rod"])
    plain = await data_converter(Keyring()).encode(["as it was"])
    asked = as_json(*sealed, *plain)
    assert values(await web.post("/decode", json=asked, headers=BEARER)) == [
        "a hazel rod",
        "as it was",
    ]
    # The Web UI has no header for it.
    answer = await web.post(f"/{TOKEN}/decode?preserveStorageRefs=true", json=asked)
    assert values(answer) == ["a hazel rod", "as it was"]
    encoded = (await web.post("/encode", json=as_json(*plain), headers=BEARER)).json()
    assert "as it was" not in base64.b64decode(encoded["payloads"][0]["data"]).decode("latin-1")
    assert values(await web.post("/decode", json=encoded, headers=BEARER)) == ["as it was"]


@pytest.mark.parametrize("verb", ["encode", "decode", "download"])
async def test_nobody_else_reads_or_writes(web: httpx.AsyncClient, verb: str) -> None:
    asked = as_json(*await data_converter(KEYS).encode(["a hazel rod"]))
    for path, headers in [
        (f"/{verb}", {}),
        (f"/{verb}", {"Authorization": TOKEN}),
        (f"/{verb}", {"Authorization": f"Bearer {TOKEN[:-1]}"}),
        (f"/{TOKEN}x/{verb}", {}),
    ]:
        answer = await web.post(path, json=asked, headers=headers)
        assert (answer.status_code, answer.text) == (401, "the token is missing or wrong\n")


async def test_large_ones_stay_references_until_they_are_asked_for(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    storage = ExternalStorage([LedgerStorage(ledger)], payload_size_threshold=100)
    reference = as_json(*await data_converter(KEYS, storage).encode(["hazel " * 200_000]))
    shown = await web.post(f"/{TOKEN}/decode?preserveStorageRefs=true", json=reference)
    assert shown.json() == reference
    for verb in ("download", "decode"):
        answer = await web.post(f"/{verb}", json=reference, headers=BEARER)
        assert values(answer) == ["hazel " * 200_000]


async def test_pages_of_the_web_ui_may_ask_and_no_others(web: httpx.AsyncClient) -> None:
    def asked_first(page: str) -> dict[str, str]:
        return {
            "Origin": page,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,x-namespace",
        }

    allowed = await web.options(f"/{TOKEN}/decode", headers=asked_first(PAGE))
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == PAGE
    refused = await web.options(f"/{TOKEN}/decode", headers=asked_first("https://evil.example"))
    assert "access-control-allow-origin" not in refused.headers


async def test_what_cannot_be_read_says_why(web: httpx.AsyncClient) -> None:
    other = Keyring.parse([f"b:{base64.b64encode(os.urandom(32)).decode()}"])
    sealed = as_json(*await data_converter(other).encode(["a hazel rod"]))
    answer = await web.post("/decode", json=sealed, headers=BEARER)
    assert answer.status_code == 422
    assert "'b'" in answer.text
    assert "TALLYSTICK_PAYLOAD_KEYS" in answer.text
    assert (await web.post("/decode", content=b"{", headers=BEARER)).status_code == 400
    large = b" " * 33_000_000
    assert (await web.post("/decode", content=large, headers=BEARER)).status_code == 413
