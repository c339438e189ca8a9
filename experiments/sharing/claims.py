"""Claims on pieces of work: of several processes with a common folder, which one does what, and whether it lives.

A claim is a file ``<name>.<n>``, with n = 1, 2, ... for each time that the work was taken. It is created exclusively,
which file systems of one machine and NFS from version 3 on do for all processes alike, and it is never deleted or
renamed: the claim with the highest number is the one that counts, and whoever takes the work of a dead process creates
the next. A claim that has ended says how.

A process is known to be dead by two signs. On its own machine it held a lock (``flock``) on the file, which ends with
it. On other machines that lock may not be seen, so a holder touches the file every ``BEAT_SECONDS``; if its time
has not changed for ``GRACE_SECONDS`` of the watching process's own clock, the holder counts as dead. Opening a file
lets NFS ask the server for its time, whatever was cached. A holder that was only held up finds that it was replaced.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRACE_SECONDS = 120.0
BEAT_SECONDS = 15.0
POLL_SECONDS = 1.0  # between looks at what others do
FOLDER = ".claims"

DONE, FAILED, LEFT = "done", "failed", "left"


@dataclass(frozen=True)
class Claimed:
    """What is known of the claims on a piece of work.

    Attributes:
        number: of the latest claim, 0 if there was none.
        held: by a process that lives.
        ended: ``done``, ``failed`` or ``left``; empty for a claim that is held, or whose holder died.
        failure: the sentence of a failure.
        holder: machine and process, for messages.
    """

    number: int = 0
    held: bool = False
    ended: str = ""
    failure: str = ""
    holder: str = ""


class Claims:
    """The claims in a folder, as this process sees them.

    Args:
        folder: of the claims; it need not exist.
        grace: seconds without a sign of life after which a process of another machine counts as dead.
    """

    def __init__(self, folder: Path, grace: float = GRACE_SECONDS) -> None:
        self.folder = folder
        self._grace = grace
        self._numbers: dict[str, int] = {}
        self._seen: dict[Path, tuple[int, float]] = {}  # when a file's time was first seen, on this process's clock

    def prepare(self) -> None:
        """Make the folder if it is missing.

        Raises:
            ValueError: it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.folder))
        except OSError as error:
            raise ValueError(
                f"the folder {str(self.folder.parent)!r} cannot be written: {error.strerror}; name one that can, since "
                "processes say in it which runs are theirs"
            ) from error

    def state(self, name: str) -> Claimed:
        """Return what is known of a piece of work now."""
        number = self._numbers.get(name, 0)
        while os.path.lexists(self.folder / f"{name}.{number + 1}"):
            number += 1
        self._numbers[name] = number
        if number == 0:
            return Claimed()
        path = self.folder / f"{name}.{number}"
        with path.open("rb") as file:
            locked = _is_locked(file.fileno())
            changed = os.fstat(file.fileno()).st_mtime_ns
            record = _record(file.read())
        if record.get("ended"):
            return Claimed(number, ended=record["ended"], failure=record.get("failure", ""))
        here = record.get("host") == _host() and locked is not None
        held = bool(locked) if here else bool(locked) or self._is_heard_of(path, changed)
        return Claimed(number, held=held, holder=f"process {record.get('process')} on {record.get('machine')}")

    def _is_heard_of(self, path: Path, changed: int) -> bool:
        now = time.monotonic()
        before, since = self._seen.setdefault(path, (changed, now))
        if before != changed:
            self._seen[path] = changed, now
            return True
        return now - since < self._grace

    def take(self, name: str, after: int) -> Claim | None:
        """Return this process's claim on a piece of work; None if another process was faster.

        Args:
            name: of the work.
            after: the number of the latest claim, which does not hold any more.

        Raises:
            OSError: the folder cannot be written.
        """
        path = self.folder / f"{name}.{after + 1}"
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return None
        try:
            return Claim(path, file, self.folder / f"{name}.{after + 2}")
        except OSError as error:
            os.close(file)
            raise OSError(error.errno, error.strerror, str(path)) from error

    @contextlib.contextmanager
    def waiting_for(self, name: str) -> Iterator[None]:
        """Do something that only one process may do at a time, when all others are done with it."""
        while (claim := None if (state := self.state(name)).held else self.take(name, state.number)) is None:
            time.sleep(POLL_SECONDS / 10)
        try:
            yield
        finally:
            claim.end(DONE)


class Claim:
    """A piece of work that is this process's, until it says how it ended, or ends itself."""

    def __init__(self, path: Path, file: int, following: Path) -> None:
        self._path, self._file, self._following = path, file, following
        with contextlib.suppress(OSError):  # some file systems of networks have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        self._write({"host": _host(), "machine": socket.gethostname(), "process": os.getpid()})
        self._ended = threading.Event()
        threading.Thread(target=self._live, daemon=True).start()

    @property
    def lost(self) -> bool:
        """Whether another process took the work, since this one had not been heard of for long."""
        return os.path.lexists(self._following)

    def end(self, how: str, failure: str = "") -> None:
        """Say how the work ended; a lost claim says nothing."""
        self._ended.set()
        if not self.lost:
            self._write({"ended": how, "failure": failure})
        os.close(self._file)

    def _write(self, record: dict[str, Any]) -> None:
        os.write(self._file, json.dumps(record).encode() + b"\n")
        with contextlib.suppress(OSError):
            os.fsync(self._file)  # other machines see what has reached the server

    def _live(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self._path)


def _host() -> str:
    """Return what is the same for two processes exactly if they see each other's locks: this boot of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def _is_locked(file: int) -> bool | None:
    """Return whether a living process holds a file's lock, as far as this machine sees; None without locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _record(written: bytes) -> dict[str, Any]:
    """Return what a claim's file says; a line that is not complete yet is passed over."""
    record: dict[str, Any] = {}
    for line in written.splitlines():
        with contextlib.suppress(ValueError):
            record |= json.loads(line)
    return record
