# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that record beside each other, for the verbs that record many runs: `hunt` and `isa-tests`.

Whoever hands work to them needs nothing but `concurrent.futures.Executor`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from types import FrameType

__all__ = ["workers"]


@contextlib.contextmanager
def workers(count: int, module: str) -> Iterator[Executor]:
    """An executor of `count` processes, which have imported `module`, where the work is.

    On leaving, work that nobody waits for any more is ended. A worker that dies shows as BrokenProcessPool.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    others = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(count, mp_context=context, initializer=_ignore_interrupts)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _terminated)
    try:
        yield executor
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        # First the workers, which may be at work for hours, and then one call that waits for the executor's thread:
        # after a call that does not, nobody may ever wait, and the interpreter's end would race with that thread.
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        executor.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    """In a worker: Ctrl-C is for the process that started it, which ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
