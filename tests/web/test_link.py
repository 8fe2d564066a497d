"""What a link says, whoever wrote it."""

import pytest
import segno
from hypothesis import given
from hypothesis import strategies as st

from components.panels.link import address
from components.panels.link.address import SETTINGS, code
from components.services.deployment import Deployment


def read(query):
    return address.read(query, Deployment.of())


def test_a_link_as_the_page_writes_it():
    wanted = read(
        {
            "base": "org/name@main",
            "plan": "0:13, 17:30",
            "prompt": "The sun & the moon",
            "greedy": "0",
            "chat": "1",
            "tokens": "128",
            "seed": "7",
            "temperature": "0.75",
            "top_p": "1",
            "lesson": "3",
        }
    )
    assert (wanted.base, wanted.plan) == ("org/name@main", "0:13, 17:30")
    assert wanted.prompt == "The sun & the moon"
    assert tuple(wanted.settings) == SETTINGS
    assert tuple(wanted.settings.values()) == (False, True, 128, 7, 0.75, 1.0)


def test_an_empty_prompt_is_one_and_none_is_none():
    assert read({"prompt": ""}).prompt == "" and read({}).prompt is None


@pytest.mark.parametrize(
    "query",
    [
        {"base": "x" * 501},
        {"base": "\\\\server\\share"},
        {"base": "//server/share"},
        {"base": "config:\\\\server\\share\\config.json"},
        {"plan": "0," * 20_000},
        {"prompt": "x" * 100_000},
        {"tokens": "1e99"},
        {"tokens": "-8"},
        {"seed": "nan"},
        {"temperature": "inf"},
        {"temperature": "<script>"},
        {"top_p": ""},
        {"greedy": "yes"},
    ],
)
def test_what_is_no_value_of_its_kind_is_left_out(query):
    wanted = read(query)
    assert (wanted.base, wanted.plan, wanted.prompt, wanted.settings) == ("", "", None, {})


@given(st.dictionaries(st.sampled_from([*SETTINGS, "base", "plan", "prompt"]), st.text()))
def test_no_link_breaks_the_page(query):
    wanted = read(query)
    assert set(wanted.settings) <= set(SETTINGS)


def test_on_a_public_page_its_limits_hold():
    query = {"tokens": "512", "prompt": "x" * 5000}
    wanted = address.read(query, Deployment.of(public=True))
    assert wanted.settings == {} and wanted.prompt is None


def test_the_code_is_the_addresss_and_has_its_quiet_zone():
    link = "http://lecture.example:7860/?plan=0:13,+17:30"
    drawn = code(link)
    matrix = segno.make(link, error="l", micro=False).matrix
    assert drawn["size"] == len(matrix) + 8
    runs = filter(None, drawn["path"].split("M"))
    dark = {tuple(int(n) - 4 for n in run.partition("h")[0].split()) for run in runs}
    assert dark == {(x, y) for y, row in enumerate(matrix) for x, one in enumerate(row) if one}


@pytest.mark.parametrize("link", ["javascript:alert(1)", "", "http://x/" + "a" * 3000])
def test_no_code_for_what_is_no_address_or_too_long(link):
    assert code(link)["size"] == 0
