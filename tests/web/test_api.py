"""The endpoints by `gradio_client`, as MCP tools, and as docs/how-to/call-the-app.md shows them."""

import asyncio
import json
import re
import urllib.parse
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mcp
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from mcp.client.streamable_http import streamable_http_client
from transformers import AutoModelForCausalLM

from components import api
from components.page import build, launch_options
from components.services.services import Services
from surgery import Base, Plan
from surgery.skills import compare_skills, profile, repetition, skills_json

DOC = Path(__file__).parents[2] / "docs" / "how-to" / "call-the-app.md"


@pytest.fixture(scope="module")
def app(tiny_folder):
    """The app's address, with a tiny model to open first."""
    services = Services.of()
    demo = build(str(tiny_folder("llama")), services)
    demo.queue(max_size=64)
    _, url, _ = demo.launch(
        prevent_thread_lock=True, quiet=True, inbrowser=False, **launch_options(services)
    )
    yield url.rstrip("/")
    demo.close()


@pytest.fixture(scope="module")
def client(app):
    return Client(app, verbose=False)


@pytest.fixture(scope="module")
def spec(tiny_folder):
    return str(tiny_folder("llama"))


def test_nothing_but_the_endpoints_is_published(client):
    info = client.view_api(return_format="dict")
    assert set(info["named_endpoints"]) == {f"/{name}" for name in api.NAMES}
    assert not info["unnamed_endpoints"]
    for name in api.NAMES:
        endpoint = info["named_endpoints"][f"/{name}"]
        assert endpoint["description"]
        for parameter in endpoint["parameters"]:
            assert parameter["type"].get("type") in ("string", "integer", "number", "boolean")


def test_inspect_and_preview_say_what_the_library_says(client, spec):
    base = Base.open(spec)
    result = client.predict(base=spec, api_name="/inspect")
    assert (result["depth"], result["parameters"]) == (6, base.counts.total)
    result = client.predict(base=spec, plan="0:4, 2:6", api_name="/preview")
    assert result["parameters"] == base.preview(Plan.parse("0:4, 2:6", 6)).parameters
    assert result["before"]["layers"] == 6 and result["layers"] == 8
    recipe = (
        "slices:\n- sources:\n  - model: x\n    layer_range: [0, 2]\nmerge_method: passthrough\n"
    )
    assert client.predict(base=spec, plan=recipe, api_name="/preview")["layers"] == 2
    recipe += "parameters: {int8_mask: true}\n"
    (note,) = client.predict(base=spec, plan=recipe, api_name="/preview")["notes"]
    assert "int8_mask" in note


def test_generate_streams_and_ends_as_the_library_does(client, spec):
    job = client.submit(
        base=spec, plan="0:2, 4:6", prompt="hello", max_new_tokens=12, api_name="/generate"
    )
    final = job.result(timeout=120)
    stream = Base.open(spec).operate(Plan.parse("0:2, 4:6", 6))
    stream = stream.stream("hello", max_new_tokens=12, greedy=True)
    assert final == {"text": "".join(stream), "tokens": 12, "finished": "length"}
    assert len(job.outputs()) > 2 and job.outputs()[-1] == final


def test_what_is_saved_can_be_fetched_and_loaded(client, app, spec, tmp_path):
    result = client.predict(base=spec, plan="0:3", name="../three", api_name="/save")
    assert result["file"] == "three.zip"
    where = f"{app}/{urllib.parse.quote(result['address'], safe='/=')}"
    path, _ = urllib.request.urlretrieve(where, tmp_path / "x.zip")
    assert path.stat().st_size == result["bytes"]
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "three").config.num_hidden_layers == 3


def test_the_dtype_of_a_recipe_is_followed(client, app, spec, tmp_path):
    recipe = "slices: [{sources: [{model: x, layer_range: [0, 2]}]}]\ndtype: float16\n"
    result = client.predict(base=spec, plan=recipe, api_name="/save")
    path, _ = urllib.request.urlretrieve(f"{app}/{result['address']}", tmp_path / "x.zip")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    assert Base.open(str(tmp_path / result["file"].removesuffix(".zip"))).dtype == "float16"


def test_skills_are_those_of_the_library(client, spec, monkeypatch):
    monkeypatch.setattr(repetition, "PROMPTS", repetition.PROMPTS[:1])
    monkeypatch.setattr(repetition, "TOKENS", 8)
    options = dict(base=spec, plan="0:2, 4:6", items=8, seed=2)
    job = client.submit(**options, api_name="/skills")
    result = job.result(timeout=120)
    base, plan = Base.open(spec), Plan.parse("0:2, 4:6", 6)
    profiles = [profile(base, of, items=8, seed=2) for of in (None, plan)]
    texts = result.pop("repeated_4_grams")
    expected = skills_json(base, plan, compare_skills(*profiles), None, items=8, seed=2)
    assert expected.pop("repeated_4_grams") is None and result == expected
    assert 0 <= texts["patient"] <= 1
    assert all(one.keys() == {"progress", "share"} for one in job.outputs()[:-1])
    with pytest.raises(AppError, match="items can be 8 to 256 here"):
        client.predict(**{**options, "items": 257}, api_name="/skills")


def test_scan_and_suggest_measure(client, spec):
    text = "the quick brown fox jumps over the lazy dog " * 4
    result = client.predict(base=spec, text=text, limit=100, api_name="/scan")
    assert len(result["block_influence"]) == 6 and result["tokens"] <= 100
    result = client.predict(base=spec, layers=4, text=text, limit=100, api_name="/suggest")
    assert result["suggestions"] and {one["layers"] for one in result["suggestions"]} == {4}
    assert all(one["judged"] is None for one in result["suggestions"])  # it is one window
    result = client.predict(base=spec, layers=5, limit=200, api_name="/suggest")
    assert result["judged_on"] == "the short text “prose”, another part"
    (control,) = (x["plan"] for x in result["suggestions"] if x["method"] == "random")
    for one in result["suggestions"]:
        assert one["judged"]["cost"]["low"] <= one["judged"]["cost"]["high"]
        assert (one["judged"]["p"] is None) is (one["plan"] == control)


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("inspect", {"base": "/no/such/folder"}, "There is no folder"),
        ("preview", {"plan": "0:99"}, "reaches past the last layer"),
        ("preview", {"plan": "slices: [[[["}, "not valid YAML"),
        ("inspect", {"base": None}, "base has to be a string"),
        (
            "preview",
            {"plan": "slices: [{sources: [{model: x, layer_range: [0, 2]}]}]\ndtype: bfloat"},
            "“bfloat” is not a supported dtype",
        ),
        ("generate", {"plan": "0:2", "prompt": "x", "max_new_tokens": 10**9}, "1 to 512"),
        ("generate", {"plan": "0:2", "prompt": "x", "seed": "soon"}, "wrong type"),
        ("save", {"plan": "0:3@average"}, "@average"),
        ("scan", {"limit": 10**9}, "limit can be 1 to 4,096"),
        ("suggest", {"layers": 4, "text": "x"}, "too short"),
    ],
)
def test_what_can_not_be_done_is_one_plain_sentence(client, spec, name, values, said):
    with pytest.raises(AppError) as caught:
        client.predict(**{"base": spec, **values}, api_name=f"/{name}")
    message = str(caught.value)
    assert said in message and "\n" not in message and "Traceback" not in message


def test_the_main_job_by_mcp(app, spec):
    async def work() -> list:
        async with (
            streamable_http_client(f"{app}/gradio_api/mcp/") as (read, write, _),
            mcp.ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            result = [tools]
            for name, values in (
                ("preview", {"base": spec, "plan": "0:4"}),
                ("generate", {"base": spec, "plan": "0:4", "prompt": "hi", "max_new_tokens": 4}),
                ("save", {"base": spec, "plan": "0:4"}),
                ("preview", {"base": spec, "plan": "0:99"}),
            ):
                (tool,) = (t for t in tools if t.endswith(name))
                result.append(await session.call_tool(tool, values))
            return result

    # In a thread of its own: a browser test before this one may have left a loop running here.
    with ThreadPoolExecutor(1) as pool:
        tools, previewed, message, saved, wrong = pool.submit(asyncio.run, work()).result()
    assert len(tools) == len(api.NAMES)
    assert all(tool.description and "request" not in tool.inputSchema for tool in tools.values())
    assert '"layers": 4' in previewed.content[0].text.replace("'", '"')
    assert '"tokens": 4' in message.content[0].text.replace("'", '"')
    assert "4-layers.zip" in saved.content[0].text
    assert wrong.isError and "reaches past" in wrong.content[0].text


def test_the_examples_of_the_docs_run(app, bundled, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = DOC.read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.S)
    names: dict = {}
    for example in examples:
        exec(example.replace("http://127.0.0.1:7860", app), names)
    message = capsys.readouterr().out
    for shown in re.findall(r"^# prints (.+)$", text, re.M):
        assert shown in message
    for call in re.findall(r"```json\n(.*?)```", text, re.S):
        json.loads(call)
