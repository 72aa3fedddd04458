"""Who has the model when: batches, and places in order."""

from __future__ import annotations

import asyncio

import pytest

from clip_common.server.scheduling import Batcher, Places


class Model:
    """What works on batches of numbers: each takes until it is let go; a batch with a 0 fails."""

    def __init__(self, most: int = 32) -> None:
        self.batches: list[list[int]] = []
        self.free = asyncio.Event()
        self.batcher = Batcher(self._work, most, 0.0)

    async def _work(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        await self.free.wait()
        return [100 // number for number in numbers]

    async def asked(self, *numbers: int) -> list[asyncio.Task]:
        """Requests that come one after another."""
        tasks = []
        for number in numbers:
            tasks.append(asyncio.create_task(self.batcher.ask(number)))
            for _ in range(10):  # turns of the loop, as a clock may tick before it comes to the batcher
                await asyncio.sleep(0)
        return tasks


def test_what_comes_while_the_model_works_is_its_next_batch() -> None:
    async def run() -> None:
        model = Model()
        tasks = await model.asked(1, 2, 4, 5, 10)
        assert model.batches == [[1]]  # it found the model idle
        model.free.set()
        assert await asyncio.gather(*tasks) == [100, 50, 25, 20, 10]
        assert model.batches == [[1], [2, 4, 5, 10]]
        assert await asyncio.gather(*await model.asked(20, 25)) == [5, 4]
        assert model.batches[2:] == [[20], [25]]

    asyncio.run(run())


def test_a_batch_has_at_most_so_many_and_nobody_who_has_gone() -> None:
    async def run() -> None:
        model = Model(most=2)
        tasks = await model.asked(1, 2, 4, 5, 10)
        tasks[2].cancel()
        model.free.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert model.batches == [[1], [2], [5, 10]]
        assert tasks[4].result() == 10

    asyncio.run(run())


class PanicError(BaseException):
    """As the panics of libraries in Rust are raised."""


@pytest.mark.parametrize("error", [PanicError, asyncio.CancelledError])
def test_nobody_waits_for_a_batch_that_ends_with_more_than_an_error(error: type[BaseException]) -> None:
    """The model's thread ended, or a panic in it: neither those of the batch wait for ever, nor the next."""

    async def run() -> None:
        model = Model(most=2)
        working = model._work

        async def end(_numbers: list[int]) -> list[int]:
            await model.free.wait()
            raise error

        model.batcher._work = end
        tasks = await model.asked(1, 2, 4, 5)
        running = model.batcher._running
        model.free.set()
        done, waiting = await asyncio.wait(tasks, timeout=60)
        assert not waiting and all(task.cancelled() for task in done)
        await asyncio.gather(running, return_exceptions=True)  # type: ignore[arg-type]
        model.batcher._work = working
        assert await asyncio.wait_for(model.batcher.ask(10), 60) == 10

    asyncio.run(run())


def test_a_batch_with_too_few_results_is_an_error_of_all_without_one() -> None:
    async def run() -> None:
        async def one(_numbers: list[int]) -> list[int]:
            return [7]

        batcher = Batcher(one, 32, 0.0)
        tasks = [asyncio.create_task(batcher.ask(number)) for number in range(3)]
        _, waiting = await asyncio.wait(tasks, timeout=60)
        assert not waiting
        assert tasks[0].result() == 7
        assert all(isinstance(task.exception(), ValueError) for task in tasks[1:])

    asyncio.run(run())


def test_a_batch_that_fails_fails_for_those_in_it_only() -> None:
    async def run() -> None:
        model = Model(most=2)
        tasks = await model.asked(1, 2, 0, 5)
        model.free.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [int, ZeroDivisionError, ZeroDivisionError, int]

    asyncio.run(run())


def test_places_are_given_in_order_and_come_back() -> None:
    async def run() -> list[str]:
        places, order = Places(10), []

        async def take(name: str, wanted: int, release: asyncio.Event) -> None:
            async with places.taken(wanted):
                order.append(name)
                await release.wait()

        first, later = asyncio.Event(), asyncio.Event()
        later.set()
        tasks = [asyncio.create_task(take("eight", 8, first))]
        await asyncio.sleep(0)
        tasks += [
            asyncio.create_task(take("hundred", 100, later)),
            asyncio.create_task(take("one", 1, later)),
        ]
        for _ in range(20):
            await asyncio.sleep(0)
        assert order == ["eight"]
        first.set()
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(run()) == ["eight", "hundred", "one"]
