"""A checkpoint's folder as one file."""

import json
import zipfile

import pytest

from surgery import Base, Cancelled, Plan, SaveError
from surgery.io.archive import zip_folder
from surgery.progress import silent


@pytest.fixture
def saved(tiny_folder, tmp_path):
    return Base.open(str(tiny_folder("llama"))).save(Plan.parse("0:2, 4:6", 6), tmp_path / "mine")


def contents(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_it_holds_the_folder_and_takes_its_place(saved, tmp_path):
    (saved / "1_Pooling").mkdir()
    (saved / "1_Pooling" / "config.json").write_text("{}")
    files = contents(saved)
    reports = []
    out = zip_folder(saved, tmp_path / "mine.zip", lambda *report: reports.append(report))
    total = sum(map(len, files.values()))
    assert reports[-1] == ("Packing it for download", total, total)
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        assert {info.filename for info in archive.infolist()} == {f"mine/{name}" for name in files}
        archive.extractall(tmp_path / "unpacked")
    assert [path.name for path in tmp_path.iterdir() if path != tmp_path / "unpacked"] == [
        "mine.zip"
    ]
    unpacked = tmp_path / "unpacked" / "mine"
    assert contents(unpacked) == files and "1_Pooling/config.json" in files and not saved.exists()
    assert Base.open(str(unpacked)).depth == 4
    assert json.loads(files["config.json"])["num_hidden_layers"] == 4


def test_a_cancelled_one_leaves_no_archive(saved, tmp_path):
    def stop(what, done, total):
        raise Cancelled

    with pytest.raises(Cancelled):
        zip_folder(saved, tmp_path / "mine.zip", stop)
    assert not (tmp_path / "mine.zip").exists()


def test_what_is_there_stays(saved, tmp_path):
    (tmp_path / "mine.zip").write_text("mine")
    with pytest.raises(SaveError, match="exists already"):
        zip_folder(saved, tmp_path / "mine.zip", silent)
    assert (tmp_path / "mine.zip").read_text() == "mine"
    assert (saved / "model.safetensors").exists()


def test_a_place_that_is_none(saved, tmp_path):
    with pytest.raises(SaveError, match="could not be written"):
        zip_folder(saved, tmp_path / "no" / "mine.zip", silent)
    assert (saved / "model.safetensors").exists()
