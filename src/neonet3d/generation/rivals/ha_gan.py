"""A hierarchical amortized GAN (HA-GAN, Sun et al. 2022, arXiv 2008.01910), told the mask.

From the paper: a shared trunk draws features of the whole volume at a quarter of its resolution;
one branch makes a small whole image of them, another a slab at full resolution, at a random place
along the first axis; two discriminators with spectral norms, of which the logits are averaged; the
slab's one is told the place. An encoder takes slabs to the trunk's features and those of all slabs
to a code; both reconstruct. Binary cross-entropy; Adam, 1e-4 (discriminators 4e-4), betas 0 and
.999; batches of 4. A sample runs the upper branch over the whole. The outcome is a one-hot vector
beside the code, and an auxiliary classifier in the discriminators is trained on real images, with
a weight of 1 there and of 0.1 for the generator, as in the published code.

Ours:

- The mask. The paper's model knows none. Here the classes' fractions stand beside the features in
  the trunk and half-way up, the one-hot mask beside the last features and beside the images that
  the discriminators see. So it is mask-conditioned at full resolution.
- The reconstructions teach the generator too, with a weight of 5; in the published code they teach
  the encoder alone, and samples would be the same without it.
- Slabs begin on the trunk's own planes, so that features and voxels lie upon each other (the
  published code draws any plane and rounds). The upper branch norms each voxel by itself, so that a
  slab is what it is in the whole; group norms would differ.
- The whole image passes the encoder at once, which gives the slabs' features without their borders.
- The small image is a mean of 4x4x4 voxels. A slab is a quarter of the axis (an eighth there).
- Sizes: 32 to 128 channels, codes of 128 numbers (1024 there), 8x down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from neonet3d.engine.device import fabric
from neonet3d.generation.rivals.batches import Batch, TrainingSet, fractions, label_vector
from neonet3d.generation.rivals.budget import Part
from neonet3d.generation.rivals.ha_networks import (
    COARSE,
    CODE,
    CodeEncoder,
    FeatureEncoder,
    HierarchicalGenerator,
    SlabDiscriminator,
    SmallDiscriminator,
)
from neonet3d.generation.rivals.layers import descend, frozen
from neonet3d.generation.rivals.rival import Rival, draw_noise
from neonet3d.segmentation.convolution import guard_short_grids
from neonet3d.types import ImageBatch, OneHotBatch

BATCH = 4
LEARNING_RATE, JUDGE_LEARNING_RATE, BETAS = 1e-4, 4e-4, (0.0, 0.999)
CLASS_WEIGHT = 0.1  # of the auxiliary classifier, for the generator
RECONSTRUCTION = 5.0
SLABS = 4  # a slab is the axis over this, in whole planes of the trunk, at least two


@dataclass(frozen=True)
class Slab:
    """Planes of the trunk, from ``first`` on; in voxels four times as many."""

    first: int
    planes: int
    of: int

    @property
    def place(self) -> float:
        """Of the first plane, from 0 to 1."""
        return self.first / (self.of - self.planes)

    def features(self, h: Tensor) -> Tensor:
        return h[:, :, self.first : self.first + self.planes]

    def voxels(self, x: Tensor) -> Tensor:
        return x[:, :, COARSE * self.first : COARSE * (self.first + self.planes)]


class HAGAN(Rival):
    """A hierarchical GAN with a mask; see the module."""

    name = "ha-gan"
    generator: HierarchicalGenerator
    slab_judge: SlabDiscriminator
    small_judge: SmallDiscriminator
    features: FeatureEncoder
    coder: CodeEncoder

    @property
    def planes(self) -> tuple[int, int]:
        """The trunk's planes in a slab, and in the whole."""
        whole = self.shape[0] // COARSE
        return max(2, whole // SLABS), whole

    def _parts(self, data: TrainingSet) -> Iterator[Part]:
        slab = (COARSE * self.planes[0], *self.shape[1:])
        self.generator = HierarchicalGenerator(self.shape, self.n_masks, self.n_labels)
        self.features, self.coder = FeatureEncoder(), CodeEncoder(self.shape)
        drawing: list[nn.Module] = [self.generator, self.features, self.coder]
        for network in drawing:
            guard_short_grids(network)
        # Guarded before a spectral norm hides what their convolutions are.
        self.slab_judge = SlabDiscriminator(slab, self.n_masks, self.n_labels)
        self.small_judge = SmallDiscriminator(self.shape, self.n_masks, self.n_labels)
        judging: list[nn.Module] = [self.slab_judge, self.small_judge]
        for network in (*drawing, *judging):
            fabric().to_device(network).train()
        optimisers = [
            torch.optim.Adam([p for one in networks for p in one.parameters()], rate, betas=BETAS)
            for networks, rate in ((drawing, LEARNING_RATE), (judging, JUDGE_LEARNING_RATE))
        ]
        yield Part("gan", 1.0, lambda: self._step(data.draw(BATCH), *optimisers))
        for network in drawing:
            network.eval().requires_grad_(False)

    def _step(
        self, batch: Batch, drawing: torch.optim.Optimizer, judging: torch.optim.Optimizer
    ) -> dict[str, Tensor]:
        planes, whole = self.planes
        slab = Slab(int(torch.randint(whole - planes + 1, ())), planes, whole)
        label = label_vector(batch.labels, self.n_labels)
        masks, real = slab.voxels(batch.masks), slab.voxels(batch.images)
        real_small = F.avg_pool3d(batch.images, COARSE)
        with fabric().autocast(), frozen(self.slab_judge, self.small_judge):
            code = torch.randn(len(label), CODE, device=label.device)
            h = self.generator.trunk(code, label, batch.masks)
            small, fine = self.generator.small(h), self.generator.fine(slab.features(h), masks)
            logits = self._logits(fine, small, batch, slab)
            verdict = real_or_fake(logits, 1.0)
            loss = verdict + CLASS_WEIGHT * class_loss(logits[:, 1:], batch.labels)
            reconstruction = self._reconstruction(batch, slab, label, real_small)
        descend(drawing, loss + RECONSTRUCTION * reconstruction)
        with fabric().autocast():
            seen = self._logits(real, real_small, batch, slab)
            made = self._logits(fine.detach(), small.detach(), batch, slab)
        wrong = real_or_fake(seen, 1.0) + real_or_fake(made, 0.0)
        descend(judging, wrong + class_loss(seen[:, 1:], batch.labels))
        return {"generator": verdict, "discriminator": wrong, "reconstruction": reconstruction}

    def _reconstruction(
        self, batch: Batch, slab: Slab, label: Float[Tensor, "b l"], small: ImageBatch
    ) -> Tensor:
        """Mean absolute errors: of the slab from its features, of slab and whole from the code."""
        masks, real = slab.voxels(batch.masks), slab.voxels(batch.images)
        features = self.features(batch.images)
        again = self.generator.fine(slab.features(features), masks)
        h = self.generator.trunk(self.coder(features), label, batch.masks)
        coarse = F.l1_loss(self.generator.small(h), small)
        fine = F.l1_loss(self.generator.fine(slab.features(h), masks), real)
        return F.l1_loss(again, real) + (coarse + fine) / 2

    def _logits(
        self, fine: ImageBatch, small: ImageBatch, batch: Batch, slab: Slab
    ) -> Float[Tensor, "b 1+l"]:
        upper = self.slab_judge(fine, slab.voxels(batch.masks), slab.place)
        logits: Tensor = (upper + self.small_judge(small, fractions(batch.masks, COARSE))) / 2
        return logits

    def _draw(
        self, masks: OneHotBatch, labels: Int[Tensor, " b"], generator: torch.Generator
    ) -> ImageBatch:
        code = draw_noise((len(labels), CODE), generator)
        with fabric().autocast():
            h = self.generator.trunk(code, label_vector(labels, self.n_labels), masks)
            return self.generator.fine(h, masks)


def real_or_fake(logits: Float[Tensor, "b 1+l"], wanted: float) -> Float[Tensor, ""]:
    """Cross-entropy of the first logit for 1 (real) or 0 (fake)."""
    first = logits[:, 0]
    return F.binary_cross_entropy_with_logits(first, torch.full_like(first, wanted))


def class_loss(logits: Float[Tensor, "b l"], labels: Int[Tensor, " b"]) -> Float[Tensor, ""]:
    """Mean cross-entropy over the cases whose label is said; 0 where there is none."""
    said = labels >= 0
    if not logits.shape[1] or not bool(said.any()):
        return logits.new_zeros(())
    return F.cross_entropy(logits[said], labels[said])
