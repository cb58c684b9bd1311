"""Tests of core.loop.jobs: what nobody waits for is held, can be waited for, and can be ended."""

import asyncio

from core.loop.jobs import Jobs
from tests.core.cores import settle, virtual_time


@virtual_time
async def test_jobs_are_held_until_they_end() -> None:
    jobs, ended = Jobs(), []

    async def work(seconds: float) -> None:
        await asyncio.sleep(seconds)
        ended.append(seconds)

    jobs.start(work(1))
    jobs.start(work(5))
    await settle()
    assert len(jobs) == 2
    await jobs.wait(2)
    assert (ended, len(jobs)) == ([1], 1)
    await jobs.wait()
    assert (ended, len(jobs)) == ([1, 5], 0)
    await jobs.wait()


@virtual_time
async def test_jobs_that_are_cancelled_have_ended() -> None:
    jobs, ended = Jobs(), []

    async def work() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            ended.append(True)

    jobs.start(work())
    await settle()
    await jobs.cancel()
    assert (ended, len(jobs)) == ([True], 0)
    assert asyncio.get_running_loop().time() < 1_000
