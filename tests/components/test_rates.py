"""Allowances: used up, filled again, one for each session and a larger one for each address."""

from components.rates import PER_MINUTE, Rates, admit
from surgery import SurgeryError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def use_up(rates: Rates, what: str, session: str, address: str = "here") -> int:
    for count in range(10**5):
        try:
            rates.take(what, session, address)
        except SurgeryError as error:
            assert "wait" in str(error)
            return count
    raise AssertionError("there is no end to it")


def test_what_is_used_up_comes_back_with_time():
    clock = Clock()
    rates = Rates({"save": 6}, clock)
    assert use_up(rates, "save", "a") == 6
    clock.now += 20
    assert use_up(rates, "save", "a") == 2
    clock.now += 10**6
    assert use_up(rates, "save", "a") == 6


def test_one_session_takes_nothing_from_another_but_an_address_has_an_end():
    rates = Rates({"save": 6, "open": 2}, Clock())
    assert use_up(rates, "save", "a") == use_up(rates, "save", "b") == 6
    assert use_up(rates, "open", "a") == 2
    made = sum(use_up(rates, "save", f"made up {i}") for i in range(100))
    assert made + 12 == 40 * 6
    assert use_up(rates, "save", "c", "elsewhere") == 6


def test_at_home_nobody_counts():
    for _ in range(10 * PER_MINUTE["save"]):
        admit("save", None)
