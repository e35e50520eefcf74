from __future__ import annotations

from typing import get_args

import pytest

from neonet3d.cohort.geometry import Grid
from neonet3d.config import PRESETS, NetworkName, SegmenterConfig, load_config
from neonet3d.errors import InputError
from neonet3d.segmentation.networks import SegmentationNetwork, size_multiple
from neonet3d.segmentation.plan import Fingerprint, make_plan
from neonet3d.types import Shape, Triple

GIGABYTE = 2**30
LIVER = Fingerprint(40, (2.0, 2.0, 4.0), (310.0, 240.0, 200.0), 16 * GIGABYTE)
HIPPOCAMPUS = Fingerprint(128, (1.0, 1.0, 1.0), (35.0, 50.0, 35.0), 16 * GIGABYTE)


def config(*overrides: str) -> SegmenterConfig:
    return load_config("cpu", overrides=[f"segmenter.{o}" for o in overrides]).segmenter


def test_the_fingerprint_is_the_median_scan() -> None:
    grids = [
        Grid((100, 80, 40), (1.0, 1.0, 2.0)),
        Grid((50, 50, 50), (2.0, 2.0, 2.0)),
        Grid((200, 90, 60), (1.5, 1.5, 5.0)),
    ]
    found = Fingerprint.of(grids, memory_bytes=1)
    assert found == Fingerprint(3, (1.5, 1.5, 2.0), (100.0, 100.0, 100.0), 1)


def test_a_small_scan_is_one_patch() -> None:
    plan = make_plan(HIPPOCAMPUS, config("network=dynunet"))
    assert not plan.stem
    assert plan.patch == (40, 56, 40)  # 35x50x35, up to multiples of 8
    assert plan.channels == (16, 32, 64, 128)
    assert plan.strides == ((2, 2, 2),) * 3


def test_a_large_scan_gets_a_patch_of_equal_extent() -> None:
    plan = make_plan(LIVER, config("network=unet", "patch_voxels=450000"))
    assert plan.stem
    assert plan.patch == (96, 96, 48)
    assert plan.channels == (32, 64, 128, 256)
    # The thick axis is halved only once the others are as coarse.
    assert plan.strides == ((2, 2, 1), (2, 2, 2), (2, 2, 2))


def test_memory_bounds_the_patch() -> None:
    rich, poor = (
        Fingerprint(9, (1.0, 1.0, 1.0), (400.0, 400.0, 400.0), n * GIGABYTE) for n in (64, 1)
    )
    settings = config(
        "network=unet", "width=32", "patch_voxels=4000000", "full_resolution_voxels=4000000"
    )
    sizes = [make_plan(fingerprint, settings).patch for fingerprint in (rich, poor)]
    assert sizes[0] == (128, 128, 128)  # in multiples of 32
    # Half of 1 GiB at 64 bytes x 32 channels x 2 patches: 131,072 voxels, 50 per axis
    assert sizes[1] == (48, 48, 48)  # in multiples of 16


def test_heavy_kernels_get_the_stem_earlier() -> None:
    plans = {name: make_plan(HIPPOCAMPUS, config(f"network={name}")) for name in ("vnet", "unet")}
    assert plans["vnet"].stem
    assert plans["vnet"].patch == (64, 64, 64)
    assert not plans["unet"].stem


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("network", get_args(NetworkName))
@pytest.mark.parametrize(
    ("spacing_mm", "extent_mm"),
    [((1.0, 1.0, 1.0), (9.0, 9.0, 9.0)), ((0.7, 0.7, 6.0), (350.0, 350.0, 200.0))],
)
def test_every_plan_can_be_built(
    preset: str, network: str, spacing_mm: Triple, extent_mm: Triple
) -> None:
    settings = load_config(preset, overrides=[f"segmenter.network={network}"]).segmenter
    plan = make_plan(Fingerprint(1, spacing_mm, extent_mm, 8 * GIGABYTE), settings)
    assert all(n % m == 0 for n, m in zip(plan.patch, size_multiple(plan), strict=True))
    SegmentationNetwork(plan, 3)


def test_what_the_user_gives_stands() -> None:
    plan = make_plan(
        LIVER,
        config(
            "network=attention_unet",
            "spacing_mm=[1.0,1.0,3.0]",
            "patch=[30,40,20]",
            "channels=[8,8]",
            "strides=[[2,2,1]]",
            "stem=true",
        ),
    )
    assert (plan.spacing_mm, plan.channels, plan.strides) == ((1, 1, 3), (8, 8), ((2, 2, 1),))
    assert plan.patch == (32, 40, 20)  # multiples of (4, 4, 2)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("network=unet", "channels=[8,8]", "strides=[[2,2,2],[2,2,2]]"), "one stride fewer"),
        (("network=dynunet", "channels=[8,8]"), "needs 3 or more"),
        (("network=dynunet", "strides=[[2,2,2]]"), "needs 3 or more"),
        (("network=vnet", "channels=[8,8,8,8,8]"), "as published"),
        (("network=segresnet", "strides=[[2,2,2]]"), "3 or 4 levels"),
        (("network=segresnet", "strides=[[2,2,2],[2,2,1]]"), "as published"),
        (("network=segresnet", "channels=[8,8,8]"), "as published"),
    ],
)
def test_sizes_that_contradict(overrides: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make_plan(LIVER, config(*overrides))


@pytest.mark.parametrize("network", get_args(NetworkName))
def test_a_plan_given_back_is_the_same_plan(network: str) -> None:
    settings = config(f"network={network}")
    plan = make_plan(LIVER, settings)
    again = settings.model_copy(update=plan.model_dump())
    assert make_plan(LIVER, again) == plan


@pytest.mark.parametrize("override", ["patch=[0,8,8]", "spacing_mm=[-1,1,1]", "strides=[[0,2,2]]"])
def test_sizes_are_positive(override: str) -> None:
    with pytest.raises(InputError, match="greater than 0"):
        config(override)


def test_channels_decide_the_depth() -> None:
    plan = make_plan(HIPPOCAMPUS, config("network=unet", "channels=[4,8,8,8,8]"))
    assert len(plan.strides) == 4
    shape: Shape = size_multiple(plan)
    assert all(n % m == 0 for n, m in zip(plan.patch, shape, strict=True))


@pytest.mark.parametrize(("patch", "levels"), [((48, 48, 48), 4), ((48, 48, 24), 3)])
def test_a_thin_patch_costs_a_segresnet_its_lowest_level(patch: Shape, levels: int) -> None:
    plan = make_plan(LIVER, config("network=segresnet", f"patch={list(patch)}", "stem=true"))
    assert plan.strides == ((2, 2, 2),) * (levels - 1)
    assert plan.patch == patch
    given_back = config("network=segresnet").model_copy(update=plan.model_dump())
    assert make_plan(LIVER, given_back) == plan
