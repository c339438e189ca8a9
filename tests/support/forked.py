"""The ``metarl`` command, and any code, in processes of their own that start at once.

Importing torch and what comes with it takes seconds. One process imports it all, and forks for each call, so that a
call has memory, signals and streams of its own, as if it were started anew. What is the same in all of them is the
seed of Python's hashes: to compare runs across that as well, start one with ``subprocess``.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

COMMAND = "import sys; from metarl.experiments.command import main; sys.exit(main())"
IMPORTED = ("metarl.experiments.command", "metarl.experiments.compare", "metarl.experiments.training",
            "matplotlib.pyplot", "matplotlib.backends.backend_agg", "tqdm", "torch._dynamo")  # fmt: skip


class Process:
    """A process that was forked: an identifier, and files that take what it prints."""

    def __init__(self, arguments: tuple[str, ...], code: str, cwd: Path) -> None:
        self.args = arguments
        self._printed = tempfile.TemporaryDirectory()
        self._stdout, self._stderr = (Path(self._printed.name) / name for name in ("stdout", "stderr"))
        for path in (self._stdout, self._stderr):
            path.touch()  # a process may be killed before it opens them
        files = {"stdout": str(self._stdout), "stderr": str(self._stderr)}
        call = {"arguments": arguments, "code": code, "cwd": str(cwd.absolute())}
        self.pid = int(ask({"ask": "start", **files, **call}))

    def poll(self) -> int | None:
        """Return the status the process ended with, None where it runs."""
        status: int | None = ask({"ask": "status", "pid": self.pid})
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def finish(self, seconds: float = 900.0) -> subprocess.CompletedProcess[str]:
        """Wait until it ends, which it has to in so many seconds; return its status and what it printed."""
        deadline = time.monotonic() + seconds
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
                raise subprocess.TimeoutExpired(self.args, seconds)
            time.sleep(0.005)
        printed = [path.read_text(encoding="utf-8") for path in (self._stdout, self._stderr)]
        self._printed.cleanup()
        return subprocess.CompletedProcess(self.args, status, *printed)


def start(*arguments: str, cwd: Path, code: str = COMMAND) -> Process:
    """Begin the command, or other code, with arguments in a folder."""
    return Process(arguments, code, cwd)


def run(*arguments: str, cwd: Path, code: str = COMMAND) -> subprocess.CompletedProcess[str]:
    """Run the command, or other code, with arguments in a folder; return its status and what it printed."""
    return start(*arguments, cwd=cwd, code=code).finish()


@functools.cache
def _server() -> subprocess.Popen[str]:
    # Not the tests' folder but the one that one works in is where modules are looked for.
    command = [sys.executable, "-P", __file__]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=tempfile.gettempdir())


def close() -> None:
    """End the process that forks, where there is one."""
    if _server.cache_info().currsize:
        _server().communicate()
        _server.cache_clear()


def ask(request: Mapping[str, Any]) -> Any:
    """Send a request to the process that forks, which is started at the first one; return its answer."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    answer = server.stdout.readline()
    assert answer, "the process that forks has ended"
    return json.loads(answer)


def _serve() -> NoReturn:
    """Answer requests until the tests need no more."""
    import importlib

    for name in IMPORTED:
        importlib.import_module(name)
    ended: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if request["ask"] == "start":
            pid = os.fork()
            if pid == 0:
                _become(request)
            answer: int | None = pid
        else:
            pid = request["pid"]
            if pid not in ended:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    ended[pid] = os.waitstatus_to_exitcode(status)
            answer = ended.get(pid)
        print(json.dumps(answer), flush=True)
    os._exit(0)


def _become(request: Mapping[str, Any]) -> NoReturn:
    """Run what was asked for in this process, which was forked, and end it."""
    import random
    import threading
    import traceback

    import numpy as np

    for number, path in enumerate(("/dev/null", request["stdout"], request["stderr"])):
        file = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    # Where tests run in the background of a shell, SIGINT is ignored by what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    sys.argv = ["metarl", *request["arguments"]]
    # As the interpreter does for code, and the program does not.
    if not request["code"].endswith(COMMAND):
        sys.path.insert(0, "")
    # What a new process has, so that nothing rests on it.
    random.seed()
    np.random.seed()  # noqa: NPY002
    status: Any = 0
    try:
        exec(compile(request["code"], "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
    # What the interpreter does at its end, but for freeing each object, which takes a second after torch: pools of
    # threads are told to end, and all threads but daemons are waited for.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


if __name__ == "__main__":
    _serve()
