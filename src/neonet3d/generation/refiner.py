"""The refiner: takes the grain and the blocks out of a drawn patch, and sharpens it by its mask.

Few training steps leave the flow's finest channels close to noise, and the decoder turns that into
4x4x4 blocks. The refiner is the best linear guess of a scan's wavelet coefficients from those of
the drawn patch around them and from the label map at full resolution:

    haar(scan) ~ A * haar(drawn) + B * blocks(map) + C * fractions(map) + d

Its training pairs are the fold's own patches, each beside a redrawing of itself: noised most of the
way and drawn again by the flow (SDEdit, Meng et al. 2021, arXiv 2108.01073), which shows what the
flow does wrong. It is a ridge regression, fitted in seconds, and knows no outcome label. Having it
is our choice. Texture comes after it (``detail.py``).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from neonet3d.generation.controlnet import one_hot, space_to_depth
from neonet3d.generation.ridge import RidgeRegression, neighbourhood
from neonet3d.generation.wavelet import haar, haar_inverse
from neonet3d.types import ImageBatch, LabelBatch

RIDGE = 1e-3  # of the number of voxels
BANDS = 8
NEIGHBOURS = 27
MIDDLE = 13  # of the neighbours


class Refiner(nn.Module):
    """Linear map on wavelet coefficients; unfitted it is the identity. No statistic crosses voxels.

    Buffer ``weight`` (features, 8): the neighbours' coefficients, the map's voxels, the neighbours'
    class fractions, 1.
    """

    weight: Tensor

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        foreground = n_classes - 1
        self.sizes = (NEIGHBOURS * BANDS, BANDS * foreground, NEIGHBOURS * foreground, 1)
        weight = torch.zeros(sum(self.sizes), BANDS)
        weight[MIDDLE : self.sizes[0] : NEIGHBOURS] = torch.eye(BANDS)
        self.register_buffer("weight", weight)

    def regression(self) -> RidgeRegression:
        """An empty regression of this refiner's size."""
        return RidgeRegression(sum(self.sizes), BANDS, penalty=RIDGE)

    def show(
        self, regression: RidgeRegression, drawn: ImageBatch, maps: LabelBatch, scan: ImageBatch
    ) -> None:
        """Add training pairs, one patch at a time: the features of one are memory enough."""
        for d, m, s in zip(drawn.split(1), maps.split(1), scan.split(1), strict=True):
            regression.add(self.features(d, m), haar(s).movedim(1, -1))

    def features(self, drawn: ImageBatch, maps: LabelBatch) -> Float[Tensor, "b x y z f"]:
        """What ``weight`` multiplies, at half the resolution."""
        memberships = one_hot(maps, self.n_classes)
        near = neighbourhood(haar(drawn.float()))
        inside = space_to_depth(memberships).movedim(1, -1)
        around = neighbourhood(F.avg_pool3d(memberships, 2))
        return torch.cat([near, inside, around, torch.ones_like(near[..., :1])], dim=-1)

    def forward(self, drawn: ImageBatch, maps: LabelBatch) -> ImageBatch:
        """The refined patch, float32, without acquisition noise.

        ``haar_inverse(features @ weight)`` as convolutions, which need no neighbours in memory;
        what it changes, not what it keeps, goes through autocast.
        """
        memberships, bands = one_hot(maps, self.n_classes), haar(drawn.float())
        near, inside, around, constant = self.weight.split(self.sizes)
        near = near.clone()
        near[MIDDLE::NEIGHBOURS] -= torch.eye(BANDS, device=near.device)
        surroundings = torch.cat([bands, F.avg_pool3d(memberships, 2)], dim=1)
        kernel = torch.cat([near, around]).T.reshape(BANDS, -1, 3, 3, 3)
        change = (
            F.conv3d(F.pad(surroundings, (1,) * 6, mode="replicate"), kernel).float()
            + F.conv3d(space_to_depth(memberships), inside.T[..., None, None, None])
            + constant.view(-1, 1, 1, 1)
        )
        return haar_inverse(bands + change)
