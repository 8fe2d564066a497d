"""Other programs: what they print, and that they end with the work."""

import os
import select
import sys

import pytest

from surgery.errors import SaveError, SurgeryError
from surgery.io.process import run
from surgery.progress import Cancelled, silent


def program(code):
    return [sys.executable, "-c", code]


def test_what_is_printed_comes_back():
    code = "import sys; print(sys.stdin.read().upper())"
    assert run(program(code), "given", "it", "Running", "it failed", silent) == "GIVEN\n"


def test_a_failure_has_the_last_words():
    with pytest.raises(SaveError, match="it failed: no such thing"):
        run(
            program("import sys; sys.exit('no such thing')"),
            "",
            "it",
            "Running",
            "it failed",
            silent,
        )
    with pytest.raises(SurgeryError, match="it can't be started: No such file"):
        run(["/no/such/program"], "", "it", "Running", "it failed", silent)


def test_a_program_that_is_stopped_takes_its_own_with_it(tmp_path):
    """The inner one holds a pipe open, whose end tells that it is gone."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    inner = f"import time; f = open({str(pipe)!r}, 'w'); f.write('x'); f.flush(); time.sleep(600)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    def stop(what, done, total):
        if select.select([end], [], [], 0)[0] and os.read(end, 1):
            raise Cancelled

    try:
        with pytest.raises(Cancelled):
            run(program(outer), "", "it", "Running", "it failed", stop)
        assert select.select([end], [], [], 60)[0] and not os.read(end, 1)
    finally:
        os.close(end)
