"""Client addresses behind proxies, and forged headers."""

import pytest

from components.services.client_address import UNKNOWN, client, party


@pytest.mark.parametrize(
    ("forwarded", "found"),
    [
        ([], "10.1.2.3"),
        (["8.8.8.8"], "8.8.8.8"),
        (["1.1.1.1, 8.8.8.8"], "8.8.8.8"),  # the first is forged by the client
        (["1.1.1.1", "8.8.8.8"], "8.8.8.8"),
        (["1.1.1.1, 8.8.8.8, 10.0.0.7"], "8.8.8.8"),  # a second, internal proxy
        (["8.8.8.8:4711"], "8.8.8.8"),
        (["[2606:4700::1]:443"], "2606:4700::1"),
        (["::ffff:8.8.8.8"], "8.8.8.8"),
        (["10.0.0.5"], "10.0.0.5"),
        (["nonsense"], "10.1.2.3"),
    ],
)
def test_behind_a_proxy_the_last_public_hop_counts(forwarded, found):
    assert client("10.1.2.3", forwarded, proxied=True) == found


@pytest.mark.parametrize("forwarded", ["8.8.8.8", "1.1.1.1, 8.8.8.8", "127.0.0.1"])
def test_without_a_proxy_the_header_says_nothing(forwarded):
    assert client("203.0.113.9", [forwarded], proxied=False) == "203.0.113.9"


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9%eth0", "2001:db8:1:2::/64"),
        ("made up", UNKNOWN),
        ("also made up", UNKNOWN),
        (None, UNKNOWN),
    ],
)
def test_who_is_counted_as_one(address, counted):
    assert party(address) == counted
