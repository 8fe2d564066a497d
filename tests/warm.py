"""Python processes that start with surgery, torch and transformers imported.

Importing them takes seconds; a test that needs a process of its own need not wait for that. One
process imports them and waits; each run is forked from it.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODELS = ("LlamaForCausalLM", "Qwen3ForCausalLM", "PreTrainedTokenizerFast")


class Warm:
    """`run` is what subprocess.run([sys.executable, "-c", code, *arguments]) would be, with the
    output captured as text. `environment` is added to this process's."""

    def __init__(self, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, code: str, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess:
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            request = {"code": code, "arguments": arguments, "files": [str(out), str(err)]}
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], timeout)[0]:
                self.close()
                raise TimeoutError(f"not done after {timeout} s: {code}\n{err.read_text()}")
            status = int(self._process.stdout.readline())
            return subprocess.CompletedProcess(code, status, out.read_text(), err.read_text())

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


def _import_everything() -> None:
    import transformers

    import surgery

    for module in pkgutil.walk_packages(surgery.__path__, "surgery."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in MODELS:
        getattr(transformers, name)


def _next_request() -> dict:
    """In a process forked for it. The one that waits for requests never returns from here."""
    for line in sys.stdin.buffer:
        if pid := os.fork():
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            sys.stdout.write(f"{status}\n")
            sys.stdout.flush()
        else:
            return json.loads(line)
    sys.exit()


def _run(code: str, arguments: list[str]) -> None:
    """Run the code and end the process as Python does, but without taking torch apart, which
    would take a second."""
    sys.argv = ["-c", *arguments]
    try:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    _import_everything()
    request = _next_request()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, file in enumerate(request["files"], start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    _run(request["code"], request["arguments"])
