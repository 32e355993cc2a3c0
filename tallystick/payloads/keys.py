"""The operator's keys, and the one cipher they are used with: AES-256-GCM.

The first key seals; every key opens what names it. So a key is changed by putting a new one in
front, first where things are only read, and an old one goes when nothing is left that it sealed.
Each message has a random nonce of 96 bits, which is safe for 2^32 messages a key (NIST SP 800-38D,
8.3): at a million a day, ten years. The name of the key and the use (`about`) are authenticated
with the content, so that nothing sealed for one use, or under one name, opens as another.

Nothing here puts a key into a message, a log or a `repr`.
"""

import base64
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tallystick.errors import PayloadUnreadableError

KEY_BYTES = 32
_NONCE_BYTES = 12
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SETTING = "TALLYSTICK_PAYLOAD_KEYS"


@dataclass(frozen=True, slots=True)
class PayloadKey:
    """One key: the name that what it sealed is marked with, and its 32 bytes."""

    name: str
    secret: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `NAME:KEY`, the key in base64.

        Raises:
            ValueError: saying what it should be, and quoting nothing: a key may be anywhere in it.
        """
        name, _, encoded = text.partition(":")
        if not _NAME.fullmatch(name):
            raise ValueError("must be NAME:KEY, the name of letters, digits and . _ -")
        try:
            secret = base64.b64decode(encoded.replace("-", "+").replace("_", "/"), validate=True)
        except ValueError:
            secret = b""
        if len(secret) != KEY_BYTES:
            raise ValueError(
                f"must be NAME:KEY, the key {KEY_BYTES} bytes in base64; "
                "`openssl rand -base64 32` makes one"
            )
        return cls(name, secret)


class Keyring:
    """Named keys, the sealing one first. An empty one seals nothing and is false."""

    def __init__(self, keys: Sequence[PayloadKey] = ()):
        """Take the keys.

        Raises:
            ValueError: two have the same name.
        """
        self._ciphers = {key.name: AESGCM(key.secret) for key in keys}
        if len(self._ciphers) != len(keys):
            raise ValueError("two keys have the same name")
        self._first = keys[0].name if keys else None

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Self:
        """Read keys as the setting has them.

        Raises:
            ValueError: for a key that is none, by its place, or a name that comes twice.
        """
        keys: list[PayloadKey] = []
        for place, text in enumerate(texts, 1):
            try:
                keys.append(PayloadKey.parse(text))
            except ValueError as error:
                raise ValueError(f"key {place} of {len(texts)} {error}") from None
        return cls(keys)

    def __bool__(self) -> bool:
        return self._first is not None

    def seal(self, content: bytes, about: bytes) -> tuple[str, bytes]:
        """Return the name of the key used, and the sealed content: nonce, ciphertext and tag."""
        assert self._first is not None  # noqa: S101 - whoever has no keys leaves content as it is
        nonce = os.urandom(_NONCE_BYTES)
        cipher = self._ciphers[self._first]
        return self._first, nonce + cipher.encrypt(nonce, content, _bound(about, self._first))

    def open(self, name: str, sealed: bytes, about: bytes) -> bytes:
        """Return the content of what `seal` made under the key of this name.

        Raises:
            PayloadUnreadableError: the key is not here, or it is not the one that sealed this.
        """
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise PayloadUnreadableError(
                f"something is encrypted under a key named {name!r} that this process does not "
                f"have; add it to its {_SETTING}, behind the first"
            )
        nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, rest, _bound(about, name))
        except (InvalidTag, ValueError):
            raise PayloadUnreadableError(
                f"something that names the key {name!r} does not open with it: it was changed on "
                f"its way, or {_SETTING} has another key under that name"
            ) from None


def _bound(about: bytes, name: str) -> bytes:
    return about + b"\0" + name.encode()
