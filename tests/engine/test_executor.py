from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from neonet3d.engine.executor import Task, run_here
from neonet3d.engine.run import Timer, stage_timer
from neonet3d.errors import InputError


def noting(name: str, done: list[str]) -> Callable[[Timer], None]:
    def work(timed: Timer) -> None:
        with timed(f"stage of {name}"):
            done.append(name)

    return work


def test_tasks_are_done_in_their_order_and_their_stages_recorded(tmp_path: Path) -> None:
    done: list[str] = []
    recorded: list[tuple[str, float]] = []
    units: list[int] = []
    tasks = [Task("a", noting("a", done), tmp_path), Task("b", noting("b", done), tmp_path, ("a",))]
    run_here(tasks, lambda *stage: recorded.append(stage), lambda n=1, note="": units.append(n))
    assert done == ["a", "b"]
    assert [stage for stage, _ in recorded] == ["stage of a", "stage of b"]
    assert all(0 <= seconds < 5 for _, seconds in recorded)
    assert units == [1, 1]


@pytest.mark.parametrize(
    ("names", "after", "said"),
    [
        (("a", "a"), ((), ()), "two tasks are called 'a'"),
        (("b", "a"), (("a",), ()), r"'b' waits for \['a'\]"),
    ],
)
def test_a_list_that_cannot_be_done_is_refused_before_anything_is(
    names: tuple[str, str], after: tuple[tuple[str, ...], ...], said: str, tmp_path: Path
) -> None:
    done: list[str] = []
    tasks = [Task(n, noting(n, done), tmp_path, a) for n, a in zip(names, after, strict=True)]
    with pytest.raises(ValueError, match=said):
        run_here(tasks, lambda *_: None, lambda *_: None)
    assert done == []


def test_the_first_error_ends_it(tmp_path: Path) -> None:
    done: list[str] = []

    def fail(timed: Timer) -> None:
        with timed("broken"):
            raise InputError("no such scan")

    recorded: list[str] = []
    tasks = [Task("a", fail, tmp_path), Task("b", noting("b", done), tmp_path)]
    with pytest.raises(InputError, match="no such scan"):
        run_here(tasks, lambda stage, _: recorded.append(stage), lambda *_: None)
    assert (done, recorded) == ([], ["broken"])


def test_a_timer_measures() -> None:
    recorded: list[tuple[str, float]] = []
    timed = stage_timer(lambda *stage: recorded.append(stage))
    with timed("outer"), timed("inner"):
        pass
    assert [stage for stage, _ in recorded] == ["inner", "outer"]


def test_a_stage_that_failed_took_its_time_too() -> None:
    recorded: list[tuple[str, float]] = []
    timed = stage_timer(lambda *stage: recorded.append(stage))
    with pytest.raises(InputError, match="no such scan"), timed("crop"):
        raise InputError("no such scan")
    assert [stage for stage, _ in recorded] == ["crop"]


def test_a_full_disk_does_not_hide_what_failed() -> None:
    def full(stage: str, seconds: float) -> None:
        raise OSError("No space left on device")

    with pytest.raises(InputError, match="no such scan"), stage_timer(full)("crop"):
        raise InputError("no such scan")
