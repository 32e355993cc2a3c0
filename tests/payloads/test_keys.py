"""Keys: how they are written, what they open, and that no message tells one."""

import base64
import json
import random
import traceback

import pytest
from temporalio.api.common.v1 import Payload

from tallystick.errors import PayloadUnreadableError
from tallystick.payloads.codec import KEY_NAME, PayloadEncryption
from tallystick.payloads.columns import ColumnSeal
from tallystick.payloads.keys import Keyring
from tallystick.settings import Settings, SettingsError, get_settings

# The same in every process that collects these tests: they are part of their names.
A, B, OTHER = (base64.b64encode(random.Random(n).randbytes(32)).decode() for n in range(3))
PLAIN = Payload(metadata={"encoding": b"json/plain"}, data=b'{"prompt":"a hazel rod"}')


def keys(*texts: str) -> Keyring:
    return Keyring.parse(texts)


async def test_the_first_key_seals_and_every_key_opens() -> None:
    old, both, new = keys(f"a:{A}"), keys(f"b:{B}", f"a:{A}"), keys(f"b:{B}")
    [by_a] = await PayloadEncryption(old).encode([PLAIN])
    [by_b] = await PayloadEncryption(both).encode([PLAIN])
    assert b"hazel" not in by_a.SerializeToString()
    assert (by_a.metadata[KEY_NAME], by_b.metadata[KEY_NAME]) == (b"a", b"b")
    assert await PayloadEncryption(both).decode([by_a, by_b, PLAIN]) == [PLAIN] * 3
    with pytest.raises(PayloadUnreadableError, match=r"'a'.*TALLYSTICK_PAYLOAD_KEYS"):
        await PayloadEncryption(new).decode([by_a])
    with pytest.raises(PayloadUnreadableError, match=r"'b'.*TALLYSTICK_PAYLOAD_KEYS"):
        await PayloadEncryption(Keyring()).decode([by_b])


async def test_without_keys_payloads_stay_plain_and_equal_ones_never_look_equal_with() -> None:
    assert await PayloadEncryption(Keyring()).encode([PLAIN]) == [PLAIN]
    one, two = await PayloadEncryption(keys(f"a:{A}")).encode([PLAIN, PLAIN])
    assert one.data != two.data


@pytest.mark.parametrize("change", ["byte", "name", "key", "short", "use"])
async def test_what_was_tampered_with_does_not_open(change: str) -> None:
    ring = keys(f"a:{A}", f"b:{A}")
    [sealed] = await PayloadEncryption(ring).encode([PLAIN])
    if change == "byte":
        sealed.data = sealed.data[:-1] + bytes([sealed.data[-1] ^ 1])
    elif change == "name":
        sealed.metadata[KEY_NAME] = b"b"  # the same key under another name
    elif change == "key":
        ring = keys(f"a:{OTHER}")
    elif change == "short":
        sealed.data = sealed.data[:7]
    else:
        _, _, stored = ColumnSeal(ring).text("{}").split(":")
        sealed.data = base64.b64decode(stored)
    with pytest.raises(PayloadUnreadableError, match="TALLYSTICK_PAYLOAD_KEYS"):
        await PayloadEncryption(ring).decode([sealed])


def test_columns_hold_sealed_and_plain_rows_side_by_side() -> None:
    reply = {"id": "msg_1", "content": [{"type": "text", "text": "a hazel rod\0"}]}
    text = json.dumps(reply)
    plain, sealing = ColumnSeal(), ColumnSeal(keys(f"a:{A}"))
    assert plain.text(text) == text
    assert plain.read_document(reply) == reply  # as rows were written before
    assert "hazel" not in sealing.text(text) + json.dumps(sealing.document(reply))
    for seal in (plain, sealing):
        assert sealing.read_text(seal.text(text)) == text
        assert sealing.read_document(seal.document(reply)) == reply
    with pytest.raises(PayloadUnreadableError, match="'a'"):
        plain.read_document(sealing.document(reply))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (A, "key 1 of 1 must be NAME:KEY"),
        (f"{A}:a", "key 1 of 1 must be NAME:KEY"),
        (f"{A.strip('=').replace('/', '_').replace('+', '-')}:a", "the key 32 bytes in base64"),
        (f"a:{A},b:{B[:-8]}", "key 2 of 2 must be NAME:KEY, the key 32 bytes in base64"),
        (f"a:{A}!", "the key 32 bytes in base64"),
        (f"a:{A},a:{B}", "two keys have the same name"),
    ],
)
def test_keys_that_are_none_are_refused_without_telling_them(
    monkeypatch: pytest.MonkeyPatch, value: str, told: str
) -> None:
    monkeypatch.setenv("TALLYSTICK_PAYLOAD_KEYS", value)
    with pytest.raises(SettingsError, match=f"^TALLYSTICK_PAYLOAD_KEYS: .*{told}") as refused:
        get_settings()
    shown = "".join(traceback.format_exception(refused.value))
    assert not any(key[:12] in shown for key in (A, B))


def test_keys_may_be_written_either_way_and_are_never_shown() -> None:
    spelled = A.replace("/", "_").replace("+", "-")
    settings = Settings(payload_keys=[f"a:{spelled}", f"b:{B}"])
    assert settings.keyring.open(*keys(f"a:{A}").seal(b"x", b"use"), b"use") == b"x"
    assert not any(key[:12] in repr(settings) + str(settings.keyring) for key in (A, spelled, B))
