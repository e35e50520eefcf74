"""Generators from other people's papers, to compare NeoGen with: two GANs, two diffusion models.

All are a ``Rival``: ``fit(patches, seconds=..., seed=...)``, then ``sample(label_maps, labels,
seed=...)``. What of each is from its paper and what is ours stands at the head of its module, and
together in ``docs/rivals.md``.
"""

from __future__ import annotations

from neonet3d.errors import InputError
from neonet3d.generation.rivals.alpha_wgan import AlphaWGAN
from neonet3d.generation.rivals.ha_gan import HAGAN
from neonet3d.generation.rivals.med_ddpm import MedDDPM
from neonet3d.generation.rivals.monai_ldm import MonaiLDM
from neonet3d.generation.rivals.rival import Rival
from neonet3d.types import Shape

RIVALS: dict[str, type[Rival]] = {
    rival.name: rival for rival in (AlphaWGAN, HAGAN, MedDDPM, MonaiLDM)
}


def build_rival(name: str, shape: Shape, n_classes: int, *, labelled: bool) -> Rival:
    """An untrained rival by its name.

    Raises:
        InputError: no rival has this name, or it cannot draw such patches.
    """
    if name not in RIVALS:
        raise InputError(f"There is no rival {name!r}. Choose one of {', '.join(RIVALS)}.")
    return RIVALS[name](shape, n_classes, labelled=labelled)
