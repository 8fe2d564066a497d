"""Allowances: used up, filled again, one for each session and a larger one for each address."""

import pytest

from components.services.rates import PER_MINUTE, Rates
from components.services.services import Services
from surgery import SurgeryError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def use_up(rates: Rates, what: str, session: str, address: str = "10.0.0.1") -> int:
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
    assert use_up(rates, "save", "c", "10.0.0.2") == 6


def test_a_session_that_somebody_else_calls_theirs_has_its_own_allowance():
    rates = Rates({"save": 6}, Clock())
    assert use_up(rates, "save", "a", "10.0.0.1") == 6
    assert use_up(rates, "save", "a", "10.0.0.2") == 6


def test_a_network_of_ipv6_is_one_address():
    rates = Rates({"save": 6}, Clock())
    made = sum(use_up(rates, "save", f"s{i}", f"2001:db8::{i:x}") for i in range(1, 100))
    assert made == 40 * 6
    assert use_up(rates, "save", "a", "2001:db8:0:1::1") == 6


def test_how_many_may_share_an_address_can_be_said():
    rates = Rates({"save": 2}, Clock())
    count = 0
    with pytest.raises(SurgeryError, match="wait"):
        for i in range(100):
            rates.take("save", f"s{i}", "10.0.0.1", people=3)
            count += 1
    assert count == 6


def test_at_home_nobody_counts():
    services = Services.of()
    for _ in range(10 * PER_MINUTE["save"]):
        services.admit("save", None)
