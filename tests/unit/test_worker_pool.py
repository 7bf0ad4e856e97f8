"""The pool: order kept, look-ahead bounded, failures passed on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool, abandon


def test_results_come_in_order_whatever_takes_longer() -> None:
    def work(number: int) -> int:
        time.sleep(0.002 * (5 - number % 5))
        return number * number

    with WorkerPool(4) as pool:
        assert list(pool.map("x", work, range(40), ahead=8)) == [number * number for number in range(40)]


def test_no_more_items_are_drawn_than_may_be_under_way() -> None:
    drawn = 0

    def items() -> Iterator[int]:
        nonlocal drawn
        for number in range(100):
            drawn += 1
            yield number

    with WorkerPool(2) as pool:
        for taken, _ in enumerate(pool.map("x", lambda number: number, items(), ahead=5), start=1):
            assert drawn <= taken + 4


def test_no_more_work_at_once_than_workers_over_all_stages() -> None:
    lock, now, most = threading.Lock(), 0, 0

    def work(number: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.001)
        with lock:
            now -= 1
        return number

    with WorkerPool(3) as pool:
        first = pool.map("a", work, range(30), ahead=6)
        assert list(pool.map("b", work, first, ahead=6)) == list(range(30))
    assert most == 3


def test_a_failure_reaches_the_caller_and_what_is_queued_is_dropped() -> None:
    ran: list[int] = []

    def work(number: int) -> int:
        ran.append(number)
        time.sleep(0.01)
        if number == 3:
            raise ValueError("three")
        return number

    with WorkerPool(1) as pool, pytest.raises(ValueError, match="three"):
        for _ in pool.map("x", work, range(1000), ahead=20):
            pass
    assert len(ran) < 40


def test_a_failure_while_the_queue_is_full_ends_in_the_failure() -> None:
    """The stages' iterators are closed after the pool is, when the error has reached the top."""

    def fail(number: int) -> int:
        raise ValueError("all")

    def outer() -> None:
        with WorkerPool(1) as pool:
            stages = pool.map("b", fail, pool.map("a", lambda number: number, range(100), ahead=8), ahead=8)
            list(stages)

    with pytest.raises(ValueError, match="all"):
        outer()


def test_what_is_abandoned_is_waited_for_only_if_it_runs() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def work(number: int) -> int:
        begun.set()
        may_end.wait(60)
        return number

    with WorkerPool(1) as pool:
        futures = [pool.submit("x", work, number) for number in range(5)]
        begun.wait(60)
        threading.Timer(0.05, may_end.set).start()
        abandon(futures)
        assert [future.cancelled() for future in futures] == [False, True, True, True, True]
        assert futures[0].done()
        pool.close()
        abandon(futures)


def test_the_clock_tells_who_worked_and_who_was_waited_for() -> None:
    with WorkerPool(1) as pool:
        list(pool.map("slow", lambda _: time.sleep(0.02), range(5), ahead=2))
        list(pool.map("quick", lambda _: None, range(5), ahead=2))
        times = pool.timer.stages
    assert times["slow"].busy >= 0.1
    assert times["slow"].cpu < 0.05
    assert times["slow"].waited > times["quick"].waited


def test_time_in_a_queue_counts_for_the_stage_that_keeps_the_workers() -> None:
    with WorkerPool(1) as pool:
        first = pool.map("quick", lambda number: number, range(20), ahead=2)
        list(pool.map("slow", lambda _: time.sleep(0.01), first, ahead=4))
        times = pool.timer.stages
    assert times["slow"].waited > 5 * times["quick"].waited
