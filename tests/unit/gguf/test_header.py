"""Headers of GGUF files that are damaged, or written to do damage."""

import random
import struct

import pytest
import tiny_gguf

from surgery import BaseError, Plan, SurgeryError
from surgery.gguf import open_gguf_file, save_gguf

STRING, UINT32, ARRAY = 8, 4, 9


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def field(key, kind, raw):
    return text(key) + struct.pack("<I", kind) + raw


def tensor(name, shape=(8,), kind=0, offset=0):
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


ARCHITECTURE = field("general.architecture", STRING, text("llama"))
DEPTH = field("llama.block_count", UINT32, struct.pack("<I", 1))


def whole(fields=(ARCHITECTURE, DEPTH), tensors=(), counts=None, version=3, data=64, magic=b"GGUF"):
    head = magic + struct.pack("<I", version)
    head += struct.pack("<QQ", *(counts or (len(tensors), len(fields))))
    head += b"".join(fields) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


GOOD = (tensor("blk.0.attn_norm.weight"), tensor("output.weight", offset=32))


def test_the_smallest_file(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(whole(tensors=GOOD))
    base = open_gguf_file(path)
    assert (base.architecture, base.depth) == ("llama", 1)
    assert [(t.name, t.size, t.start % 32) for t in base.tensors] == [
        ("blk.0.attn_norm.weight", 32, 0),
        ("output.weight", 32, 0),
    ]
    out = save_gguf(base, Plan.parse("0*3", 1), tmp_path / "b.gguf").files[0]
    assert open_gguf_file(out).depth == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a GGUF file"),
        (whole(magic=b"PK\3\4"), "not a GGUF file"),
        (b"GGUF\3", "cut off"),
        (whole(version=1), "of version 1"),
        (whole(version=4), "of version 4"),
        (whole(version=0x03000000), "big-endian"),
        (whole(counts=(0, 1 << 60)), "metadata fields"),
        (whole(counts=(1 << 60, 2)), "tensors"),
        (whole(counts=(60_000, 2)), "not a valid GGUF file"),
        (whole(fields=(text(b"\xff\xfe") + struct.pack("<II", UINT32, 1),)), "is not text"),
        (whole(fields=(field("", UINT32, b"\1\0\0\0"),)), "a key is empty"),
        (whole(fields=(struct.pack("<Q", 1 << 62),)), "a key has"),
        (whole(fields=(DEPTH, DEPTH)), "block_count appears twice"),
        (whole(fields=(field("a", 77, b""),)), "unknown type 77"),
        (whole(fields=(field("a", STRING, struct.pack("<Q", 1 << 62)),)), "cut off"),
        (whole(fields=(field("a", ARRAY, struct.pack("<IQ", STRING, 1 << 61)),)), "cut off"),
        (whole(fields=(field("a", ARRAY, struct.pack("<IQ", UINT32, 1 << 61)),)), "cut off"),
        (whole(fields=(field("a", ARRAY, struct.pack("<IQ", ARRAY, 1)),)), "unknown type 9"),
        (
            whole(fields=(field("general.alignment", UINT32, struct.pack("<I", 3)),)),
            "not a power of two",
        ),
        (
            whole(fields=(field("general.alignment", STRING, text("a")),)),
            "no 32-bit integer",
        ),
        (whole(tensors=(tensor("a" * 64),)), "has the name"),
        (whole(tensors=(tensor("a", (1,) * 5),)), "5 dimensions"),
        (whole(tensors=(tensor("a", (1 << 40, 1 << 40)),)), "has the shape"),
        (whole(tensors=(tensor("a", (0,)),)), "has the shape"),
        (whole(tensors=(tensor("a", kind=4),)), "tensor type 4"),
        (whole(tensors=(tensor("a", (8,), kind=8),)), "rows of 8 values as Q8_0"),
        (whole(tensors=(tensor("a", (1 << 30,)),)), "ends before its tensor"),
        (whole(tensors=(tensor("a", offset=1 << 62),)), "ends before its tensor"),
        (whole(tensors=(tensor("a", offset=8),)), "not aligned"),
        (whole(tensors=(tensor("a"), tensor("b"))), "overlaps"),
        (whole(tensors=(tensor("a", (16,)), tensor("b", offset=32))), "overlaps"),
        (whole(tensors=(tensor("a"), tensor("a", offset=32))), "appears twice"),
        (whole(), "holds no tensors"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, data, message):
    path = tmp_path / "a.gguf"
    path.write_bytes(data)
    with pytest.raises(BaseError, match=message):
        open_gguf_file(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((DEPTH,), "names no architecture"),
        ((field("general.architecture", UINT32, b"\1\0\0\0"), DEPTH), "names no architecture"),
        ((ARCHITECTURE,), "declares no number of layers"),
        (
            (ARCHITECTURE, field("llama.block_count", UINT32, struct.pack("<I", 1 << 31))),
            "declares no number of layers",
        ),
        (
            (ARCHITECTURE, field("llama.block_count", UINT32, struct.pack("<I", 2))),
            "no tensors for its layer 1",
        ),
    ],
)
def test_what_is_no_model_is_said(tmp_path, fields, message):
    path = tmp_path / "a.gguf"
    path.write_bytes(whole(fields=fields, tensors=GOOD))
    with pytest.raises(BaseError, match=message):
        save_gguf(open_gguf_file(path), Plan.whole(1), tmp_path / "b.gguf")


def test_files_that_are_not_there_or_no_files(tmp_path):
    with pytest.raises(BaseError, match="no file"):
        open_gguf_file(tmp_path / "none.gguf")
    with pytest.raises(BaseError, match="not a file"):
        open_gguf_file(tmp_path)


def test_a_damaged_file_is_saved_whole_or_refused(tmp_path):
    """Whatever bytes change, the result is a file that opens, or an error in words."""
    path, out = tmp_path / "a.gguf", tmp_path / "b.gguf"
    tiny_gguf.write(path, depth=2, hidden=32, inner=32)
    good = path.read_bytes()
    head = open_gguf_file(path).tensors[0].start
    dice, saved = random.Random(0), 0
    for _ in range(300):
        data = bytearray(good)
        for _ in range(dice.choice((1, 1, 4))):
            at = dice.choice((dice.randrange(head), dice.randrange(24, 400)))
            data[at] = dice.choice((0, 1, 255, data[at] ^ (1 << dice.randrange(8))))
        if dice.random() < 0.2:
            del data[dice.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            save_gguf(open_gguf_file(path), Plan.parse("1", 2), out, overwrite=True)
            saved += 1
        except SurgeryError as error:
            assert len(str(error)) < 500
            continue
        assert open_gguf_file(out).depth == 1
    assert 20 < saved < 280
    assert {p.name for p in tmp_path.iterdir()} == {"a.gguf", "b.gguf"}
