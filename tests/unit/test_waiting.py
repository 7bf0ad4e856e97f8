"""WaitLimit: what counts as waiting, what is said, when it ends."""

from __future__ import annotations

import logging

import pytest

from nuclei_segmentation.shared.errors import WaitedTooLong
from nuclei_segmentation.shared.runtime import waiting
from nuclei_segmentation.shared.runtime.waiting import WaitLimit


class Time:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(waiting, "time", clock)
    return clock


def wait(wait_limit: WaitLimit, seconds: float, time: Time) -> None:
    end = time.now + seconds
    while time.now < end:
        wait_limit.wait(lambda: "tile store")


def test_it_ends_when_nothing_happens_for_so_long(time: Time) -> None:
    wait_limit = WaitLimit(300)
    wait(wait_limit, 299, time)
    with pytest.raises(WaitedTooLong, match=r"5 min 00 s without any progress for the tile store; .*wait\.limit"):
        wait(wait_limit, 2, time)


def test_progress_begins_it_anew(time: Time) -> None:
    wait_limit = WaitLimit(300)
    for _ in range(5):
        wait(wait_limit, 299, time)
        wait_limit.progress()
    assert wait_limit.waited == pytest.approx(5 * 299, abs=1)


def test_time_in_which_there_was_work_does_not_count(time: Time) -> None:
    wait_limit = WaitLimit(300)
    for _ in range(10):
        time.now += 1000
        wait(wait_limit, 1, time)


def test_a_machine_that_slept_did_not_wait(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_limit = WaitLimit(300)
    monkeypatch.setattr(time, "sleep", lambda seconds: setattr(time, "now", time.now + 3600))
    for _ in range(10):
        wait_limit.wait(lambda: "tile store")


def test_every_ten_seconds_it_says_for_what_and_how_to_turn_it_off(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    wait_limit = WaitLimit(300)
    with caplog.at_level(logging.INFO, "nuclei_segmentation"):
        wait(wait_limit, 9, time)
        assert not caplog.messages
        wait(wait_limit, 26, time)
    assert caplog.messages == ["waiting for the tile store (NVIDIA_CLARA_NOSYNCLOCK=TRUE turns waiting off)"] * 3


def test_who_does_not_wait_says_so() -> None:
    assert not WaitLimit(None).waits
    assert WaitLimit(1).waits
