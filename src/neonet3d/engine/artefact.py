"""The artefact: a trained model as a folder of ``model.safetensors`` and ``model.json``.

Everything that is needed to use a model is in its folder, and no pickle is written or read. The
JSON is written last and holds the hash of the weights: a folder with a ``model.json`` is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from neonet3d.cohort.case import Case
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.geometry import Grid
from neonet3d.cohort.intensity import IntensityNormaliser
from neonet3d.cohort.patches import PatchReading
from neonet3d.cohort.volume import write_atomically
from neonet3d.config import fingerprint
from neonet3d.engine.device import device_summary
from neonet3d.engine.folder_lock import unlock_folder
from neonet3d.errors import InputError, RunError
from neonet3d.types import LabelSchema, Shape, Triple

SectionT = TypeVar("SectionT", bound=BaseModel)


class ArtefactCard(BaseModel):
    """What ``model.json`` says.

    Attributes:
        kind: class of the model, such as ``Autoencoder``.
        config: what it was built and trained with.
        classes: names of the mask's classes, position = voxel value.
        outcome: name of the outcome it knows, or None.
        normaliser: intensity normalisation that its input needs.
        shape, spacing_mm: the grid it works on.
        fold: which division of the cohort trained it.
        training_cases: ``Case.digest`` of each training case (no names), sorted.
        training_scans: ``Case.scan_digest`` of each, sorted: who must not be held out.
        parts: configs and sizes of parts beside ``config`` that are needed to build the model.
        parents: weights' hashes of the artefacts that it was built on, and of the localiser that a
            segmenter was trained with.
        seed, package, device: for reproduction.
        facts: what was measured while fitting, for people; not read back.
        weights_sha256: of ``model.safetensors``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    config: dict[str, Any]
    classes: tuple[str, ...]
    outcome: str | None
    normaliser: IntensityNormaliser | None
    shape: Shape | None
    spacing_mm: Triple | None
    fold: str
    training_cases: tuple[str, ...]
    training_scans: tuple[str, ...]
    parts: dict[str, Any] = {}
    parents: dict[str, str]
    seed: int
    package: str
    device: str
    facts: dict[str, Any] = {}
    weights_sha256: str = ""

    @property
    def schema_(self) -> LabelSchema:
        return LabelSchema(self.classes)

    @property
    def grid(self) -> Grid:
        if self.shape is None or self.spacing_mm is None:
            raise InputError(f"This {self.kind} records no grid, so it cannot be used here.")
        return Grid(self.shape, self.spacing_mm)

    @property
    def reading(self) -> PatchReading:
        """How the patches were read that this model knows.

        Raises:
            InputError: it was fitted on no patches.
        """
        if self.normaliser is None:
            raise InputError(f"This {self.kind} reads no patches, so it cannot be used here.")
        return PatchReading(self.grid, self.normaliser)

    def key(self) -> str:
        """Changes when anything that decides the weights changes."""
        return fingerprint(self.model_dump(mode="json", exclude={"facts", "weights_sha256"}))

    def part(self, name: str, section: type[SectionT]) -> SectionT:
        """An entry of ``parts`` as the section that it was written from.

        Raises:
            InputError: it is missing, or does not fit.
        """
        try:
            return section.model_validate(self.parts.get(name))
        except ValidationError as error:
            raise InputError(
                f"The {name} of this {self.kind} is missing or of another version of neonet3d. "
                "Train the model again."
            ) from error

    def settings(self, section: type[SectionT]) -> SectionT:
        """``config`` as the section that it was written from.

        Raises:
            InputError: an entry is missing, unknown or out of range.
        """
        try:
            return section.model_validate(self.config)
        except ValidationError as error:
            raise InputError(
                f"The configuration of this {self.kind} does not fit this version of neonet3d "
                f"({error.error_count()} entries). Train the model again."
            ) from error

    def refuse_other_classes(self, schema: LabelSchema) -> None:
        if schema.names != self.classes:
            raise InputError(
                f"The {self.kind} knows the classes {list(self.classes)} but the cohort has "
                f"{list(schema.names)}. Use a model trained on the same classes."
            )

    def training_cases_of(self, cohort: Cohort) -> Cohort:
        """Those cases of a cohort that trained this model.

        Raises:
            InputError: one of them is not there.
        """
        missing, found = set(self.training_cases), []
        for case in cohort:
            digest = case.digest()
            if digest in self.training_cases:
                found.append(case)
                missing.discard(digest)
        if missing:
            raise InputError(
                f"{cohort.root} lacks {len(missing)} of the {len(self.training_cases)} cases that "
                f"trained this {self.kind}. Give the cohort that it was trained on."
            )
        return cohort.subset(found)

    def count_training_cases(self, cohort: Cohort) -> int:
        """How many of the cases trained this model, by their scans."""
        return sum(map(self.saw, cohort))

    def saw(self, case: Case) -> bool:
        """Whether the case's scan trained this model, with whatever mask and outcome."""
        return case.scan_digest() in self.training_scans

    def refuse_training_cases(self, cohort: Cohort) -> None:
        """A model that saw a held-out case must not be judged on it."""
        seen = self.count_training_cases(cohort)
        if seen:
            raise InputError(
                f"{seen} of the {len(cohort)} held-out cases trained this {self.kind}. "
                "Use the model of this fold."
            )


def new_card(
    kind: str,
    *,
    fold: Fold,
    config: BaseModel,
    seed: int,
    normaliser: IntensityNormaliser | None,
    grid: Grid | None,
    parents: Mapping[str, ArtefactCard] | None = None,
) -> ArtefactCard:
    """The card of a model that is about to be fitted on ``fold.training``."""
    cohort = fold.training
    return ArtefactCard(
        kind=kind,
        config=config.model_dump(mode="json"),
        classes=cohort.schema.names,
        outcome=cohort.outcome_name,
        normaliser=normaliser,
        shape=grid.shape if grid else None,
        spacing_mm=grid.spacing_mm if grid else None,
        fold=fold.name,
        training_cases=tuple(sorted(case.digest() for case in cohort)),
        training_scans=tuple(sorted(case.scan_digest() for case in cohort)),
        parents={name: parent.weights_sha256 for name, parent in (parents or {}).items()},
        seed=seed,
        package=version("neonet3d"),
        device=device_summary(),
    )


def save_artefact(folder: Path, model: nn.Module, card: ArtefactCard) -> ArtefactCard:
    """Write weights, then the card. Returns the card with the hash of the weights."""
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in _without_aliases(model).items()
    }
    payload = safetensors.torch.save(state)
    card = card.model_copy(update={"weights_sha256": hashlib.sha256(payload).hexdigest()})
    write_atomically(folder / "model.safetensors", payload)
    text = json.dumps(card.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"
    write_atomically(folder / "model.json", text.encode())
    unlock_folder(folder)
    return card


def read_card(folder: Path, *, kind: str | None = None) -> ArtefactCard:
    """Read ``model.json``.

    Raises:
        InputError: no artefact there, another kind of model, or an unreadable card.
    """
    path = folder / "model.json"
    if not path.is_file():
        raise InputError(
            f"{folder} holds no model.json, so it is no trained model. Check the path."
        )
    try:
        card = ArtefactCard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(
            f"{path} is not a model card of this version of neonet3d ({error.error_count()} "
            "entries do not fit). Train the model again."
        ) from error
    if kind is not None and card.kind != kind:
        raise InputError(
            f"{folder} holds a {card.kind}, not a {kind}. Give the folder of a {kind}."
        )
    return card


def load_weights(folder: Path, model: nn.Module, card: ArtefactCard) -> None:
    """Fill ``model`` from the folder; the bytes must be those that the card names.

    Raises:
        InputError: missing, damaged or foreign weights.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise InputError(f"{folder} holds no model.safetensors. Copy the whole folder again.")
    payload = path.read_bytes()
    if hashlib.sha256(payload).hexdigest() != card.weights_sha256:
        raise InputError(
            f"{path} is not the file that model.json was written with. Copy the whole folder again."
        )
    try:
        state = safetensors.torch.load(payload)
    except safetensors.SafetensorError as error:
        raise InputError(f"{path} cannot be read ({error}).") from error
    own = _without_aliases(model)
    if state.keys() != own.keys() or any(state[name].shape != own[name].shape for name in own):
        raise InputError(
            f"The weights in {path} do not fit the {card.kind} that model.json describes. "
            "Copy the whole folder again, or train the model again."
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])


def _without_aliases(model: nn.Module) -> dict[str, torch.Tensor]:
    """State by name, each tensor once: a module that stands in two places has two names."""
    state: dict[str, torch.Tensor] = {}
    seen = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            state[name] = tensor
    return state


def save_training_state(path: Path, tensors: Mapping[str, torch.Tensor], step: int) -> None:
    """Everything a training loop needs to go on, as one safetensors file, written atomically."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, safetensors.torch.save(state, metadata={"step": str(step)}))


def load_training_state(path: Path) -> tuple[dict[str, torch.Tensor], int]:
    """Tensors and step of ``save_training_state``.

    Raises:
        RunError: the file is damaged.
    """
    try:
        with safetensors.safe_open(os.fspath(path), framework="pt") as stream:
            step = int(stream.metadata()["step"])
            return {name: stream.get_tensor(name) for name in stream.keys()}, step  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise RunError(
            f"{path}, the state of a half-trained model, cannot be read ({error}). "
            "Remove it; the training then starts anew."
        ) from error
