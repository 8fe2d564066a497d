"""What makes this repository a Hugging Face Space: the README's head, and a start as on one, which
also shows what a start does without."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def front_matter() -> dict:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_the_readmes_head_is_a_spaces():
    head = front_matter()
    assert head["sdk"] == "gradio" and head["app_file"] == "app.py"
    assert (ROOT / head["app_file"]).is_file()
    assert head["sdk_version"] == version("gradio")
    assert head["python_version"] in ("3.12", "3.12.12", "3.10.13")  # what ZeroGPU has
    assert head["hf_oauth"] is True and head["hf_oauth_scopes"] == ["write-repos"]
    assert len(head["short_description"]) <= 60 and len(head["title"]) <= 60
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {head["colorFrom"], head["colorTo"]} <= colours
    from surgery.sources.bundled import HUB_ID

    assert HUB_ID in head["preload_from_hub"] and HUB_ID in head["models"]


@pytest.fixture(scope="module")
def started() -> dict:
    """What a process found that put the app together as on a Space, sign-in and all, with its
    variables. Gradio is imported as the app imports it."""
    code = """
import json, sys
from components.services import public_storage
storage = public_storage.prepare()
from components.gradio_compat import skip_stubs
skip_stubs.skip()
from components.services.deployment import Deployment
from components.services.services import Services
from components.page import build, launch_options
allowed, own = Deployment.of(), Services.of(Deployment())
build("bundled", own)
launch_options(own)
services = Services.of(allowed, storage)
demo = build("bundled", services)
demo.queue(max_size=64)
options = launch_options(services)
heavy = sorted({"torch", "transformers", "peft", "datasets"} & set(sys.modules))
app, _, _ = demo.launch(prevent_thread_lock=True, quiet=True, inbrowser=False, **options)
from fastapi.testclient import TestClient
client = TestClient(app, follow_redirects=False, base_url="https://testserver")
values = [c["props"].get("value") for c in demo.config["components"]]
signs_in = "Sign in with Hugging Face" in values
found = dict(public=allowed.public, on_space=allowed.on_space, signs_in=signs_in, heavy=heavy,
             oauth=demo.expects_oauth, page=client.get("/").status_code,
             upload=client.post("/gradio_api/upload").status_code)
demo.close()
print(json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={
            **os.environ,
            "SPACE_ID": "me/layer-surgery",
            "SYSTEM": "spaces",
            "SPACE_HOST": "me-layer-surgery.hf.space",
            "OAUTH_CLIENT_ID": "x",
            "OAUTH_CLIENT_SECRET": "y",
            "OAUTH_SCOPES": "openid profile write-repos",
            "OPENID_PROVIDER_URL": "http://127.0.0.1:9",
            "GRADIO_ANALYTICS_ENABLED": "False",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert not done.returncode, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_space_starts_public_with_sign_in(started):
    assert all(started[what] for what in ("public", "on_space", "oauth", "signs_in"))
    assert (started["page"], started["upload"]) == (200, 403)


def test_the_page_is_put_together_without_torch(started):
    """The owner's and the public one. The first picture doesn't wait for what takes seconds to
    import."""
    assert not started["heavy"]
