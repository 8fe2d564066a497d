"""Saving to real file systems that are full, read-only, or taken away: not collected by default,
since they are mounted for it. Run on Linux, with user namespaces or as root:

    python -m pytest tests/faults.py
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = """
import subprocess, sys
from pathlib import Path
from surgery import Base, BaseError, Plan, SaveError
home, disk = sys.argv[1], Path(sys.argv[2])
base = Base.open(home)
def save(name, **more):
    try:
        return "saved " + base.save(Plan.whole(base.depth), disk / name, **more).name
    except (BaseError, SaveError) as error:
        return f"{type(error).__name__}: {error}"
"""


@pytest.fixture
def on_disk(tiny_folder, tmp_path):
    """Run code with a small file system of its own at `disk`; the lines that it prints."""
    disk = tmp_path / "disk"
    disk.mkdir()
    home = tiny_folder("llama")

    def run(code, options="size=24m"):
        mount = f'mount -t tmpfs -o {options} none "$1" && shift && exec "$@"'
        own = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"])]
        program = [sys.executable, "-c", CODE + code, str(home), str(disk)]
        done = subprocess.run(
            [*own, "sh", "-c", mount, "sh", str(disk), *program],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run, disk


def test_a_disk_without_room_is_said_before_the_first_byte(on_disk):
    run, _ = on_disk
    said = run("print(save('out')); print(list(disk.iterdir()))", "size=4m")
    assert said[0].startswith("SaveError: There is no room for it") and said[1] == "[]"


@pytest.mark.parametrize("moment", ["Writing weights", "Verifying"])
def test_a_disk_that_fills_up_on_the_way(on_disk, moment):
    """Someone else takes the room; when it is given back, the same save succeeds, and the model
    that was there before has stayed all along."""
    run, disk = on_disk
    said = run(f"""
print(save("out"))
before = (disk / "out" / "model.safetensors").read_bytes()
def fill(what, done, total):
    if what == {moment!r}:
        try:
            with open(disk / "filler", "ab", buffering=0) as file:
                while True: file.write(bytes(1 << 12))
        except OSError: pass
print(save("out", overwrite=True, progress=fill))
print(sorted(path.name for path in disk.iterdir()))
print(before == (disk / "out" / "model.safetensors").read_bytes())
(disk / "filler").unlink()
print(save("out", overwrite=True))
""")
    assert said == [
        "saved out",
        f"SaveError: The disk of {disk} is full. Free some space or choose another place.",
        "['filler', 'out']",
        "True",
        "saved out",
    ]


def test_a_disk_that_is_read_only(on_disk):
    run, disk = on_disk
    said = run("""
subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
print(save("out")); print(list(disk.iterdir()))
""")
    refused = f"SaveError: {disk} can't be written to. Choose a folder that you may write to."
    assert said == [refused, "[]"]


def test_a_disk_that_becomes_read_only_on_the_way(on_disk):
    run, disk = on_disk
    said = run("""
def lock(what, done, total):
    if what == "Checking that it loads":
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
print(save("out", progress=lock))
subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
print(save("out")); print(sorted(path.name for path in disk.iterdir()))
""")
    assert said[0].startswith(f"SaveError: {disk} can't be written to")
    # What could not be removed belongs to a process that lives; the next one sweeps it up.
    assert said[1] == "saved out" and "'out'" in said[2]
