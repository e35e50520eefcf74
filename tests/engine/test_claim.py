from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from neonet3d.engine.artefact import ArtefactCard, read_card, save_artefact
from neonet3d.engine.claim import claim_folder
from neonet3d.errors import InputError

MakeCard = Callable[..., ArtefactCard]


def network() -> nn.Module:
    return nn.Linear(2, 3)


@pytest.fixture
def saved(tmp_path: Path, make_card: MakeCard) -> Path:
    save_artefact(tmp_path / "model", network(), make_card())
    return tmp_path / "model"


def test_claim_of_a_new_folder_and_of_a_finished_one(tmp_path: Path, make_card: MakeCard) -> None:
    folder, card = tmp_path / "deep" / "model", make_card()
    assert not claim_folder(folder, card)
    assert not claim_folder(folder, card)
    save_artefact(folder, network(), card)
    assert claim_folder(folder, card)


def test_a_half_trained_state_stays(tmp_path: Path, make_card: MakeCard) -> None:
    claim_folder(tmp_path / "model", make_card())
    (tmp_path / "model" / ".state.safetensors").write_bytes(b"state")
    assert not claim_folder(tmp_path / "model", make_card())
    assert (tmp_path / "model" / ".state.safetensors").read_bytes() == b"state"


@pytest.mark.parametrize("stale", ["model.json", ".state.safetensors", "thesis.docx"])
def test_outside_a_run_nothing_is_overwritten(
    stale: str, tmp_path: Path, make_card: MakeCard
) -> None:
    folder = tmp_path / "model"
    claim_folder(folder, make_card())
    (folder / stale).write_text("precious")
    with pytest.raises(InputError, match=r"is not empty .*Choose another folder"):
        claim_folder(folder, make_card(seed=5))
    assert (folder / stale).read_text() == "precious"


def test_a_folder_without_a_claim_is_not_ours(saved: Path, make_card: MakeCard) -> None:
    with pytest.raises(InputError, match="is not empty"):
        claim_folder(saved, make_card())
    assert read_card(saved)


def test_an_empty_claim_is_given_away(tmp_path: Path, make_card: MakeCard) -> None:
    claim_folder(tmp_path / "model", make_card())
    assert not claim_folder(tmp_path / "model", make_card(seed=5))


def test_inside_a_run_what_is_stale_is_removed(tmp_path: Path, make_card: MakeCard) -> None:
    (tmp_path / "manifest.json").write_text('{"starts": [], "config_hash": ""}')
    folder = tmp_path / "fold-2" / "model"
    claim_folder(folder, make_card())
    save_artefact(folder, network(), make_card())
    (folder / ".state.safetensors").write_bytes(b"old")
    (tmp_path / "fold-2" / "other").write_text("stays")
    assert not claim_folder(folder, make_card(seed=5))
    assert [path.name for path in folder.iterdir()] == [".claim"]
    assert (tmp_path / "fold-2" / "other").read_text() == "stays"


@pytest.mark.parametrize("manifest", ["{}", '{"series": []}', "[]", "no JSON"])
def test_a_manifest_of_other_software_makes_no_run(
    manifest: str, tmp_path: Path, make_card: MakeCard
) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    folder = tmp_path / "papers" / "thesis"
    folder.mkdir(parents=True)
    (folder / "thesis.docx").write_text("precious")
    with pytest.raises(InputError, match="is not empty"):
        claim_folder(folder, make_card())
    assert (folder / "thesis.docx").read_text() == "precious"


@pytest.mark.parametrize("in_run", [False, True])
def test_a_model_of_another_device_stays(in_run: bool, tmp_path: Path, make_card: MakeCard) -> None:
    """Fewer workers have more threads each: what was done before is not done again."""
    if in_run:
        (tmp_path / "manifest.json").write_text('{"starts": [], "config_hash": ""}')
    folder, card = tmp_path / "fold-0" / "model", make_card()
    claim_folder(folder, card)
    save_artefact(folder, network(), card)
    elsewhere = card.model_copy(update={"device": "cpu, 64 threads"})
    assert claim_folder(folder, elsewhere)
    assert read_card(folder).device == card.device
    if in_run:  # half a training goes on where it began, or not at all
        (folder / "model.json").unlink()
        assert not claim_folder(folder, elsewhere)
        assert [path.name for path in folder.iterdir()] == [".claim"]


def test_half_a_removal_does_not_look_whole(
    tmp_path: Path, make_card: MakeCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "manifest.json").write_text('{"starts": [], "config_hash": ""}')
    folder, card = tmp_path / "model", make_card()
    claim_folder(folder, card)
    save_artefact(folder, network(), card)

    unlink, gone = Path.unlink, []

    def killed_after_the_first(path: Path, missing_ok: bool = False) -> None:
        if gone:
            raise KeyboardInterrupt
        gone.append(path)
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed_after_the_first)
        with pytest.raises(KeyboardInterrupt):
            claim_folder(folder, make_card(seed=5))
    assert (folder / "model.json").exists()
    assert not claim_folder(folder, card)
    assert not (folder / "model.json").exists()


OTHER = """
import sys
from pathlib import Path
from neonet3d.engine.folder_lock import lock_folder

lock_folder(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_one_process_trains_in_a_folder(tmp_path: Path, make_card: MakeCard) -> None:
    folder = tmp_path / "model"
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="Another process trains in"):
            claim_folder(folder, make_card())
        assert list(folder.iterdir()) == []
        other.kill()
    assert not claim_folder(folder, make_card())
