"""The package: pyproject.toml, and the contents of an installed copy."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import surgery
from surgery import SurgeryError
from surgery.optional import require

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_requirements_are_those_of_the_package():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = {line for line in lines if line and not line.startswith("#")}
    extras = PROJECT["optional-dependencies"]
    assert listed == {*PROJECT["dependencies"], *extras["app"], *extras["heal"]}


def test_the_page_and_training_are_extras():
    names = {requirement.partition(">")[0] for requirement in PROJECT["dependencies"]}
    assert not names & {"gradio", "plotly", "segno", "peft", "datasets"}


def test_the_version_is_told():
    done = subprocess.run(
        [sys.executable, "-m", "surgery", "--version"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.strip() == f"layer-surgery {surgery.__version__}"


def test_a_missing_package_is_named():
    with pytest.raises(SurgeryError, match="Training needs the package no_such_thing: pip install"):
        require("no_such_thing", "Training")
