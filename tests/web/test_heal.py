"""The heal panel without a browser: what it yields, what it keeps, what it refuses."""

import json

import gradio as gr
import pytest
from updates import shown

from components.page import build
from components.panels import heal as healing
from components.panels.heal.board import of_start
from components.panels.heal.figures import curve
from components.panels.heal.text_choice import DATA, FILE, GENERATED, MIXED, kind_of_text, with_text
from components.panels.heal.wiring import PAUSED, heal, price, read, shown_price
from components.panels.log import figures as log
from components.panels.xray import compare
from components.panels.xray.compare import Seen
from components.panels.xray.sample_picker import OWN
from components.services.deployment import Deployment
from components.services.run_job import run_job
from components.services.runs import Runs
from components.services.services import Services
from components.sessions.healed_store import HealedStore
from components.sessions.session import Session
from components.widgets.status.status import note
from surgery import Plan, SurgeryError, texts
from surgery.healing import EvalResult, run_checkpoint
from surgery.healing.evaluation import Perplexity
from surgery.operation import Operation
from surgery.progress import silent

WRITTEN = "0:2, 4:6"
PLAN = Plan.parse(WRITTEN, 6)
SHORT = ("layers next to seams", "distillation from the base", 3, 5, 2, 16, 3e-3, 4, 0)
TEXT = "A lamp stood in the window, and the snow went on falling over the quiet harbour. " * 4


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path))


@pytest.fixture(autouse=True)
def short_texts(monkeypatch):
    """Every step is evaluated, on texts of as many tokens as characters: on the first of them."""
    get = texts.get
    monkeypatch.setattr(texts, "get", lambda *which: get(*which)[:200])


@pytest.fixture
def spec(tiny_folder):
    return str(tiny_folder("llama"))


@pytest.fixture
def session(bases, spec):
    session = Session()
    session.open(spec, bases.get(spec))
    session.become(WRITTEN)
    return session


@pytest.fixture
def public():
    return Deployment.of(public=True, healing=True)


@pytest.fixture(scope="module")
def panel():
    with gr.Blocks():
        return healing.layout(Services.of())


class Page:
    """The panel of one visitor; `heal` gives every update by the component's name."""

    def __init__(self, services, session, panel):
        self.services, self.session, self.healed = services, session, HealedStore()
        self.runs, self.panel = services.runs, panel

    def heal(self, values=SHORT, text=(MIXED, None, None)):
        of = (self.panel, self.services, self.session, self.healed, "one", values, text)
        names = {getattr(self.panel, name): name for name in ("status", "board", "curve")}
        show = self.panel.only_status
        for update in run_job(self.services, "measure", None, heal(*of), show, stopped=PAUSED):
            if update == gr.skip():
                continue
            yield {names[component]: value for component, value in update.items()}

    def outcome(self, *values, **more):
        """The last update, which has to tell everything."""
        *_, last = self.heal(*values, **more)
        return last

    def patient(self, plan=PLAN):
        """The healed patient of a plan, if there is one."""
        return self.healed.operation(self.session.spec, plan).healed


@pytest.fixture
def page(services, session, panel):
    return Page(services, session, panel)


def test_a_run_is_shown_and_its_patient_kept(page):
    last = page.outcome()
    assert last["status"]["text"].startswith("Healed.")
    assert last["board"]["numbers"][0]["value"] == "3 of 3"
    drawn = last["curve"]["value"]["data"]
    assert last["curve"]["visible"] and len(drawn[0]["y"]) == 3 and len(drawn) == 4
    json.dumps(last["board"], allow_nan=False)
    of = {"spec": page.session.spec, "plan": WRITTEN}
    assert last["board"]["of"] == last["curve"]["value"]["of"] == of
    healed = page.patient()
    assert healed.facts["steps"] == 3 and "".join(healed.stream("Once", max_new_tokens=2))
    assert page.patient(Plan.parse("0:3, 4:6", 6)) is None
    page.runs.forget("one")
    assert not list(page.runs.folder.iterdir())


def test_the_base_is_in_use_while_it_teaches(page, monkeypatch):
    used = []

    def begin(base, *_, **__):
        used.append(id(base) in page.services.bases._used)
        raise SurgeryError("enough")

    monkeypatch.setattr("surgery.healing.HealingRun", begin)
    assert "enough" in page.outcome()["status"]["text"]
    assert used == [True] and not page.services.bases.used


def test_what_is_done_before_the_first_step_is_shown_as_it_comes(page, monkeypatch):
    monkeypatch.setattr("components.panels.heal.wiring._EVERY", 0.0)
    updates = page.heal((*SHORT[:2], 40, *SHORT[3:-1], 2))
    labels = (update["board"]["numbers"][0]["label"] for update in updates if "board" in update)
    assert next(labels) == "Before the first step"
    assert next(label for label in labels if label != "Before the first step") == "Step"
    updates.close()
    with page.healed.busy.taken(silent):  # it finishes its step first
        pass
    first = of_start("The base writes text", 0.25, [evaluation(2.0, 3.0)])
    stage, cut = first["numbers"]
    assert (stage["value"], stage["below"]) == ("The base writes text", "25 %")
    assert cut["value"] == "2.00 → 3.00" and first["quote"] == "The lamp"


def evaluation(base, cut):
    now = Perplexity(cut, cut - 0.5, cut + 0.5)
    return EvalResult(0, Perplexity(base, base, base), now, now, 50, None, "The\nlamp")


def test_paused_it_goes_on_where_it_was(page):
    long = (*SHORT[:2], 50, *SHORT[3:])
    updates = page.heal(long)
    for update in updates:
        if update["status"]["text"].startswith("Healing"):
            break
    updates.close()
    with page.healed.busy.taken(silent):  # it finishes its step first
        (folder,) = next(page.runs.folder.iterdir()).iterdir()
        done = run_checkpoint.states(folder)[-1]
    assert 0 < done < 50 and page.patient() is None
    boards = [update["board"]["numbers"][0] for update in page.heal(long) if "board" in update]
    steps = [board["value"] for board in boards if board["label"] == "Step"]
    assert int(steps[0].split()[0]) >= done
    assert page.patient().facts["steps"] == 50


def test_a_plan_that_is_shown_no_more_is_not_said_to_be_in_use(page, session):
    updates = page.heal()
    next(updates)
    session.become("0:3, 4:6")
    *_, last = updates
    assert last["status"]["text"].startswith("Healed, but the page shows another plan")
    assert page.patient() is not None


def test_before_the_first_step_there_is_nothing_to_resume(page):
    updates = page.heal()
    next(updates)
    page.healed.pausing.set()
    (update,) = updates
    assert update["status"]["text"] == "Stopped before the first step."


def test_who_leaves_while_it_runs_leaves_nothing_behind(page):
    updates = page.heal((*SHORT[:2], 400, *SHORT[3:]))
    for update in updates:
        if update["status"]["text"].startswith("Healing"):
            break
    page.runs.forget("one")
    updates.close()
    with page.healed.busy.taken(silent):
        assert not list(page.runs.folder.iterdir())


def test_the_log_tells_the_healed_from_the_unhealed(page, session):
    page.outcome()
    base, cut, healed = session.measurements
    assert [e.note for e in (base, cut, healed)] == ["the base", "", "healed, 3 steps"]
    assert cut.plan == healed.plan == WRITTEN and cut.perplexity != healed.perplexity
    result = page.patient().facts["perplexity"]
    assert (healed.perplexity, healed.tokens) == (result["healed"], result["tokens"])
    assert healed.low < healed.perplexity < healed.high and healed.parameters == cut.parameters
    points = log.picture(session.measurements, session.identity)["data"][1]
    assert points["marker"]["symbol"] == ["circle", "circle", "diamond"]
    assert len(set(points["marker"]["color"])) == 3 and "healed" in points["text"][2]
    assert log.table(session.measurements, "")["entries"][2]["note"] == "healed, 3 steps"
    page.outcome((*SHORT[:-1], 1))  # another seed: another patient, and another point
    assert [e.healing != "" for e in session.measurements] == [True, False, False, True]
    page.outcome((*SHORT[:-1], 1))
    assert len(session.measurements) == 4


def test_the_x_ray_sees_the_healed_patient_and_no_other_plan_s(page, session):
    with gr.Blocks():
        panel = compare.layout()
    seen = Seen()

    def compared():
        return shown(compare.run(panel, page.services, session, page.healed, seen, OWN, TEXT))

    before = compared()
    page.outcome((*SHORT[:6], 3e-2, *SHORT[7:]))
    after = compared()
    assert "healed" in after[panel.status]["text"] and "healed" not in before[panel.status]["text"]
    assert after[panel.damage]["tokens"] != before[panel.damage]["tokens"]
    assert after[panel.similarity] != before[panel.similarity]
    assert after[panel.norms] != before[panel.norms]
    assert after[panel.base_lens]["data"] and "healed" in after[panel.patient_lens]["title"]
    closer = shown(compare.look_closer(panel, page.services, session, seen, {"index": 12}))
    assert "healed" in closer[panel.status]["text"]
    own = [e for e in session.measurements if e.text == "own text"]
    assert [e.note for e in own] == ["", "the base", "healed, 3 steps"]
    assert compared()[panel.damage] == after[panel.damage]
    session.become("0:3, 4:6")
    assert "healed" not in compared()[panel.status]["text"]
    session.become(WRITTEN)
    page.healed = HealedStore()
    assert compared()[panel.damage] == before[panel.damage]


def test_a_text_of_one_s_own(page, session):
    rows = "\n".join(json.dumps({"text": TEXT}) for _ in range(3))
    for name, text in (("notes <b>.txt", TEXT), ("rows.jsonl", rows)):
        last = page.outcome(text=(FILE, {"name": name, "text": text}, None))
        assert last["status"]["text"].startswith("Healed."), last
        healed = page.patient()
        assert healed.facts["text"] == "a text file" and name not in json.dumps(healed.facts)
        facts = {run: run_checkpoint.facts_of(run).settings for run in _runs(page)}
        (run,) = (run for run in facts if facts[run].text.endswith(name[-4:]))
        read = base_text(page, run_checkpoint.text_of(run, facts[run].window))
        assert read.startswith(TEXT[:60]) and "{" not in read
    page.runs.forget("one")
    assert not list(page.runs.folder.iterdir())


def _runs(page):
    return [p.parent for p in page.runs.folder.rglob("run.json")]


def base_text(page, tokens):
    base = page.services.bases.get(page.session.spec)
    return base.tokenizer.decode(tokens.flatten().tolist())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ((FILE, None, None), "Choose a file"),
        ((FILE, {"name": "x", "text": 7}, None), "Choose a file"),
        ((FILE, {"name": 7, "text": "x"}, None), "Choose a file"),
        ((FILE, {"name": "/etc/passwd"}, None), "Choose a file"),
        ((FILE, {"name": "x", "text": " \n"}, None), "The file is empty"),
        ((FILE, {"name": "x", "text": "too short"}, None), "shorter than one sequence"),
        ((FILE, {"name": "x.jsonl", "text": "[1]\n" * 99}, None), "Line 1 of your text.jsonl"),
        ((FILE, {"name": "x", "text": "\ud800" * 99}, None), "not text in UTF-8"),
        ((DATA, None, None), "Name a data set"),
        ((DATA, None, "/etc/passwd"), "not a data set on the Hub"),
        ((DATA, None, "json"), "not a data set on the Hub"),
        ((DATA, None, "../up:x"), "not a data set on the Hub"),
        ((DATA, None, "org/name"), "can't be read (ConnectionError: no way out)"),
        (("a path", None, None), "from the list"),
        ((None, None, None), "from the list"),
    ],
)
def test_a_text_that_is_none_is_said(page, monkeypatch, text, said):
    import datasets

    def unreachable(*_, **__):
        raise ConnectionError("no way out")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    last = page.outcome(text=text)
    assert last["status"]["failed"] and said in last["status"]["text"]
    assert page.patient() is None


def test_a_data_set_by_name(page, monkeypatch):
    import datasets

    asked = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *a, **b: asked.append(a) or [{"text": TEXT}] * 9
    )
    assert page.outcome(text=(DATA, None, " org/name:part "))["status"]["text"].startswith("Healed")
    assert asked == [("org/name", "part")]
    healed = page.patient()
    assert healed.facts["text"] == "the data set org/name:part"


def test_a_public_page_takes_less(public):
    most, settings = public.max_training_text, read(SHORT, public)

    def ending(text):
        value = {"name": "x.txt", "text": text}
        return with_text(settings, FILE, value, "", public, lambda _, ending: ending).text

    with pytest.raises(SurgeryError, match=f"has {most + 1:,} bytes; at most {most:,}"):
        ending("x" * (most + 1))
    assert ending("é" * (most // 2)) == ".txt"
    with pytest.raises(SurgeryError, match="On a public page"):
        read((*SHORT[:2], 2000, *SHORT[3:]), public)
    assert read((*SHORT[:2], 0, 1000, *SHORT[4:]), public).minutes == 10
    with pytest.raises(SurgeryError, match="A public page can't use data sets"):
        with_text(settings, DATA, None, "org/name", public, None)
    with gr.Blocks():
        assert [value for value, _ in kind_of_text(public=True).choices] == [MIXED, GENERATED, FILE]


def test_healing_is_off_in_public_unless_it_is_allowed(session, panel):
    page = Page(Services.of(Deployment.of(public=True)), session, panel)
    last = page.outcome(text=(FILE, {"name": "x", "text": TEXT}, None))
    assert last["status"]["failed"] and "switched off" in last["status"]["text"]
    assert not list(page.runs.folder.iterdir())  # not even the text was kept


def test_a_public_page_has_no_heal_panel_unless_it_is_allowed():
    """tests/web/test_public_page.py has a page where it is."""
    page = build(services=Services.of(Deployment.of(public=True)))
    (tab,) = (block for block in page.blocks.values() if getattr(block, "label", "") == "Heal")
    assert isinstance(tab, gr.Tab) and not tab.visible


def test_the_same_text_is_the_same_run(tmp_path):
    runs, own = Runs(), Deployment()
    settings = read(SHORT, own)

    def place(text, who="one", files="files"):
        value = {"name": "x", "text": text}
        wanted = with_text(settings, FILE, value, "", own, lambda *t: runs.text(who, *t))
        return runs.place(who, files, Operation("spec", PLAN), wanted)

    assert place(TEXT) == place(TEXT) != place(TEXT + "x")
    assert place(TEXT) != place(TEXT, "two")
    assert place(TEXT) != place(TEXT, files="other files")  # whose run can't be resumed on these
    assert with_text(settings, MIXED, None, "", own, None) == settings
    assert with_text(settings, GENERATED, None, "", own, None).default_text == "own"


def test_what_it_would_cost(services, spec):
    board = price(services, Operation(spec, PLAN), SHORT)
    time, trains, _, memory = board["numbers"]
    assert time["below"] == "for 96 tokens"
    again = price(services, Operation(spec, PLAN), SHORT, repaired=True)["numbers"]
    assert again[0]["below"] == "for 96 tokens, from the repaired patient"
    assert memory["below"] == "fits in memory" and trains["below"].endswith("M parameters")
    assert {name for name, *_ in board["rows"]} >= {"gradients", "optimizer states", "logits"}
    assert max(share for *_, share in board["rows"]) == 1


def test_what_is_refused_is_said(page, spec):
    none = ("added layers", *SHORT[1:])
    last = page.outcome(none)
    assert last["status"]["failed"] and "adds no layers" in last["status"]["text"]
    with pytest.raises(SurgeryError, match="adds no layers"):
        price(page.services, Operation(spec, PLAN), none)
    with pytest.raises(SurgeryError, match="from the lists"):
        read(("everything", *SHORT[1:]), Deployment())


@pytest.mark.parametrize("train", ["layers next to seams", "added layers"])
def test_an_unchanged_plan_is_told_what_to_do_first(page, session, train):
    values = (train, *SHORT[1:])
    session.become("0:6")
    board = shown_price(page.services, session, page.healed, values)
    (update,) = page.heal(values)
    assert update == {"status": note(board["message"])} and not board["failed"]
    assert board["message"].startswith("The plan is the unchanged base")
    assert "numbers" in shown_price(page.services, session, page.healed, ("all layers", *SHORT[1:]))
    session.become(WRITTEN)
    assert "numbers" in shown_price(page.services, session, page.healed, SHORT)


def test_an_empty_picture_is_one():
    assert curve([], [])["data"][0]["y"] == []
