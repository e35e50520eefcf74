from __future__ import annotations

import gzip
import sys
import zlib
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

import numpy as np
import pytest

from neonet3d.cohort import stream

PAYLOAD = np.random.default_rng(0).normal(100, 20, 20_000).astype(np.int16).tobytes()
ROOM = len(PAYLOAD)


@pytest.fixture(params=["isal", "standard library"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module with ISA-L, and a copy of it on a machine where ISA-L cannot be imported."""
    if request.param == "isal":
        pytest.importorskip("isal")
        return stream
    monkeypatch.setitem(sys.modules, "isal", None)
    spec = spec_from_file_location("stream_without_isal", str(stream.__file__))
    assert spec is not None
    assert spec.loader is not None
    copy = module_from_spec(spec)
    spec.loader.exec_module(copy)
    assert copy.inflater is zlib.decompressobj
    return copy


def test_what_was_deflated_comes_back(engine: ModuleType) -> None:
    raw = engine.deflate(PAYLOAD)
    assert engine.is_gzip(raw)
    assert engine.inflate(raw, largest=ROOM) == gzip.decompress(raw) == PAYLOAD
    assert raw == engine.deflate(PAYLOAD)
    assert raw[4:8] == bytes(4)  # no time


def test_several_members_and_padding_are_one_stream(engine: ModuleType) -> None:
    members = [gzip.compress(PAYLOAD[i : i + 999]) for i in range(0, ROOM, 999)]
    assert engine.inflate(b"".join(members), largest=ROOM) == PAYLOAD
    assert engine.inflate(b"".join(members) + bytes(512), largest=ROOM) == PAYLOAD


def test_a_file_of_thousands_of_members_is_not_slow(engine: ModuleType) -> None:
    raw = gzip.compress(bytes(range(256)) * 4) * 20_000
    assert len(engine.inflate(raw, largest=1 << 30)) == 1024 * 20_000


@pytest.mark.parametrize("kept", [3, 12, 0.5, -9, -8, -4, -1])
def test_a_truncated_stream_is_refused(engine: ModuleType, kept: float) -> None:
    raw = gzip.compress(PAYLOAD)
    end = int(kept * len(raw)) if isinstance(kept, float) else kept
    with pytest.raises(engine.StreamError):
        engine.inflate(raw[:end], largest=ROOM)
    with pytest.raises(engine.StreamError):
        engine.inflate(raw + raw[:end], largest=2 * ROOM)


def test_every_flipped_bit_is_refused(engine: ModuleType) -> None:
    """Of the deflate blocks, of the CRC and of the length, in the first and in a later member."""
    rng = np.random.default_rng(1)
    raw = gzip.compress(PAYLOAD)
    trailer = range(len(raw) - 8, len(raw))
    for place in [*rng.integers(10, len(raw), 60).tolist(), *trailer]:
        flipped = bytearray(raw)
        flipped[place] ^= 1 << int(rng.integers(8))
        for damaged in (bytes(flipped), raw + flipped):
            with pytest.raises(engine.StreamError):
                engine.inflate(damaged, largest=2 * ROOM)


@pytest.mark.parametrize("garbage", [b"x", b"\0\0x", b"trailing", bytes(400) + b"\x1f"])
def test_trailing_garbage_is_refused(engine: ModuleType, garbage: bytes) -> None:
    with pytest.raises(engine.StreamError, match=rf"{len(garbage)} bytes that are no gzip"):
        engine.inflate(gzip.compress(PAYLOAD) + garbage, largest=ROOM)


def test_the_limit_is_exact_and_over_all_members(engine: ModuleType) -> None:
    raw = gzip.compress(PAYLOAD)
    with pytest.raises(engine.OversizedStreamError, match=f"beyond {ROOM - 1} bytes"):
        engine.inflate(raw, largest=ROOM - 1)
    with pytest.raises(engine.OversizedStreamError):
        engine.inflate(raw * 3, largest=2 * ROOM)


def test_the_head_is_all_that_is_inflated(engine: ModuleType) -> None:
    raw = gzip.compress(PAYLOAD)
    assert engine.inflate_head(raw, 400) == PAYLOAD[:400]
    assert engine.inflate_head(raw[:-20], 400) == PAYLOAD[:400]
    assert engine.inflate_head(gzip.compress(b"short"), 400) == b"short"
    with pytest.raises(engine.StreamError):
        engine.inflate_head(stream.MAGIC + b"nothing of the kind", 400)
