"""Reads a request's body, which is read once and never beyond its bound: anybody may send one."""

from fastapi import Request


class TooLargeError(Exception):
    """A body is over its bound; the message is for whoever sent it."""


async def read_body(request: Request, most: int) -> bytes:
    """Return the body, of up to `most` bytes.

    Raises:
        TooLargeError: when there is more of it.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise TooLargeError(f"the body is over {most:,} bytes")
    return bytes(body)
