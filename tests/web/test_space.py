"""What makes this repository a Hugging Face Space: the README's head, and a start as on one."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

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


def test_a_space_starts_public_with_sign_in():
    """The app is put together as on a Space, sign-in and all, in a process with its variables."""
    code = """
import json, sys
from components.services import public_storage
storage = public_storage.prepare()
from components.gradio_compat import skip_stubs
skip_stubs.skip()
from components.services.deployment import Deployment
from components.services.services import Services
from components.page import build, launch_options
allowed = Deployment.of()
services = Services.of(allowed, storage)
demo = build("bundled", services)
demo.queue(max_size=64)
options = launch_options(services)
app, _, _ = demo.launch(prevent_thread_lock=True, quiet=True, inbrowser=False, **options)
from fastapi.testclient import TestClient
client = TestClient(app, follow_redirects=False, base_url="https://testserver")
values = [c["props"].get("value") for c in demo.config["components"]]
signs_in = "Sign in with Hugging Face" in values
found = json.dumps([allowed.public, allowed.on_space, signs_in, demo.expects_oauth,
                  client.get("/").status_code, client.post("/gradio_api/upload").status_code])
demo.close()
print(found)
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
    public, on_space, signs_in, oauth, page, upload = json.loads(done.stdout.splitlines()[-1])
    assert public and on_space and oauth and signs_in
    assert (page, upload) == (200, 403)
