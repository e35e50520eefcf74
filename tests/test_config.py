from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
from pydantic import ValidationError

from neonet3d.config import PRESETS, LoopConfig, RoiConfig, fingerprint, load_config
from neonet3d.errors import InputError

LOOP = {"steps": 10, "batch_size": 2, "learning_rate": 1e-3, "weight_decay": 0, "ema_decay": 0.9}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_whole(preset: str) -> None:
    if not resources.files("neonet3d").joinpath("presets", f"{preset}.yaml").is_file():
        pytest.skip(f"presets/{preset}.yaml is not written yet")
    config = load_config(preset)
    assert type(config).model_validate(config.model_dump(mode="json")) == config


def test_later_wins(tmp_path: Path) -> None:
    """Preset, then file, then --set, then --seed."""
    preset = load_config("demo")
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 5\nroi: {margin_mm: 7}\nstudy: {folds: 3}\n")
    config = load_config(
        "demo", file=file, overrides=["study.folds=4", "roi.shape=[8,8,8]"], seed=9
    )
    assert (config.seed, config.study.folds) == (9, 4)
    assert (config.roi.margin_mm, config.roi.shape) == (7, (8, 8, 8))
    assert config.roi.spacing_mm == preset.roi.spacing_mm
    assert config.unet == preset.unet


def test_a_number_as_people_write_it() -> None:
    """YAML 1.1 reads 8e-5 as text."""
    config = load_config("demo", overrides=["unet.loop.learning_rate=8e-5"])
    assert config.unet.loop.learning_rate == 8e-5


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("roi.margin=3", "roi.margin: there is no such key"),
        ("roi.margin_mm=-3", "roi.margin_mm: .*greater than or equal to 0"),
        ("roi.shape=[8,8]", "Configuration key roi.shape"),
        ("seed", "has no '='"),
        ("=3", "there is no such key"),
        ("roi=3", "Configuration key roi"),
        ("roi.shape=[8,", "is not YAML"),
    ],
)
def test_a_bad_override_names_the_key(override: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_config("demo", overrides=[override])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"roi: [", "is not YAML"), (b"- 1\n", "holds no"), (b"\xff\xfe\x00", "is not YAML")],
)
def test_a_bad_file_is_an_input_error(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        load_config("demo", file=tmp_path / "c.yaml")


def test_what_does_not_exist_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Choose one of demo, cpu, gpu"):
        load_config("laptop")
    with pytest.raises(InputError, match="no configuration file"):
        load_config("demo", file=tmp_path / "absent.yaml")


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("# nothing yet\n")
    assert load_config("demo", file=tmp_path / "c.yaml") == load_config("demo")


def test_a_section_is_frozen_and_refuses_unknown_keys() -> None:
    loop = LoopConfig.model_validate(LOOP)
    with pytest.raises(ValidationError):
        loop.steps = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        LoopConfig.model_validate(LOOP | {"step": 3})


def test_the_fingerprint_sees_every_value_and_no_order() -> None:
    loop = LoopConfig.model_validate(LOOP)
    assert fingerprint(loop) == fingerprint(LoopConfig.model_validate(dict(reversed(LOOP.items()))))
    assert fingerprint(loop) != fingerprint(loop.model_copy(update={"steps": 11}))
    assert fingerprint(loop, "a") != fingerprint(loop, "b")
    roi = RoiConfig(
        around="tumour", shape=(8, 8, 8), spacing_mm=(1, 1, 1), margin_mm=0, minimum_volume_mm3=0
    )
    assert fingerprint(roi, {"b": 1, "a": 2}) == fingerprint(roi, {"a": 2, "b": 1})
