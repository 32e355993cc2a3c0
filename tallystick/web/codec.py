"""`POST /codec/encode`, `/decode` and `/download`: how an operator reads what is encrypted.

Temporal's Web UI and command line send payloads here and show what comes back; Temporal itself
never sees it. Whoever has the token reads every prompt, so without a token there are no such
routes. The command line sends it as a bearer token (`--codec-auth`). The Web UI can send no header
of its choice, only its user's own access token, so there the token is part of the address that it
is given: `https://.../codec/TOKEN`. The protocol lets routes lie at any depth, and this server
writes no log of addresses.

What is kept by reference stays one where the caller asks for that, as the Web UI does, which has a
button for `/download`.
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from google.protobuf.json_format import MessageToJson, Parse, ParseError
from pydantic import SecretStr
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.converter import PayloadCodec

from tallystick.contracts import MAX_REQUEST_BYTES
from tallystick.errors import PayloadUnreadableError
from tallystick.ledger.database import LedgerUnavailableError
from tallystick.payloads.parts import PartedStorage
from tallystick.web.bodies import TooLargeError, read_body

MAX_BODY = 2 * MAX_REQUEST_BYTES
"""Bytes: the largest payload there may be, in base64."""
HEADERS = ("content-type", "x-namespace", "authorization", "authorization-extras")
"""Those that the Web UI sends (its source, 2.54); a page of another kind has no need of more."""

STATUS: Mapping[type[Exception], int] = {
    ParseError: 400,
    TooLargeError: 413,
    PayloadUnreadableError: 422,
    LedgerUnavailableError: 503,
}
"""Of what may go wrong; each of them says what."""
Verb = Literal["encode", "decode", "download"]


def codec_server(
    codec: PayloadCodec, storage: PartedStorage, *, token: SecretStr, origins: Sequence[str]
) -> ASGIApp:
    """Return the app, to be mounted.

    Args:
        codec: encodes and decodes.
        storage: has what is kept by reference.
        token: whoever sends it is let in.
        origins: whose pages a browser may let ask.
    """
    app = FastAPI(title="Tallystick codec", openapi_url=None, docs_url=None, redoc_url=None)

    @app.post("/{verb}")
    @app.post("/{given}/{verb}")
    async def answer(request: Request, verb: Verb, given: str = "") -> Response:  # pyright: ignore[reportUnusedFunction]
        if not _may_ask(request, given, token):
            return PlainTextResponse("the token is missing or wrong\n", 401)
        by_reference = request.query_params.get("preserveStorageRefs") == "true"
        try:
            payloads = list(Parse(await read_body(request, MAX_BODY), Payloads()).payloads)
            if verb == "encode":
                return _as_json(await codec.encode(payloads))
            if verb == "download" or not by_reference:
                payloads = [await storage.resolve(each) for each in payloads]
            return _as_json(await codec.decode(payloads))
        except tuple(STATUS) as error:
            return PlainTextResponse(f"{error}\n", STATUS[type(error)])

    return CORSMiddleware(
        app, allow_origins=list(origins), allow_methods=["POST"], allow_headers=list(HEADERS)
    )


def _as_json(payloads: Sequence[Payload]) -> Response:
    return Response(MessageToJson(Payloads(payloads=payloads)), media_type="application/json")


def _may_ask(request: Request, given: str, token: SecretStr) -> bool:
    scheme, _, sent = request.headers.get("authorization", "").partition(" ")
    offered = given or (sent if scheme.lower() == "bearer" else "")
    return secrets.compare_digest(offered.encode(), token.get_secret_value().encode())
