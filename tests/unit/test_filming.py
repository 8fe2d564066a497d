"""The film of the page: how time is edited, and colours that survive a GIF."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageSequence

from docs.filming import FPS, Frame, at_own_speed, evenly, save_gif


def png(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def shown(path) -> list[np.ndarray]:
    with Image.open(path) as gif:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(gif)]


def test_a_picture_lasts_as_long_as_it_did_and_a_wait_is_cut():
    frames = at_own_speed([(10, b"a"), (10.25, b"b"), (10.5, b"b"), (10.75, b"c"), (19, b"d")])
    assert [frame.png for frame in frames] == [b"a", b"b", b"c", b"d"]
    assert [frame.seconds for frame in frames[:3]] == [0.25, 0.5, 0.8]


def test_what_takes_too_long_is_shown_faster_and_ends_as_it_did():
    taken = [(i / 4, str(i).encode()) for i in range(400)]
    frames = at_own_speed(taken, 5)
    assert sum(frame.seconds for frame in frames) == pytest.approx(5)
    assert min(frame.seconds for frame in frames[:-1]) >= 1 / FPS and len(frames) > 4 * FPS
    assert frames[-1].png == b"399"
    assert at_own_speed(taken[:8], 5) == at_own_speed(taken[:8])


@pytest.mark.parametrize("count", [1, 5, 500])
def test_a_long_job_is_shown_from_its_first_picture_to_its_last(count):
    frames = evenly([(float(i), str(i).encode()) for i in range(count)], 4)
    assert frames[0].png == b"0" and frames[-1].png == str(count - 1).encode()
    assert sum(frame.seconds for frame in frames) == pytest.approx(4)


def test_colours_of_areas_are_exact_and_all_others_close(tmp_path):
    areas = np.zeros((64, 64, 3))
    areas[:32], areas[32:, :32], areas[32:, 32:] = (246, 248, 250), (122, 138, 228), (11, 96, 208)
    edges = np.random.default_rng(0).integers(0, 256, (2, 32, 16, 1)).repeat(3, axis=-1)
    pictures = []
    for edge in edges:  # greys in what changes
        pictures.append(areas.copy())
        pictures[-1][:32, :16] = edge
    save_gif([Frame(png(one), 0.1) for one in pictures], tmp_path / "film.gif")
    for one, drawn in zip(pictures, shown(tmp_path / "film.gif"), strict=True):
        assert np.array_equal(one[32:], drawn[32:]) and np.array_equal(one[:, 16:], drawn[:, 16:])
        assert np.abs(one - drawn).max() <= 8


def test_a_gif_repeats_and_loses_no_time(tmp_path):
    frames = [Frame(png(np.full((8, 8, 3), 40 * i)), 1 / 12) for i in range(6)]
    save_gif(frames, tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as gif:
        assert gif.info["loop"] == 0
        lengths = [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]
    assert set(lengths) == {80, 90} and sum(lengths) == 500
