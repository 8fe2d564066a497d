"""Python processes that start with surgery, torch and transformers imported.

Importing them takes seconds; a test that needs a process of its own need not wait for that. One
process imports them, once it is first asked for another, and waits. Each process that is asked for
is forked from it, with its own streams, environment and process id. Whoever knows its address can
ask, so that tests in several processes share it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).parents[1]
MODELS = ("LlamaForCausalLM", "Qwen3ForCausalLM", "PreTrainedTokenizerFast")
_NUMBER = struct.Struct("q")  # process ids and exit statuses, on the socket


class Warm:
    """Has processes forked from the one that listens at an address. `environment` is added to this
    one's, for all of them."""

    def __init__(self, address: str, **environment: str) -> None:
        self.address = address
        self._environment = environment

    def start(self, *arguments: str | Path, env: Mapping[str, str] | None = None,
              cwd: Path = ROOT, **streams):  # fmt: skip
        """What `subprocess.Popen([sys.executable, *arguments], cwd=cwd)` would start. The
        arguments begin with “-c” and code or with “-m” and a module. `env` is added to the
        environment. The streams are pipes, unless `stdin`, `stdout` or `stderr` is a file
        descriptor."""
        environment = {**os.environ, **self._environment, **(env or {})}
        return Started(self.address, [str(a) for a in arguments], environment, cwd, **streams)

    def run(self, *arguments: str | Path, env: Mapping[str, str] | None = None):
        """Start it, wait for its end, and return what it printed as text: what `subprocess.run`
        would return."""
        process = self.start(*arguments, env=env)
        out, err = (printed.decode() for printed in process.communicate())
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    @property
    def executable(self) -> str:
        """A program that does what `sys.executable` does, for others to start."""
        return str(Path(self.address).with_name("python"))


class Server(Warm):
    """Starts the process that others are forked from, with `environment` added to this one's."""

    def __init__(self, **environment: str) -> None:
        folder = Path(tempfile.mkdtemp())
        super().__init__(str(folder / "socket"), **environment)
        program = folder / "python"
        command = [sys.executable, "-I", "-S", __file__, "forward", self.address]
        program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        program.chmod(0o700)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.address)
            listener.listen()
            self._process = subprocess.Popen(
                [sys.executable, __file__, "serve", str(listener.fileno())],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )

    def close(self) -> None:
        """Kill it and all that were forked from it."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        shutil.rmtree(Path(self.address).parent)


def _rest(file: BinaryIO | None) -> bytes:
    return file.read() if file else b""


class Started:
    """A forked process, to be used as a `subprocess.Popen`."""

    def __init__(self, address: str, arguments: list[str], environment: dict[str, str],
                 cwd: Path = ROOT, **streams: int) -> None:  # fmt: skip
        self.returncode: int | None = None
        theirs = []
        for name in ("stdin", "stdout", "stderr"):
            if (given := streams.get(name)) is not None:
                setattr(self, name, None)
                theirs.append(os.dup(given))
                continue
            reading, writing = os.pipe()
            mine, its = (writing, reading) if name == "stdin" else (reading, writing)
            setattr(self, name, open(mine, "wb" if name == "stdin" else "rb"))  # noqa: SIM115
            theirs.append(its)
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(address)
        request = json.dumps([arguments, environment, str(cwd)]).encode()
        sent = socket.send_fds(self._connection, [request], theirs)
        self._connection.sendall(request[sent:])
        self._connection.shutdown(socket.SHUT_WR)
        for descriptor in theirs:
            os.close(descriptor)
        self.pid = self._number()

    def _number(self, flags: int = 0) -> int:
        return _NUMBER.unpack(self._connection.recv(_NUMBER.size, flags))[0]

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        if self.returncode is None:
            try:
                self.returncode = self._number(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
        return self.returncode

    def wait(self) -> int:
        """Wait for its exit status."""
        if self.returncode is None:
            self.returncode = self._number()
        return self.returncode

    def communicate(self) -> tuple[bytes, bytes]:
        """What it prints until it ends, to stdout and to stderr."""
        if self.stdin:
            self.stdin.close()
        with ThreadPoolExecutor(2) as pool:
            out, err = pool.map(_rest, (self.stdout, self.stderr))
        self.wait()
        return out, err

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)


# ---------------------------------------------------------------- in the process that is forked


@cache
def _import_everything() -> None:
    gc.disable()
    import transformers

    import surgery

    for module in pkgutil.walk_packages(surgery.__path__, "surgery."):
        if not module.name.endswith(("__main__", "harness.model")):  # the latter needs lm-eval
            importlib.import_module(module.name)
    # The command line looks when it is imported whether somebody reads it in a terminal.
    for name in [name for name in sys.modules if name.startswith("surgery.cli")]:
        del sys.modules[name]
    for name in MODELS:
        getattr(transformers, name)
    gc.freeze()  # what was imported is no garbage, and its memory stays shared
    gc.enable()


def _read_settings_again() -> None:
    """Those that the Hub's client takes from the environment when it is imported."""
    from huggingface_hub import constants, hf_api

    importlib.reload(constants)
    hf_api.api.endpoint = constants.ENDPOINT


def _serve(listener: socket.socket) -> None:
    """Fork a process for each request, until the one that started this one ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for `_watch`
    while sys.stdin.fileno() not in select.select([listener, sys.stdin], [], [])[0]:
        _import_everything()
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return _watch(connection)
        connection.close()


def _watch(connection: socket.socket) -> None:
    """Fork the process that is asked for, and send its id and its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, descriptors, *_ = socket.recv_fds(connection, 65536, 3)
    while more := connection.recv(65536):
        request += more
    if pid := os.fork():
        for descriptor in descriptors:
            os.close(descriptor)
        connection.sendall(_NUMBER.pack(pid))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        connection.sendall(_NUMBER.pack(status))
        os._exit(0)
    connection.close()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    arguments, environment, cwd = json.loads(request)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    encoding = os.environ.get("PYTHONIOENCODING")
    sys.stdin = open(0, encoding=encoding, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding, "backslashreplace", closefd=False)  # noqa: SIM115
    _read_settings_again()
    # Where tests run side by side they are told to ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _run(*arguments)


def _run(option: str, what: str, *arguments: str) -> None:
    """Run the code or module and end the process as Python does, but without taking torch apart,
    which would take a second."""
    sys.argv = [option, *arguments]
    status: object = 0
    try:
        if option == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        status = end.code
        if not isinstance(status, int | None):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status or 0)


def _forward(address: str, *arguments: str) -> None:
    """Have a process forked that has this one's streams, and end as it does."""
    unbuffered = arguments[0] == "-u"  # read once it has ended, so it makes no difference
    streams = dict(stdin=0, stdout=1, stderr=2)
    process = Started(address, list(arguments[unbuffered:]), dict(os.environ), **streams)
    signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
    sys.exit(process.wait() % 256)


if __name__ == "__main__":
    if sys.argv[1] == "forward":
        _forward(*sys.argv[2:])
    sys.path[0] = str(ROOT)
    _serve(socket.socket(fileno=int(sys.argv[2])))
