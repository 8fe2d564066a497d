"""Uploads: what the Hub is asked for, and that the token stands nowhere."""

from types import SimpleNamespace

import pytest
from httpx import Request, Response
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import filter_repo_objects

from surgery import SaveError
from surgery.checkpoint.push import push

TOKEN = "hf_secretsecretsecret"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    return tmp_path


@pytest.fixture
def hub(monkeypatch):
    """A Hub that notes what it is asked, holds `files`, and fails with `error` in `place`."""
    asked = SimpleNamespace(calls=[], files=[".gitattributes"], error=None, place="")

    def method(name, answer=lambda: None):
        def call(self, *args, **kwargs):
            asked.calls.append((name, args, kwargs, self.token))
            if asked.place == name:
                raise asked.error
            return answer()

        return call

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", method("create_repo"))
    monkeypatch.setattr(
        "huggingface_hub.HfApi.list_repo_files", method("list_repo_files", lambda: asked.files)
    )
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", method("upload_folder"))
    monkeypatch.setattr("surgery.checkpoint.push.get_token", lambda: None)
    return asked


def http_error(status, text=""):
    response = Response(status, request=Request("POST", "https://hub.invalid"))
    return HfHubHTTPError(f"{status} {text}", response=response)


def test_a_push_is_private_and_one_commit(hub, folder):
    reports = []
    url = push(folder, "me/new", token=TOKEN, progress=lambda *update: reports.append(update))
    assert url.endswith("/me/new")
    (made, listed, sent) = hub.calls
    assert made[:3] == ("create_repo", ("me/new",), {"private": True, "exist_ok": True})
    assert sent[0] == "upload_folder" and sent[2]["folder_path"] == folder
    assert {call[3] for call in hub.calls} == {TOKEN} and listed[0] == "list_repo_files"
    assert reports and TOKEN not in repr(reports)


def test_what_is_there_is_not_added_to_without_being_asked(hub, folder):
    hub.files.append("model.safetensors")
    with pytest.raises(SaveError, match=r"has files already, such as model\.safetensors"):
        push(folder, "me/old", token=TOKEN)
    assert "upload_folder" not in [call[0] for call in hub.calls]
    push(folder, "me/old", token=TOKEN, overwrite=True)
    assert hub.calls[-1][0] == "upload_folder"


def test_overwriting_leaves_nothing_of_the_model_that_was_there(hub, folder):
    """A single file of weights would be loaded in place of new shards, an adapter applied to them,
    and another model's tokenizer or chat template used."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    stale = [
        "adapter_config.json",
        "additional_chat_templates/tool.jinja",
        "chat_template.jinja",
        "healing.json",
        "model-[1].safetensors",
        "model.safetensors",
        "pytorch_model.bin",
        "recipe.yaml",
        "resized_embeddings.json",
    ]
    other = ["README.md", "LICENSE", "notes.txt", "assets/layers.png", "onnx/model.safetensors"]
    hub.files += [path.name for path in folder.iterdir()] + stale + other
    push(folder, "me/old", token=TOKEN, overwrite=True)
    patterns = hub.calls[-1][2]["delete_patterns"]
    assert list(filter_repo_objects(hub.files, allow_patterns=patterns)) == sorted(
        stale, key=hub.files.index
    )


@pytest.mark.parametrize("place", ["create_repo", "list_repo_files", "upload_folder"])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (http_error(401, TOKEN), "does not accept the token"),
        (http_error(403, TOKEN), "may not write to me/new"),
        (http_error(500, f"Bearer {TOKEN} is odd"), "Run it again later"),
        (ConnectionError(f"{TOKEN} broke"), "Run it again"),
        (OSError(5, f"Input/output error {TOKEN}"), "Run it again"),
    ],
)
def test_every_failure_says_what_to_do_and_hides_the_token(hub, folder, place, error, message):
    hub.place, hub.error = place, error
    with pytest.raises(SaveError, match=message) as caught:
        push(folder, "me/new", token=TOKEN)
    assert TOKEN not in str(caught.value) and caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_what_is_no_upload(hub, folder, tmp_path):
    with pytest.raises(SaveError, match="Nobody is logged in"):
        push(folder, "me/new")
    with pytest.raises(SaveError, match="write it as org/name"):
        push(folder, "new", token=TOKEN)
    with pytest.raises(SaveError, match="no saved model"):
        push(tmp_path / "empty", "me/new", token=TOKEN)
    assert not hub.calls
