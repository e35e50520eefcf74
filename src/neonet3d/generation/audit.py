"""Does this generator copy its training cases? What its losses and its draws say."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.patches import Patches, load_patches
from neonet3d.engine.device import fabric
from neonet3d.errors import InputError
from neonet3d.generation.condition import Condition
from neonet3d.generation.controlnet import class_fractions
from neonet3d.generation.generator import LatentGenerator
from neonet3d.generation.latents import ENCODE_BATCH, standardised_latents
from neonet3d.generation.objectives import control_error
from neonet3d.generation.sources import drawn_on
from neonet3d.metrics.interval import Interval
from neonet3d.metrics.memorisation import (
    Membership,
    find_duplicates,
    infer_membership,
    nearest_neighbour_ratio,
)

TIME = 0.5  # of the flow, where training and held-out losses were found furthest apart
NOISES = 4  # the same ones for every case, so that they do not add to the spread between cases


@dataclass(frozen=True)
class CopyingAudit:
    """What tells of copying; None where there are too few cases to say.

    Attributes:
        n_training, n_held_out, n_synthetic: Cases that were compared.
        membership: AUC by the flow loss of each patient, training against held-out.
        share_nearer_training: Share of synthetic patches nearer to a training than to any held-out
            patch, over voxels; the patient whose mask it was drawn on is left out.
        expected_share: That share without copying.
        copies_of_training: Share of synthetic patches that are nearly a training patch, over
            voxels.
        duplicates: Share that are nearly another synthetic patch; a collapse, not a copy.
    """

    n_training: int
    n_held_out: int
    n_synthetic: int
    membership: Membership | None
    share_nearer_training: Interval | None
    expected_share: float | None
    copies_of_training: Interval | None
    duplicates: Interval | None

    @property
    def signs(self) -> tuple[str, ...]:
        """The measures whose interval says that the generator copies."""
        found = []
        if self.membership is not None and self.membership.copies:
            found.append("membership by loss")
        if (
            self.share_nearer_training is not None
            and self.expected_share is not None
            and self.share_nearer_training.low > self.expected_share
        ):
            found.append("nearest neighbours")
        if self.copies_of_training is not None and self.copies_of_training.low > 0:
            found.append("copies of training patches")
        return tuple(found)

    @property
    def copies(self) -> bool:
        """Whether any measure says that the generator copies."""
        return bool(self.signs)

    @property
    def sentence(self) -> str:
        """All figures and what follows from them, for people."""
        parts = [self._membership_text()]
        if self.n_synthetic == 0:
            parts.append("No synthetic patches were given, so none were compared.")
        else:
            parts += [self._neighbours_text(), self._duplicates_text()]
        return " ".join([*parts, self._verdict_text()])

    def as_json(self) -> dict[str, Any]:
        """Every figure with its interval, and the verdict."""
        return asdict(self) | {
            "copies": self.copies,
            "signs": list(self.signs),
            "sentence": self.sentence,
        }

    def _membership_text(self) -> str:
        if self.membership is None:
            return (
                f"Membership by loss needs two training and two held-out patients; there are "
                f"{self.n_training} and {self.n_held_out} cases."
            )
        return (
            f"Membership by loss: AUC {_text(self.membership.auc)} between {self.n_training} "
            f"training and {self.n_held_out} held-out cases (0.5 gives nothing away)."
        )

    def _neighbours_text(self) -> str:
        if self.share_nearer_training is None or self.expected_share is None:
            return "Nearest neighbours need held-out patches of other patients."
        return (
            f"Nearer to a training than to a held-out patch: {_text(self.share_nearer_training)} "
            f"of {self.n_synthetic} synthetic ones, {self.expected_share:.2f} expected."
        )

    def _duplicates_text(self) -> str:
        if self.copies_of_training is None or self.duplicates is None:
            return "Duplicates need two training and three synthetic patches."
        return (
            f"Nearly a training patch: {_text(self.copies_of_training)}; nearly another synthetic "
            f"one: {_text(self.duplicates)}."
        )

    def _verdict_text(self) -> str:
        if self.copies:
            return (
                f"Warning: the generator copies its training cases ({', '.join(self.signs)}). "
                "Train it for fewer steps, or share none of what it draws."
            )
        if self.membership is None and self.share_nearer_training is None:
            return "So nothing is known of copying; hold cases out to see it."
        return "No sign of copying at this n, which is not a proof of privacy."


def audit_copying(
    generator: LatentGenerator,
    training: Cohort,
    held_out: Cohort,
    synthetic: Cohort | None = None,
    *,
    seed: int = 0,
) -> CopyingAudit:
    """Membership by loss, nearest neighbours and duplicates of one generator.

    Args:
        generator: What is audited.
        training: Cases that it was trained on.
        held_out: Cases with masks that no part of it saw; may be empty.
        synthetic: What it drew; None where only the losses are wanted.
        seed: Seed of the noises and of the intervals of mean losses.

    Raises:
        InputError: A training case that did not train this generator, a held-out case that did, or
            cases without masks.
    """
    card = generator.card
    trained_on = set(card.training_cases)
    strangers = [case for case in training if case.digest() not in trained_on]
    if strangers or len(training) == 0:
        raise InputError(
            f"{len(strangers)} of the {len(training)} training cases did not train this generator. "
            "Give it the training cases of its own fold."
        )
    card.refuse_training_cases(held_out)
    patches = load_patches(training, *card.reading)
    others = load_patches(held_out, *card.reading) if len(held_out) else None
    drawn = load_patches(synthetic, *card.reading) if synthetic else None

    membership = None
    n_patients = [len({case.participant for case in side}) for side in (training, held_out)]
    if others is not None and min(n_patients) >= 2:
        membership = infer_membership(
            _of_patients(case_losses(generator, patches, seed=seed), training),
            _of_patients(case_losses(generator, others, seed=seed), held_out),
            seed,
        )
    share, expected, copied, duplicates = None, None, None, None
    if drawn is not None and synthetic is not None:
        rows = _voxels(drawn)
        if len(drawn) >= 3 and len(patches) >= 2:
            found = find_duplicates(rows, _voxels(patches))
            copied, duplicates = found.of_training, found.of_synthetic
        own_training, own_held_out = drawn_on(synthetic, training), drawn_on(synthetic, held_out)
        alone = own_training.all(axis=1).any() or own_held_out.all(axis=1).any()
        if others is not None and not alone:
            nearest = nearest_neighbour_ratio(
                rows,
                _voxels(patches),
                _voxels(others),
                not_training=own_training,
                not_held_out=own_held_out,
            )
            share, expected = nearest.share_nearer_training, nearest.expected_share
    return CopyingAudit(
        n_training=len(training),
        n_held_out=len(held_out),
        n_synthetic=0 if drawn is None else len(drawn),
        membership=membership,
        share_nearer_training=share,
        expected_share=expected,
        copies_of_training=copied,
        duplicates=duplicates,
    )


def case_losses(
    generator: LatentGenerator, patches: Patches, *, seed: int
) -> Float[np.ndarray, " n"]:
    """Mean flow loss of each case at t = ``TIME`` over ``NOISES`` noises that all cases share.

    With the label map and the outcome, as in training, on the patch where it lies. Latent channels
    weigh as they do in training, latent voxels all alike.
    """
    latents = standardised_latents(generator.autoencoder, patches.images)
    maps = patches.required_label_maps()
    draw = torch.Generator().manual_seed(seed)
    noises = torch.randn(NOISES, *latents.shape[1:], generator=draw)
    losses = []
    for rows in torch.arange(len(patches)).split(ENCODE_BATCH):
        told = Condition.of(patches.outcomes[rows], patches.log_scale[rows])
        of_noise = [
            velocity_loss(generator, latents[rows], maps[rows], told, noise) for noise in noises
        ]
        losses.append(torch.stack(of_noise).mean(0))
    return torch.cat(losses).double().numpy()


@torch.inference_mode()
def velocity_loss(
    generator: LatentGenerator,
    latents: Float[Tensor, "b c x y z"],
    label_maps: UInt8[Tensor, "b x2 y2 z2"],
    told: Condition,
    noise: Float[Tensor, "c x y z"],
) -> Float[Tensor, " b"]:
    """Squared error of the velocity of each case for one noise, as in training, on the CPU.

    Args:
        latents: Standardised, before the anatomy is taken off.
        told: Outcomes and scales of the cases.
        noise: At ``TIME``, for all cases.
    """
    here = fabric()
    z, maps, label, numbers, e = (
        here.to_device(x)
        for x in (latents, label_maps, told.label, told.numbers, noise.expand_as(latents))
    )
    classes = len(generator.card.classes)
    condition = Condition(label, numbers, class_fractions(maps, classes))
    gain = generator.autoencoder.encoder.latent_gain.view(-1, 1, 1, 1)
    residual = generator.anatomy.residual(z.float(), maps)
    t = torch.full((len(z),), TIME, device=z.device)
    with here.autocast():
        error = control_error(generator.unet, generator.controlnet, residual, e, t, condition, maps)
    return (error.float() * gain).mean((1, 2, 3, 4)).cpu()


def _of_patients(losses: Float[np.ndarray, " n"], cases: Cohort) -> Float[np.ndarray, " p"]:
    """Mean over the cases of each patient, who counts once."""
    _, patient = np.unique([case.participant for case in cases], return_inverse=True)
    return np.bincount(patient, losses) / np.bincount(patient)


def _voxels(patches: Patches) -> Float[np.ndarray, "n v"]:
    return patches.images.flatten(1).numpy()


def _text(interval: Interval) -> str:
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
