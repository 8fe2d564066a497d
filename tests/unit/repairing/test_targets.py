"""Which hidden states a layer should return, and from where layers are fitted."""

import pytest

from surgery import Plan
from surgery.repairing.targets import starts, target_depths


@pytest.mark.parametrize(
    "text, depths",
    [
        ("0:10", range(1, 11)),
        ("0:4, 6:10", [1, 2, 3, 6, 7, 8, 9, 10]),  # layer 3 leads to what layer 6 was given
        ("2:10", range(3, 11)),
        ("0:8", [1, 2, 3, 4, 5, 6, 7, 10]),  # and the last layer to what the final norm was given
        ("0:6, 2:10", [1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 7, 8, 9, 10]),  # a copy keeps what it is given
        ("0:2, 4:6, 7:10", [1, 4, 5, 7, 8, 9, 10]),
        ("5, 0:5, 6:10", [6, 6, 6, 6, 6, 6, 7, 8, 9, 10]),
    ],
)
def test_targets(text, depths):
    found = target_depths(Plan.parse(text, 10))
    assert found == tuple(depths)


@pytest.mark.parametrize(
    "text, first, last",
    [
        ("0:10", (), ()),
        ("0:4, 6:10", (3,), (3,)),
        ("2:10", (0,), (0,)),
        ("0:8", (7,), (7,)),
        ("0:6, 2:10", (6,), (9,)),
        ("0:4, 2:4*2, 4:10", (4,), (7,)),
        ("0:2, 4:6, 7:10", (1, 3), (1, 3)),
    ],
)
def test_where_fits_begin(text, first, last):
    plan = Plan.parse(text, 10)
    assert starts(plan) == first and starts(plan, last=True) == last
