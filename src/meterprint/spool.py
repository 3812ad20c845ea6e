"""The spool: events that are on disk before `record` returns, and the dead letters.

A spool is a folder that several processes may share:

    FORMAT                 the number of its format
    <owner>.lock           locked for as long as its owner lives; the kernel unlocks it when that dies
    <owner>-<n>.jsonl      a segment: one event a line, as it is sent; removed when all are delivered
    <owner>-<n>.rollup     a journal: what one window of a rollup sums up
    dead/<id>.jsonl        dead letters, never changed after they were written

A line reaches the operating system before `append` returns, so that it survives the death of the process, `kill -9`
included. It is not forced onto the disk (228 us for each event): a power cut can lose the last seconds.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from .errors import ConfigurationError
from .event import Event, format_timestamp, parse_timestamp, utc_now

if sys.platform != "win32":
    from fcntl import LOCK_EX, LOCK_NB, flock

FORMAT = 1
_FORMAT_FILE = "FORMAT"
_DEAD = "dead"
SEGMENT, JOURNAL = ".jsonl", ".rollup"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that will not be delivered as it is, and why.

    Attributes:
        event: Its JSON object, as far as it has one.
        code: The error code of the metering API, or of the check that it failed.
        reason: What is wrong, and what to do.
        at: When it was given up.
    """

    event: Mapping[str, Any]
    code: str
    reason: str
    at: datetime = field(default_factory=utc_now)

    @property
    def event_id(self) -> str:
        """The id of the event, or an empty string."""
        return str(self.event.get("event_id", ""))

    def to_json(self) -> str:
        """One line of a file of dead letters."""
        letter = {"at": format_timestamp(self.at), "code": self.code, "reason": self.reason, "event": dict(self.event)}
        return json.dumps(letter, default=repr)

    @classmethod
    def from_json(cls, text: str) -> DeadLetter:
        """A dead letter from its line."""
        letter = json.loads(text)
        return cls(letter["event"], letter["code"], letter["reason"], parse_timestamp(letter["at"]))


class Segment:
    """A file that is appended to, a line at a time, each whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL, 0o600)
        self._size = 0

    def append(self, line: bytes) -> None:
        """Hand a line to the operating system.

        Raises:
            OSError: The disk is full, or failed; the file is as it was.
        """
        data = line + b"\n"
        written = os.write(self._file, data)
        if written != len(data):
            os.ftruncate(self._file, self._size)
            raise OSError(f"only {written} of {len(data)} bytes written: the disk is full")
        self._size += written

    def close(self) -> None:
        """No more lines; closing again does nothing."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


class Spool:
    """The part of a spool's folder that this process writes, and what dead processes left in it.

    Args:
        path: The folder; made when missing.

    Raises:
        ConfigurationError: It cannot be written, is no spool, or was made by a newer version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if sys.platform == "win32":
            raise ConfigurationError("a spool needs file locks, which this system does not have: leave spool= out")
        try:
            _prepare(self.path)
            self.owner = Event.new_id().replace("-", "")
            self._locks: dict[str, int] = {self.owner: self._own_lock()}
        except OSError as error:
            raise ConfigurationError(
                f"the spool {str(self.path)!r} cannot be written ({error.strerror}): name a folder that can"
            ) from error
        self._number = 0
        self._left: dict[str, set[Path]] = {}

    def segment(self, suffix: str = SEGMENT) -> Segment:
        """A new file to append to; the suffix tells segments from journals."""
        self._number += 1
        return Segment(self.path / f"{self.owner}-{self._number:08d}{suffix}")

    def adopt(self) -> list[Path]:
        """The files of processes that live no more, oldest first: they are ours to deliver now."""
        for owner in sorted({path.name.partition("-")[0].partition(".")[0] for path in self._files()}):
            if owner not in self._locks and self._lock(owner):
                self._left[owner] = {path for path in self._files() if path.name.startswith(f"{owner}-")}
                self._release_if_empty(owner)
        return sorted(path for paths in self._left.values() for path in paths)

    def _files(self) -> Iterator[Path]:
        return (path for path in self.path.iterdir() if path.suffix in (SEGMENT, JOURNAL, ".lock"))

    def remove(self, path: Path) -> None:
        """A file whose events are all delivered, or dead letters."""
        path.unlink(missing_ok=True)
        owner = path.name.partition("-")[0]
        if owner in self._left:
            self._left[owner].discard(path)
            self._release_if_empty(owner)

    def _release_if_empty(self, owner: str) -> None:
        if not self._left[owner]:
            del self._left[owner]
            self._unlock(owner, remove=True)

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Write dead letters.

        Raises:
            OSError: The disk is full, or failed.
        """
        write_dead_letters(self.path, letters)

    def close(self) -> None:
        """Leave the folder: what is still in it goes to the next process that opens it."""
        mine = any(path.name.startswith(f"{self.owner}-") for path in self._files())
        for owner in list(self._locks):
            self._unlock(owner, remove=owner == self.owner and not mine)

    def abandon(self) -> None:
        """In a forked child: the folder's files are the parent's."""
        for lock in self._locks.values():
            os.close(lock)

    def _lock_path(self, owner: str) -> Path:
        return self.path / f"{owner}.lock"

    def _own_lock(self) -> int:
        """The locked file of this owner. Others see it only once it is locked: a free one is a dead owner's."""
        hidden = self.path / f".{self.owner}"
        file = os.open(hidden, os.O_RDWR | os.O_CREAT, 0o600)
        flock(file, LOCK_EX | LOCK_NB)
        hidden.rename(self._lock_path(self.owner))
        return file

    def _lock(self, owner: str) -> bool:
        """Lock an owner's file, unless a living process has it."""
        file = os.open(self._lock_path(owner), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._locks[owner] = file
        return True

    def _unlock(self, owner: str, *, remove: bool) -> None:
        if remove:
            self._lock_path(owner).unlink(missing_ok=True)
        os.close(self._locks.pop(owner))


def _prepare(path: Path) -> None:
    """Make the folder, or see that it is a spool of a format that we know."""
    if path.exists() and not path.is_dir():
        raise ConfigurationError(f"the spool {str(path)!r} is a file of another program: a spool is a folder, name one")
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    marker = path / _FORMAT_FILE
    if not marker.exists():
        if any(not file.name.startswith(".") for file in path.iterdir()) and not marker.exists():
            raise ConfigurationError(f"the folder {str(path)!r} holds files of another program: name one of its own")
        _write(path, marker, f"{FORMAT}\n")
    text = marker.read_text(encoding="utf-8").strip()
    if not text.isdigit():
        raise ConfigurationError(f"the folder {str(path)!r} was made by another program: name one of its own")
    if int(text) > FORMAT:
        raise ConfigurationError(f"the spool {str(path)!r} was made by a newer version: update meterprint")


def _write(folder: Path, path: Path, text: str) -> None:
    """Write a file whole, or not at all."""
    draft = folder / f".{Event.new_id()}"
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def read_lines(path: Path) -> list[bytes]:
    """The lines of a segment. A last one without its end was never acknowledged: its process died in `record`."""
    return path.read_bytes().split(b"\n")[:-1]


def dead_letter_files(path: str | os.PathLike[str]) -> list[tuple[Path, list[DeadLetter]]]:
    """The dead letters of a spool, oldest first, by the file that holds them.

    Raises:
        ConfigurationError: The folder is no spool.
    """
    folder = Path(path)
    if not (folder / _FORMAT_FILE).is_file():
        raise ConfigurationError(f"{str(folder)!r} is no spool: name the folder that a recorder has as spool=")
    files = sorted((folder / _DEAD).glob("*.jsonl"))
    return [(file, [DeadLetter.from_json(line) for line in file.read_text("utf-8").splitlines()]) for file in files]


def write_dead_letters(folder: Path, letters: Iterable[DeadLetter]) -> None:
    """Write dead letters into a spool, in a file of their own."""
    (folder / _DEAD).mkdir(exist_ok=True, mode=0o700)
    name = f"{Event.new_id()}.jsonl"
    _write(folder, folder / _DEAD / name, "".join(f"{letter.to_json()}\n" for letter in letters))


def keep_dead_letters(file: Path, letters: Sequence[DeadLetter]) -> None:
    """Let a file of dead letters hold these and no others."""
    if letters:
        write_dead_letters(file.parent.parent, letters)
    file.unlink(missing_ok=True)
