"""What strangers may ask for, tried as they would."""

import copy

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from updates import run

from components.panels.base.wiring import open_for
from components.panels.talk.wiring import only_status, talk
from components.services.deployment import Deployment
from components.services.services import Services
from components.sessions.healed_store import HealedStore
from components.sessions.session import Session
from surgery import Base, BaseError, Plan, PlanError, SurgeryError
from surgery.operation import Operation
from surgery.recipes.recipe import read


@pytest.fixture
def public():
    """A public page's limits."""
    return Deployment.of(public=True)


@pytest.fixture
def strangers(public):
    """A public page's services."""
    return Services.of(public)


@pytest.fixture(scope="module")
def thirty():
    """A base of 30 layers, whose weights nobody reads."""
    return Base.open("bundled")


def test_on_ones_own_machine_all_is_allowed():
    own = Deployment.of()
    for spec in ("/etc/passwd", "config:x.json", "../x", "org/name"):
        own.check_spec(spec)
    own.check_size(10**15)
    own.check_config({"num_hidden_layers": 10**6})
    own.check_healing()
    assert own.words("There is no folder /home/me/models") == "There is no folder /home/me/models"


def test_a_space_is_public_by_itself(monkeypatch):
    monkeypatch.setenv("SPACE_ID", "me/space")
    assert Deployment.of() == Deployment.of(public=True)
    assert Deployment.of().on_space and not Deployment.of().healing
    assert Deployment.of(healing=True).healing


@pytest.mark.parametrize(
    "spec",
    [
        "/etc",
        "../..",
        "./x",
        "~",
        "~root",
        "org/../../etc",
        "org/name@../../../etc/passwd",
        "org/name@refs//x",
        "file:///etc/passwd",
        "file.gguf",
        "org/name.GGUF",
        "config:/etc/passwd",
        "config:file:///etc/passwd",
        "config:../config.json",
        "config:x.json",
        "config:~/x",
        "config:bundled,/etc/passwd=1",
        "https://example.com/model",
        "C:\\models",
        "\\\\server\\share",
        "org/name\0",
        "org/name\n/etc",
        "<img src=x onerror=alert(1)>/x",
        "org/ｎａｍｅ",
        "",
        "a" * 501,
    ],
)
def test_no_place_of_the_machine_can_be_named(strangers, spec):
    for check in (strangers.deployment.check_spec, strangers.bases.get):
        with pytest.raises(BaseError, match="On a public page"):
            check(spec)


@pytest.mark.parametrize(
    "spec",
    [
        "bundled",
        "gpt2",
        "org/name",
        "org/name@v1.0",
        "org/name@refs/pr/1",
        "config:bundled",
        "config:org/name@main, num_hidden_layers=12, hidden_act = gelu",
    ],
)
def test_the_hub_and_edited_configs_can(public, spec):
    public.check_spec(spec)


@given(st.text(alphabet="abc/.~\\:@,=-_ \0\n%", max_size=30))
def test_what_is_let_through_leads_to_no_file(spec):
    from surgery.sources import kind_of

    try:
        Deployment.of(public=True).check_spec(spec)
    except BaseError:
        return
    place = spec.removeprefix("config:").partition(",")[0]
    assert kind_of(place) in ("hub", "bundled") or "--" in place


def test_a_folder_that_is_there_looks_like_one_that_is_not(strangers, tmp_path, monkeypatch):
    """Strangers can't feel their way around the disk."""
    (tmp_path / "org" / "name").mkdir(parents=True)
    (tmp_path / "secrets").write_text("x")
    monkeypatch.chdir(tmp_path)
    for place in ("org/name", "secrets", "config:secrets", "config:org/name,num_hidden_layers=2"):
        with pytest.raises(BaseError, match=r"There is no model .* on the Hub"):
            strangers.bases.get(place)


def test_a_config_that_would_build_without_end_is_not_opened(public, strangers):
    public.check_config(tiny.config("llama").to_dict())
    public.check_config(tiny.config("gemma3").to_dict())
    for bad in (
        {"num_hidden_layers": 100_000},
        {"n_layer": 5000},
        {"text_config": {"num_experts": 10**6}},
        {"layer_types": ["full_attention"] * 2000},
    ):
        with pytest.raises(BaseError, match="opens no model with"):
            public.check_config(bad)
    with pytest.raises(BaseError, match="num_hidden_layers = 3,000"):
        strangers.bases.get("config:bundled,num_hidden_layers=3000")
    # Before any layer is made.
    for layers, message in ((90_000, "no more than 4,096 layers"), (10**11, "which no model has")):
        with pytest.raises(SurgeryError, match=message):
            strangers.bases.get(f"config:bundled,num_hidden_layers={layers}")
    assert not strangers.bases.names


def test_a_model_that_is_too_large_is_not_opened(strangers):
    with pytest.raises(BaseError, match=r"this public page allows 4\.0 GB"):
        strangers.bases.get("config:bundled,hidden_size=9216,num_hidden_layers=40")


def test_plans_prompts_texts_and_tokens_are_bounded(public, strangers, thirty):
    made = Session(public)
    made.open("bundled", thirty)
    made.apply({"op": "write", "text": "0:30*18", "revision": 1})
    assert "at most 512" in made.view()["error"] and len(made.plan) == 30
    with pytest.raises(SurgeryError, match=r"4,001 characters; at most 4,000"):
        public.check_prompt("x" * 4001)
    with pytest.raises(SurgeryError, match="at most 20,000"):
        public.check_text("x" * 20_001)
    with pytest.raises(SurgeryError, match="switched off"):
        public.check_healing()
    settings = (True, False, 10**9, 0, 1, 1)
    work = talk(strangers, Operation("bundled", Plan.whole(30)), "x" * 5000, *settings)
    (status, _), *_ = run(strangers, work, only_status)
    assert status["failed"] and "Shorten it" in status["text"]


def test_tokens_are_bounded(tiny_folder, monkeypatch):
    monkeypatch.setattr(Deployment, "check_spec", lambda self, spec: None)
    limited = Services.of(Deployment.of(public=True, max_new_tokens=5))
    operation = Operation(str(tiny_folder("llama")), Plan.whole(6))
    *_, (_, shown) = talk(limited, operation, "hello", True, False, 1e9, 0, 1, 1)
    assert 0 < shown["base"]["tokens"] <= 5


def test_undo_is_bounded_and_still_reaches_the_start(public, thirty):
    made = Session(public)
    made.open("bundled", thirty)
    for step in range(300):
        end = 30 - step % 2
        made.apply({"op": "write", "text": f"0:{end}", "revision": 1 + step})
    undone = 0
    while (view := made.view())["undo"]:
        made.apply({"op": "undo", "revision": view["revision"]})
        undone += 1
    assert undone == public.max_steps and made.plan.is_whole


def test_recipes_that_are_too_long_or_too_deep_are_no_recipes():
    for text in ("[" * 100_000, "a: " * 500, "x: &a [1]\ny: *a", "- " * 3000, "slices: 1" * 10**6):
        with pytest.raises(PlanError):
            read(text)
    bomb = "slices:\n" + "- sources: [{model: m, layer_range: [0, 4000]}]\n" * 4097
    with pytest.raises(PlanError):
        read(bomb)


def test_events_that_are_replayed_or_out_of_order_do_nothing(thirty):
    made = Session()
    made.open("bundled", thirty)
    drop = {"op": "drop", "strip": "patient", "start": 0, "end": 5, "revision": 1}
    made.apply(drop)
    assert len(made.plan) == 25
    made.apply(drop)  # once more
    assert len(made.plan) == 25 and "changed in the meantime" in made.view()["error"]
    made.apply({**drop, "revision": 99})  # from a time that has not come
    assert len(made.plan) == 25
    made.apply({**drop, "revision": made.view()["revision"]})
    assert len(made.plan) == 20


def test_no_session_reaches_anothers(thirty):
    first = Session()
    first.open("bundled", thirty)
    second = copy.deepcopy(first)
    second.open("bundled", thirty)
    second.apply({"op": "write", "text": "0:3", "revision": 1, "session": "first", "id": 1})
    assert len(first.plan) == 30 and len(second.plan) == 3


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("There is no file /home/me/x.json.", "There is no file …"),
        ("[Errno 2] No such file: '/tmp/a b/c'", "[Errno 2] No such file: '… b/c'"),
        ("C:\\Users\\me\\x is broken", "… is broken"),
        ("~/models can't be read", "… can't be read"),
        ("org/name has no config.json", "org/name has no config.json"),
        ("see https://huggingface.co/org/name", "see https://huggingface.co/org/name"),
        ("12 tokens/s and 3 / 4", "12 tokens/s and 3 / 4"),
    ],
)
def test_messages_hold_no_path_of_the_server(public, message, shown):
    assert public.words(BaseError(message)) == shown


def test_a_base_that_can_not_be_opened_is_said_without_paths(strangers):
    ((status, *_),) = open_for(strangers, Session(), HealedStore(), "/etc/passwd", "", None)
    assert status["failed"] and "passwd" not in status["text"]
