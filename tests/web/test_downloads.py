"""Files that wait to be fetched: their folders, their addresses, and who finds them."""

import os
import secrets
import time

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from components.services import downloads
from components.services.client_address import Visitor
from components.services.downloads import Downloads


@pytest.fixture
def waiting():
    return Downloads()


@pytest.fixture
def client(waiting):
    return TestClient(Starlette(routes=[waiting.route()]))


def saved(waiting: Downloads, session: str, name: str = "a b.zip", size: int = 1000) -> str:
    path = waiting.folder_of(session) / name
    path.write_bytes(bytes(range(256)) * (size // 256 + 1))
    return waiting.offer(session, path)


def test_each_session_has_a_folder_that_nobody_can_guess(waiting):
    one, two = waiting.folder_of("one"), waiting.folder_of("two")
    assert one != two and "one" not in one.name and len(one.name) == 64
    (one / "x.zip").write_bytes(b"x")
    waiting.forget("one")
    assert not one.exists() and two.exists()
    an_age_ago = time.time() - 4000
    os.utime(two, (an_age_ago, an_age_ago))
    waiting.folder_of("three")
    assert not two.exists()


def test_a_save_that_was_stopped_clears_up_its_own_folder_only(waiting):
    """It may end after the next one of the same session has begun."""
    stopped = waiting.folder_of("one")
    begun = waiting.folder_of("one")
    assert stopped != begun and not stopped.exists() and begun.is_dir()
    waiting.forget("one")
    assert not begun.exists()


def test_a_file_is_fetched_whole_in_part_and_by_head(waiting, client):
    address = saved(waiting, "one", size=3 << 20)
    answer = client.get(address)
    assert answer.status_code == 200 and len(answer.content) == (3 << 20) + 256
    assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''a%20b.zip"
    part = client.get(address, headers={"range": "bytes=256-511"})
    assert part.status_code == 206 and part.content == bytes(range(256))
    assert client.head(address).headers["content-length"] == str(len(answer.content))


def test_an_address_tells_nothing_of_the_machine_nor_of_the_session(waiting):
    address = saved(waiting, "my-session")
    kind, secret, name = address.split("/")
    assert (kind, name) == ("downloads", "a%20b.zip") and len(secret) >= 32
    assert "my-session" not in address and waiting.folder.name not in address
    assert secret != saved(waiting, "my-session").split("/")[1]


def test_whoever_guesses_finds_nothing(waiting, client):
    address = saved(waiting, "one")
    (folder,) = waiting.folder.iterdir()
    other = saved(waiting, "two", "other.zip")
    secret, name = address.split("/")[1:]
    for wrong in (
        f"downloads/{secrets.token_urlsafe(24)}/{name}",
        f"downloads/{secret[:-1]}/{name}",
        f"downloads/{secret}/other.zip",
        f"downloads/{other.split('/')[1]}/{name}",
        f"downloads/{secret}/..%2f..%2fetc%2fpasswd",
        f"downloads/{secret}/",
        f"downloads/{folder.name}/{name}",
        f"downloads/one/{name}",
    ):
        answer = client.get(wrong)
        assert answer.status_code == 404 and str(waiting.folder) not in answer.text, wrong
    assert client.get(address).status_code == client.get(other).status_code == 200


def test_it_waits_until_the_session_saves_again_leaves_or_an_hour_is_over(
    waiting, client, monkeypatch
):
    first = saved(waiting, "one")
    second = saved(waiting, "one")
    assert client.get(first).status_code == 404 and client.get(second).status_code == 200
    waiting.forget("one")
    assert client.get(second).status_code == 404
    third = saved(waiting, "one")
    later = time.time() + 3700
    monkeypatch.setattr(downloads.time, "time", lambda: later)
    assert client.get(third).status_code == 404
    waiting.folder_of("two")
    assert not len(waiting)  # what nobody fetches any more is not kept in mind either


def test_an_address_keeps_half_of_the_room_at_most_whatever_its_sessions_are_called():
    waiting = Downloads(quota=8 << 20)
    crowd, other = Visitor("x", "10.0.0.1"), Visitor("y", "10.0.0.2")

    def save(session: str, who: Visitor) -> str:
        path = waiting.folder_of(session, who) / "x.zip"
        path.write_bytes(b"x" * (1 << 20))
        return waiting.offer(session, path, who)

    kept = save("other", other)
    made = [save(f"made up {i}", crowd) for i in range(8)]

    def waits(address: str) -> bool:
        return waiting.find(*address.split("/")[1:]) is not None

    assert [waits(address) for address in made] == [False] * 3 + [True] * 5
    assert waits(kept)
