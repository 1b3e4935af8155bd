"""Requests that wait together are answered together, each by its own answer."""

import asyncio
import threading

import pytest

from pad_jax.service.batches import Batches, BusyError


def run(test):
    asyncio.run(asyncio.wait_for(test, 30))


@pytest.fixture
def held():
    """Work that waits until it is let go, and what it was given."""

    class Held:
        let, began, given = threading.Event(), threading.Event(), []

        def __call__(self, asked):
            self.given.append(list(asked))
            self.began.set()
            assert self.let.wait(20)
            return [-one for one in asked]

    held = Held()
    held.let, held.began, held.given = threading.Event(), threading.Event(), []
    return held


async def begun(held):
    while not held.began.is_set():
        await asyncio.sleep(0.001)


def test_what_waits_is_grouped_by_key_up_to_the_most(held):
    async def test():
        sizes = []
        batches = Batches(3, 100, sizes.append)
        first = asyncio.create_task(batches.ask("a", held, 1))
        await begun(held)
        rest = [asyncio.create_task(batches.ask("ab"[n % 2], held, n)) for n in range(2, 8)]
        await asyncio.sleep(0.01)
        held.let.set()
        assert await first == -1
        assert await asyncio.gather(*rest) == [-n for n in range(2, 8)]
        assert held.given == [[1], [2, 4], [3], [5, 7], [6]]  # three at a time, by key
        assert sizes == [len(own) for own in held.given]
        batches.close()

    run(test())


def test_more_than_may_wait_are_refused(held):
    async def test():
        batches = Batches(2, 2)
        two = [asyncio.create_task(batches.ask("a", held, n)) for n in range(2)]
        await begun(held)
        with pytest.raises(BusyError):
            await batches.ask("a", held, 9)
        held.let.set()
        assert await asyncio.gather(*two) == [0, -1]
        assert batches.waiting == 0
        assert await batches.ask("a", held, 9) == -9
        batches.close()

    run(test())


def test_one_failure_spoils_no_other(held):
    def work(asked):
        if 3 in asked:
            raise ValueError("three")
        return [-one for one in asked]

    async def test():
        batches = Batches(8, 100)
        first = asyncio.create_task(batches.ask("held", held, 0))
        await begun(held)
        rest = [asyncio.create_task(batches.ask("a", work, n)) for n in range(1, 6)]
        gone = asyncio.create_task(batches.ask("a", work, 77))
        await asyncio.sleep(0.01)
        gone.cancel()
        held.let.set()
        await first
        found = await asyncio.gather(*rest, return_exceptions=True)
        assert [found[n] for n in (0, 1, 3, 4)] == [-1, -2, -4, -5]
        assert isinstance(found[2], ValueError)
        with pytest.raises(asyncio.CancelledError):
            await gone
        batches.close()

    run(test())


def test_closing_answers_what_is_queued(held):
    async def test():
        batches = Batches(1, 100)
        asked = [asyncio.create_task(batches.ask(n, held, n)) for n in range(4)]
        await begun(held)
        held.let.set()
        await asyncio.to_thread(batches.close)
        assert await asyncio.gather(*asked) == [0, -1, -2, -3]

    run(test())
