"""Where tensors come to lie in the new files."""

import json
import struct

from hypothesis import given
from hypothesis import strategies as st

from surgery.checkpoint.tensor_spec import TensorSpec
from surgery.checkpoint.writer import PAGE, arrange, differing, runs, write_shards
from surgery.io.copy import opener_of
from surgery.progress import Meter, silent

WIDTHS = {"F64": 8, "F32": 4, "BF16": 2, "U8": 1}


def spec(name, dtype, values, file, start, copy=0):
    size = WIDTHS[dtype] * values
    return TensorSpec(name, dtype, (values,), size, file, start, size, None, copy)


@st.composite
def checkpoints(draw):
    """Pieces as they may lie in two files, each taken up to three times."""
    result = []
    for file in ("a", "b"):
        at = 8 * draw(st.integers(1, 2000))
        for i in range(draw(st.integers(1, 12))):
            dtype = draw(st.sampled_from(sorted(WIDTHS)))
            values = draw(st.integers(0, 3000))
            for copy in range(draw(st.integers(0, 3))):
                result.append(spec(f"{file}.{i}.{copy}", dtype, values, file, at, copy))
            at += WIDTHS[dtype] * values
    return result or [spec("only", "F32", 4, "a", 8)]


@given(checkpoints(), st.integers(1, 40_000))
def test_every_tensor_has_its_place(result, limit):
    shards = arrange(result, limit)
    placed = [spec.name for shard in shards for spec, _ in shard.places]
    assert sorted(placed) == sorted(spec.name for spec in result)
    for shard in shards:
        (length,) = struct.unpack("<Q", shard.head[:8])
        header = json.loads(shard.head[8:])
        assert len(shard.head) == 8 + length and len(shard.head) % 8 == 0
        assert length < len(json.dumps(header)) + PAGE + 8
        end = len(shard.head)
        for spec, at in shard.places:
            assert at == end and at % WIDTHS[spec.dtype] == 0
            offsets = header[spec.name]["data_offsets"]
            assert offsets == [at - len(shard.head), at - len(shard.head) + spec.size]
            end += spec.size
        assert sum(p.size for p, _ in shard.places) <= limit or len(shard.places) == 1


@given(checkpoints())
def test_runs_move_every_byte_once(result):
    (shard,) = arrange(result, 1 << 40)
    assert sum(run.size for run in runs(shard.places)) == sum(p.size for p in result)
    for spec, at in shard.places:
        if not spec.size:
            continue
        run = next(r for r in runs(shard.places) if r.at <= at and at + spec.size <= r.at + r.size)
        assert run.spec.file == spec.file and spec.start - run.start == at - run.at


def test_a_base_s_order_makes_long_runs():
    """Two copies of a file of ten tensors without the middle: four runs, the longest in step with
    the pages of its source."""
    names = [n for n in range(10) if n not in (5, 6)]
    result = [
        spec(f"{copy}.{n}", "BF16", 5000, "a", 1000 + n * 10_000, copy)
        for n in names
        for copy in (1, 0)
    ]
    (shard,) = arrange(result, 1 << 40)
    moved = list(runs(shard.places))
    assert [run.size for run in moved] == [50_000, 30_000, 50_000, 30_000]
    assert (moved[0].at - moved[0].start) % PAGE == 0


def test_sparse_files_by_many_workers(tmp_path, monkeypatch):
    """Holes and data side by side: nobody's hole may cut off what another has written."""
    monkeypatch.setattr("surgery.checkpoint.writer.JOB", 1 << 14)
    monkeypatch.setattr("surgery.io.copy.CHUNK", 1 << 13)
    size = 1 << 24
    with open(tmp_path / "a", "wb") as file:
        file.truncate(size)
        for at in range(0, size - (1 << 20), 1 << 16):  # its end is a hole
            file.seek(at)
            file.write(at.to_bytes(8, "big") * 1024)
    result = [spec(str(n), "U8", size // 16, "a", n * size // 16) for n in range(16)]
    for attempt in range(5):
        folder = tmp_path / f"out{attempt}"
        folder.mkdir()
        shards = arrange(result, size // 2)
        opener = opener_of(tmp_path)
        write_shards(folder, shards, opener, Meter(silent, "", 0))
        places = {folder / shard.name: shard.places for shard in shards}
        assert differing(places, opener, Meter(silent, "", 0)) == []
        for shard in shards:
            assert (folder / shard.name).stat().st_size == shard.size
