"""The committed reference of the command line is the one that the commands make."""

from pathlib import Path

from surgery.cli.commands import COMMANDS
from surgery.cli.reference import markdown

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"


def test_it_is_up_to_date():
    again = "python -m surgery.cli.reference > docs/reference/cli.md"
    assert PAGE.read_text(encoding="utf-8") == markdown(), f"Run {again}"


def test_every_command_and_option_is_in_it():
    page = markdown()
    for name in COMMANDS:
        assert f"\n## {name}\n" in page
    for option in ("--held-out", "--learning-rate", "--lr", "--protect FIRST LAST", "--shard-size"):
        assert (f"| `{option}` |" in page) == (option != "--learning-rate")
