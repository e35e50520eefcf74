from __future__ import annotations

import os
from pathlib import Path

import pytest

from neonet3d.cohort.folder import new_folder
from neonet3d.errors import InputError


def test_the_folder_appears_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with new_folder(out) as folder:
        (folder / "file").write_text("content")
        assert not out.exists()
    assert (out / "file").read_text() == "content"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("failure", [InputError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(tmp_path: Path, failure: type[BaseException]) -> None:
    def fill() -> None:
        with new_folder(tmp_path / "out") as folder:
            (folder / "file").write_text("content")
            raise failure

    with pytest.raises(failure):
        fill()
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_taken_and_a_full_one_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with new_folder(out) as folder:
        (folder / "file").write_text("content")
    with pytest.raises(InputError, match="not an empty folder"), new_folder(out):
        pass
    with pytest.raises(InputError, match="not an empty folder"), new_folder(out / "file"):
        pass
    assert (out / "file").read_text() == "content"


def test_a_mount_point_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be replaced by another folder, and all would be lost at the end."""
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path / "scratch")
    with pytest.raises(InputError, match="a file system begins"), new_folder(tmp_path / "scratch"):
        pass
    assert not list(tmp_path.iterdir())
