"""Requests that wait at the same time are answered by one call of the device."""

import asyncio
import queue
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple


class BusyError(Exception):
    """As many requests wait as may."""


class _Job(NamedTuple):
    key: Hashable
    work: Callable[[Sequence[Any]], Sequence[Any]]
    asked: Any
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future


class Batches:
    """A thread that does the work of all: it takes what is queued, up to `most`, and does what has equal keys at once.

    Nothing waits for company: while the device works, requests gather by themselves.
    """

    def __init__(self, most: int, waiting: int, seen: Callable[[int], None] = lambda size: None):
        """
        Args:
            most: requests of a call.
            waiting: requests that may be here; the next is a BusyError.
            seen: told the size of every call.
        """
        self._most, self._limit, self._seen = most, waiting, seen
        self.waiting = 0
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)
        self._thread.start()

    async def ask(self, key: Hashable, work: Callable[[Sequence[Any]], Sequence[Any]], asked: Any) -> Any:
        """The answer to `asked`: `work` gets it in a list with others of the same key, and gives a list of answers.

        Raises BusyError, and what `work` raises.
        """
        if self.waiting >= self._limit:
            raise BusyError
        loop = asyncio.get_running_loop()
        job = _Job(key, work, asked, loop, loop.create_future())
        self.waiting += 1
        try:
            self._jobs.put(job)
            return await job.answer
        finally:
            self.waiting -= 1

    def close(self) -> None:
        """Ends the thread when it has done what is queued."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            jobs = [self._jobs.get()]
            while len(jobs) < self._most and jobs[-1] is not None:
                try:
                    jobs.append(self._jobs.get_nowait())
                except queue.Empty:
                    break
            groups: dict[Hashable, list[_Job]] = {}
            for job in jobs:
                if job is not None and not job.answer.cancelled():
                    groups.setdefault(job.key, []).append(job)
            for group in groups.values():
                self._answer(group)
            if jobs[-1] is None:
                return

    def _answer(self, group: list[_Job]) -> None:
        self._seen(len(group))
        try:
            answers = list(group[0].work([job.asked for job in group]))
            for job, answer in zip(group, answers, strict=True):
                job.loop.call_soon_threadsafe(_set, job.answer, answer, None)
        except Exception as error:
            if len(group) > 1:  # one of them must not spoil the others
                for job in group:
                    self._answer([job])
                return
            group[0].loop.call_soon_threadsafe(_set, group[0].answer, None, error)


def _set(future: asyncio.Future, answer: Any, error: Exception | None) -> None:
    if future.done():  # whoever asked has gone
        return
    if error is None:
        future.set_result(answer)
    else:
        future.set_exception(error)
