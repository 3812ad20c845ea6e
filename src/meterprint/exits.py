"""The ends of a process: what is left is delivered at its exit and at SIGTERM, and a forked child begins anew."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
from types import FrameType
from typing import Protocol


class Ending(Protocol):
    """What is told of the ends."""

    def _end(self) -> None:
        """The process ends: deliver what is left, within bounds."""

    def _after_fork(self) -> None:
        """This is a forked child: threads, connections and locks of the parent do not exist here."""


_living: set[Ending] = set()  # held here, so that one that nobody holds any more delivers its rest too
_hooks_of: list[int] = []  # the process that registered them


def watch(recorder: Ending) -> None:
    """Tell a recorder of the ends of the process from now on."""
    _living.add(recorder)
    if not _hooks_of:
        _hooks_of.append(os.getpid())
        atexit.register(_end_all)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_begin_child)
    _take_sigterm()


def forget(recorder: Ending) -> None:
    """Tell it no more: it has ended."""
    _living.discard(recorder)


def _take_sigterm() -> None:
    """Handle SIGTERM where nobody does: its default kills the process without a last word.

    A handler of the application's is left alone; when it ends the interpreter, `atexit` delivers.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    _end_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)  # so that the parent sees what ended this process


def _end_all() -> None:
    for recorder in list(_living):
        try:
            recorder._end()  # noqa: SLF001  # ours to call
        except Exception:  # the others have an end too, and SIGTERM must end the process
            logging.getLogger("meterprint").exception("a recorder did not end as it should")


def _begin_child() -> None:
    for recorder in list(_living):
        recorder._after_fork()  # noqa: SLF001  # ours to call


def end_with_multiprocessing() -> None:
    """Let the end of a `multiprocessing` child tell too: it skips `atexit` before Python 3.13.

    Call it once the child runs: what was registered before is cleared at its start.
    """
    if util := sys.modules.get("multiprocessing.util"):
        util.Finalize(None, _end_all, exitpriority=100)
