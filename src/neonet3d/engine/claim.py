"""A training claims its folder before it begins, and finds what it had begun there before."""

from __future__ import annotations

import shutil
from pathlib import Path

from neonet3d.cohort.volume import write_atomically
from neonet3d.engine.artefact import ArtefactCard, read_card
from neonet3d.engine.folder_lock import lock_folder, unlock_folder
from neonet3d.engine.run import is_run
from neonet3d.errors import InputError


def claim_folder(folder: Path, card: ArtefactCard) -> bool:
    """Whether the folder already holds the model of this card; if not, it is made ready for it.

    A model that was finished on another device stays: it is as good as what this one would make.
    A half-trained state of the same card stays, and training goes on from it. Inside a run folder
    whatever is stale is removed; elsewhere nothing that stands is ever overwritten, and the folder
    is locked until the model is saved or the process ends.

    Raises:
        InputError: outside a run folder, when the folder belongs to something else, or when another
            process trains in it.
    """
    claim, finished = folder / ".claim", folder / "model.json"
    in_run = any(is_run(parent) for parent in folder.parents)
    if not in_run:
        lock_folder(folder)
    if claim.is_file():
        ours = claim.read_text() == card.key()
        if finished.is_file() and (ours or _stands(folder, card)):
            unlock_folder(folder)
            return True
        if ours:
            return False
    visible = [path for path in folder.iterdir() if path != claim] if folder.is_dir() else []
    if visible and not in_run:
        unlock_folder(folder)
        raise InputError(
            f"{folder} is not empty (it holds {visible[0].name}), and not of this configuration, "
            "cohort, seed and fold, or not of this version of neonet3d. A training that was broken "
            "off goes on only on the same device with as many threads. Choose another folder or "
            "remove this one."
        )
    claim.unlink(missing_ok=True)  # first: what is half removed must not look whole
    for path in visible:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_atomically(claim, card.key().encode())
    return False


def _stands(folder: Path, card: ArtefactCard) -> bool:
    """Whether the folder's model is the one of this card, made on whatever device."""
    try:
        standing = read_card(folder)
    except InputError:  # of another version
        return False
    if not card.parents.items() <= standing.parents.items():
        return False
    # What was trained on the way, such as a localiser, is a parent that no claim knows.
    alike = standing.model_copy(update={"device": card.device, "parents": card.parents})
    return alike.key() == card.key()
