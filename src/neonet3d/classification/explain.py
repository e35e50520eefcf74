"""Where PattenNet looks: attention, Grad-CAM and occlusion, on the grid of the patch.

Three different questions. *Attention*: how much of the learned pooling each place has. *Grad-CAM*
(Selvaraju et al. 2017, arXiv 1610.02391): where the refined maps speak for the outcome. *Occlusion*
(Zeiler & Fergus 2014, arXiv 1311.2901): how far the logit falls when a cube is replaced by plain
liver. The linear reading of the appearance factors is in the last alone. None of them says what the
outcome changes in a patient; for what the *generator* believes of that, see
``generation/counterfactual.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from neonet3d.classification.features import FrozenFeatures
from neonet3d.classification.patten import PattenEnsemble, PattenNet
from neonet3d.classification.patten_model import (
    PattenClassifier,
    ensemble_logits,
    patten_features,
)
from neonet3d.classification.predict import Classifier
from neonet3d.cohort.patches import Patches
from neonet3d.config import ClassifierConfig
from neonet3d.engine.device import fabric
from neonet3d.engine.progress import progress
from neonet3d.errors import InputError

CUBE = 8  # voxels of an edge that are occluded together
BATCH = 16
Maps = Float[Tensor, "n x y z"]


@dataclass(frozen=True)
class Explanation:
    """One map of each kind for each patch, means over the ensemble.

    Attributes:
        attention: sums to the number of voxels, so 1 is as much as anywhere.
        grad_cam: sum over the levels, not negative; compare places of one patch with it.
        occlusion: fall of the logit; positive where the patch speaks for the outcome.
    """

    attention: Maps
    grad_cam: Maps
    occlusion: Maps


def explain(classifier: Classifier, patches: Patches) -> Explanation:
    """Explain a PattenNet's logits of some patches, in their own orientation.

    Args:
        patches: on the classifier's grid, with masks where it was trained on them.

    Raises:
        InputError: another kind of classifier, or a case without a mask where it needs one.
    """
    model = _patten(classifier)
    if "deep" not in classifier.card.settings(ClassifierConfig).readings:
        raise InputError(
            "Attention and Grad-CAM are of the deep reading, and this PattenNet has none. Train "
            "one with it (--set classifier.readings=[deep,appearance])."
        )
    features = patten_features(model, classifier.card, patches, 1)
    attention, grad_cam = [], []
    for rows in torch.arange(len(patches)).split(BATCH):
        looked, spoke = _gradients(model.network, features, rows, patches.shape)
        attention.append(looked)
        grad_cam.append(spoke)
    return Explanation(
        torch.cat(attention), torch.cat(grad_cam), _occlude(classifier, model, patches)
    )


def occlusion(classifier: Classifier, patches: Patches) -> Maps:
    """The occlusion maps of ``explain`` alone, which every PattenNet has.

    Raises:
        InputError: another kind of classifier, or a case without a mask where it needs one.
    """
    return _occlude(classifier, _patten(classifier), patches)


def _patten(classifier: Classifier) -> PattenClassifier:
    if not isinstance(classifier.model, PattenClassifier):
        raise InputError(
            f"Explanations are of a PattenNet, and this is a {classifier.card.kind}. Choose one."
        )
    return classifier.model


def _gradients(
    network: PattenEnsemble, features: FrozenFeatures, rows: Tensor, shape: tuple[int, ...]
) -> tuple[Maps, Maps]:
    """Attention and Grad-CAM of some cases, on the CPU."""
    here = fabric()
    inputs = tuple(here.to_device(x) for x in features.batch(0, rows))
    looked = torch.zeros(len(rows), *shape)
    spoke = torch.zeros(len(rows), *shape)
    for member in network.members:
        assert isinstance(member, PattenNet)
        levels, regions, _ = member.unpacked(inputs)
        with torch.no_grad():
            refined = member.refine(levels)
        leaves = tuple(level.requires_grad_() for level in refined)
        slopes = torch.autograd.grad(member.deep(leaves, regions, len(rows)).sum(), leaves)
        for weight, level, slope in zip(member.gaze_weights(leaves), leaves, slopes, strict=True):
            looked += _on(weight * weight[0, 0].numel(), shape) / len(leaves)
            importance = slope.mean((2, 3, 4), keepdim=True) * level
            spoke += _on(importance.sum(1, keepdim=True).relu(), shape)
    n = len(network.members)
    return looked / n, spoke / n


def _on(maps: Float[Tensor, "b 1 u v w"], shape: tuple[int, ...]) -> Maps:
    """Linearly on the patch's grid, on the CPU."""
    grown = F.interpolate(maps.detach().float(), shape, mode="trilinear", align_corners=False)
    return grown[:, 0].cpu()


@torch.no_grad()
def _occlude(classifier: Classifier, model: PattenClassifier, patches: Patches) -> Maps:
    def logits(images: Maps) -> Float[Tensor, " n"]:
        seen = replace(patches, images=images)
        features = patten_features(model, classifier.card, seen, 1)
        return torch.from_numpy(ensemble_logits(model.network, features)).mean(0)

    plain, tissue = logits(patches.images), _plain_tissue(classifier, patches)
    fallen = torch.zeros(patches.images.shape)
    cubes = list(_cubes(patches.shape))
    with progress("occluding", len(cubes)) as advance:
        for cube in cubes:
            images = patches.images.clone()
            images[:, *cube] = tissue[:, None, None, None]
            fallen[:, *cube] = (plain - logits(images))[:, None, None, None]
            advance()
    return fallen


def _plain_tissue(classifier: Classifier, patches: Patches) -> Float[Tensor, " n"]:
    """Mean intensity of each patch's liver; of all of it where there is no liver."""
    schema, maps = classifier.card.schema_, patches.label_maps
    if maps is None or "liver" not in schema:
        return patches.images.mean((1, 2, 3))
    liver = (maps == schema.value("liver")).float()
    inside = (liver * patches.images).sum((1, 2, 3)) / liver.sum((1, 2, 3)).clamp_min(1)
    return torch.where(liver.any(-1).any(-1).any(-1), inside, patches.images.mean((1, 2, 3)))


def _cubes(shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
    starts = (range(0, n, CUBE) for n in shape)
    return [tuple(slice(i, i + CUBE) for i in corner) for corner in product(*starts)]
