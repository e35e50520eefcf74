from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from neonet3d.cohort.folds import Fold
from neonet3d.cohort.geometry import Grid
from neonet3d.config import LoopConfig, SamplerConfig
from neonet3d.engine.artefact import (
    ArtefactCard,
    load_training_state,
    load_weights,
    new_card,
    read_card,
    save_artefact,
    save_training_state,
)
from neonet3d.errors import InputError, RunError
from neonet3d.types import LabelSchema

MakeCard = Callable[..., ArtefactCard]


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.Linear(2, 3).bfloat16())


@pytest.fixture
def saved(tmp_path: Path, make_card: MakeCard) -> Path:
    save_artefact(tmp_path / "model", network(), make_card())
    return tmp_path / "model"


def rewrite(folder: Path, payload: bytes) -> ArtefactCard:
    """Weights and a card that names them, as an attacker would write both."""
    (folder / "model.safetensors").write_bytes(payload)
    card = json.loads((folder / "model.json").read_text())
    card["weights_sha256"] = hashlib.sha256(payload).hexdigest()
    (folder / "model.json").write_text(json.dumps(card))
    return read_card(folder)


def test_round_trip(tmp_path: Path, make_card: MakeCard) -> None:
    model, card = network(1), make_card().model_copy(update={"facts": {"loss": 0.5}})
    written = save_artefact(tmp_path, model, card)
    payload = (tmp_path / "model.safetensors").read_bytes()
    assert written.weights_sha256 == hashlib.sha256(payload).hexdigest()
    found = read_card(tmp_path, kind="Thing")
    assert found == written
    assert found.grid == Grid((24, 16, 8), (1.0, 1.0, 2.0))
    assert found.schema_ == LabelSchema(("background", "liver", "tumour"))
    other = network(2)
    load_weights(tmp_path, other, found)
    for name, tensor in model.state_dict().items():
        assert other.state_dict()[name].dtype == tensor.dtype
        assert torch.equal(other.state_dict()[name], tensor)


def test_a_resumed_loop_that_had_no_step_left_has_no_loss(
    tmp_path: Path, make_card: MakeCard
) -> None:
    card = make_card().model_copy(update={"facts": {"training_loss": float("nan")}})
    save_artefact(tmp_path, network(), card)
    assert "NaN" not in (tmp_path / "model.json").read_text()  # it would be no JSON
    assert read_card(tmp_path).facts["training_loss"] is None


def test_equal_weights_are_equal_bytes(tmp_path: Path, make_card: MakeCard) -> None:
    for name in ("a", "b"):
        save_artefact(tmp_path / name, network(1), make_card())
    for file in ("model.safetensors", "model.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_card_names_cases_by_hash_only(fold: Fold, saved: Path) -> None:
    card = read_card(saved)
    assert card.training_cases == tuple(sorted(case.digest() for case in fold.training))
    text = (saved / "model.json").read_text()
    assert not any(case.name in text for case in fold.training)
    assert str(fold.training.root) not in text
    assert (card.fold, card.outcome, card.seed) == ("fold-2", "pni", 4)


def test_no_pickle_is_written(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {"model.json", "model.safetensors"}
    payload = (saved / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", payload[:8])[0]
    assert set(json.loads(payload[8 : 8 + size])) == set(network().state_dict())


def test_other_weights_are_refused(saved: Path) -> None:
    path = saved / "model.safetensors"
    payload = bytearray(path.read_bytes())
    payload[-1] ^= 1
    path.write_bytes(payload)
    with pytest.raises(InputError, match="not the file that model"):
        load_weights(saved, network(), read_card(saved))
    path.unlink()
    with pytest.raises(InputError, match="holds no model"):
        load_weights(saved, network(), read_card(saved))


def header(text: bytes, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if size is None else size) + text


HOSTILE = {
    "nothing": b"",
    "no json": header(b"not json"),
    "a header of 2^63 bytes": header(b"{}", 2**63),
    "a header longer than the file": header(b"{}", 10_000),
    "offsets outside": header(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
    "a shape that overflows": header(
        b'{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}}'
    ),
    "a type that does not exist": header(
        b'{"a":{"dtype":"PICKLE","shape":[0],"data_offsets":[0,0]}}'
    ),
    "a pickle": b"\x80\x04\x95\x17\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93.",
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused(saved: Path, payload: bytes) -> None:
    card = rewrite(saved, payload)
    with pytest.raises(InputError, match="cannot be read"):
        load_weights(saved, network(), card)


def test_weights_of_another_network_are_refused(saved: Path) -> None:
    for other in (nn.Linear(2, 3), nn.Sequential(nn.Conv3d(1, 3, 3))):
        with pytest.raises(InputError, match="do not fit the Thing"):
            load_weights(saved, other, read_card(saved))


def test_cards_that_do_not_fit(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds a Thing, not a Segmenter"):
        read_card(saved, kind="Segmenter")
    with pytest.raises(InputError, match=r"holds no model\.json"):
        read_card(tmp_path / "nowhere")
    good = json.loads((saved / "model.json").read_text())
    for text in ("{", json.dumps(good | {"note": 1}), json.dumps(good | {"seed": "x"})):
        (saved / "model.json").write_text(text)
        with pytest.raises(InputError, match="not a model card of this version"):
            read_card(saved)


def test_a_card_without_a_grid(fold: Fold, loop_config: LoopConfig) -> None:
    card = new_card("Thing", fold=fold, config=loop_config, seed=0, normaliser=None, grid=None)
    with pytest.raises(InputError, match="records no grid"):
        _ = card.grid


def test_classes_and_cases_that_it_must_not_meet(fold: Fold, make_card: MakeCard) -> None:
    card = make_card()
    card.refuse_other_classes(fold.training.schema)
    with pytest.raises(InputError, match="knows the classes"):
        card.refuse_other_classes(LabelSchema(("background", "tumour", "liver")))
    card.refuse_training_cases(fold.held_out)
    with pytest.raises(InputError, match="3 of the 3 held-out cases trained this Thing"):
        card.refuse_training_cases(fold.training)


def test_the_key_is_what_decides_the_weights(make_card: MakeCard) -> None:
    card = make_card()
    known = card.model_copy(update={"facts": {"loss": 1.0}, "weights_sha256": "f" * 64})
    assert make_card().key() == card.key() == known.key()
    parent = card.model_copy(update={"weights_sha256": "a" * 64})
    other_parent = card.model_copy(update={"weights_sha256": "b" * 64})
    keys = {
        card.key(),
        make_card(seed=5).key(),
        make_card("Other").key(),
        make_card(unet=parent).key(),
        make_card(unet=other_parent).key(),
    }
    assert len(keys) == 5


def test_training_state_round_trip(tmp_path: Path) -> None:
    tensors = {"weight/a": torch.randn(3, 2).T, "moment/step/a": torch.tensor(7.0)}
    save_training_state(tmp_path / "state", tensors, 41)
    found, step = load_training_state(tmp_path / "state")
    assert step == 41
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_a_damaged_training_state(tmp_path: Path) -> None:
    save_training_state(tmp_path / "state", {"a": torch.zeros(9)}, 1)
    payload = (tmp_path / "state").read_bytes()
    (tmp_path / "state").write_bytes(payload[: len(payload) // 2])
    with pytest.raises(RunError, match=r"cannot be read .* Remove it"):
        load_training_state(tmp_path / "state")


def test_the_configuration_of_a_card(make_card: MakeCard) -> None:
    card = make_card()
    assert card.settings(LoopConfig).model_dump(mode="json") == card.config
    with pytest.raises(InputError, match=r"does not fit this version .* Train the model again"):
        card.settings(SamplerConfig)


def test_a_module_in_two_places_is_stored_once(tmp_path: Path, make_card: MakeCard) -> None:
    """As MONAI's DynUNet has it: safetensors refuses tensors that share memory."""

    def twice() -> nn.Module:
        shared = nn.Linear(3, 3)
        return nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)})

    model, other = twice(), twice()
    card = save_artefact(tmp_path, model, make_card())
    load_weights(tmp_path, other, card)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
