"""Reads off the event loop: bounded, within a time, once for all who ask for the same, over a connection that cannot write."""

from __future__ import annotations

import asyncio
import threading

import pytest
from sqlalchemy import text

from postbacks.errors import HistoryError, UnknownJob
from postbacks.history.engine import reader
from postbacks.history.transactions import writing
from postbacks.settings import load
from postbacks.web import reading as module
from postbacks.web.reading import THREADS, WAITING_MAX, Busy, Reading


def test_a_page_cannot_write_and_an_action_can(world):
    reading = Reading(world.settings)

    def write() -> None:
        with writing(reader()) as connection:
            connection.execute(text("INSERT INTO accounts (name) VALUES ('x')"))

    async def both() -> None:
        with pytest.raises(HistoryError, match="read-only"):
            await reading.run(write, 5)
        await reading.run(write, 5, may_write=True)

    asyncio.run(both())
    reading.close()


def test_what_many_ask_for_at_once_is_read_once(world):
    reading, calls = Reading(load()), []
    go = threading.Event()

    def read() -> int:
        calls.append(1)
        go.wait(20)
        return len(calls)

    async def ask() -> list[int]:
        asking = [asyncio.create_task(reading.shared("same", 60, read)) for _ in range(50)]
        await asyncio.sleep(0)
        go.set()
        return await asyncio.gather(*asking, reading.shared("same", 60, read))

    assert asyncio.run(ask()) == [1] * 51
    reading.close()


def test_an_answer_is_old_after_its_time_and_an_error_is_told_to_all(world):
    reading = Reading(load())
    calls = iter((1, 2))

    def fail() -> None:
        raise UnknownJob("none")

    async def ask() -> None:
        assert [await reading.shared("old", 0, lambda: next(calls)) for _ in range(2)] == [1, 2]
        results = await asyncio.gather(
            *(reading.shared("bad", 60, fail) for _ in range(3)), return_exceptions=True
        )
        assert [type(result) for result in results] == [UnknownJob] * 3

    asyncio.run(ask())
    reading.close()


def test_nobody_waits_for_the_next_answer_while_the_one_before_is_good(world, monkeypatch):
    monkeypatch.setattr(module, "_PAUSES", 0)
    reading, go = Reading(load()), threading.Event()

    def second() -> int:
        go.wait(20)
        return 2

    async def ask() -> list[int]:
        first = await reading.shared("key", 0, lambda: 1, stale_s=60)
        meanwhile = [await reading.shared("key", 0, second, stale_s=60) for _ in range(5)]
        go.set()
        await reading._shared["key"].following.future
        return [first, *meanwhile, await reading.shared("key", 60, second, stale_s=60)]

    assert asyncio.run(ask()) == [1, 1, 1, 1, 1, 1, 2]
    reading.close()


def test_what_takes_long_is_read_less_often(world):
    reading, calls = Reading(load()), []

    def read() -> int:
        calls.append(1)
        threading.Event().wait(0.2)
        return len(calls)

    async def ask() -> list[int]:
        return [await reading.shared("key", 0, read, stale_s=0.001) for _ in range(3)]

    assert asyncio.run(ask()) == [1, 1, 1]
    reading.close()


def test_one_who_leaves_does_not_take_the_answer_from_the_others(world):
    reading = Reading(load())
    go = threading.Event()

    async def ask() -> str:
        first = asyncio.create_task(reading.shared("same", 60, lambda: go.wait(20) and "answer"))
        await asyncio.sleep(0)
        second = asyncio.create_task(reading.shared("same", 60, str))
        await asyncio.sleep(0)
        first.cancel()
        go.set()
        return await second

    assert asyncio.run(ask()) == "answer"
    reading.close()


def test_a_read_that_takes_too_long_and_too_many_reads_are_refused(world):
    reading = Reading(load())
    go = threading.Event()

    async def ask() -> None:
        with pytest.raises(Busy, match="longer than"):
            await reading.run(lambda: go.wait(30), 0.05)
        waiting = [
            asyncio.create_task(reading.run(lambda: go.wait(30), 30))
            for _ in range(THREADS + WAITING_MAX - 1)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="Too many"):
            await reading.run(str, 5)
        go.set()
        await asyncio.gather(*waiting)
        assert await reading.run(lambda: "again", 5) == "again"

    asyncio.run(ask())
    reading.close()
