from __future__ import annotations

import errno
import gzip
import tracemalloc
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations
from scipy.spatial.transform import Rotation

from neonet3d.cohort.volume import (
    Volume,
    corner_distance_mm,
    read_label_map,
    read_volume,
    require_same_grid,
    write_atomically,
)
from neonet3d.errors import InputError

SPACING_MM = (0.7, 1.1, 2.5)
ALL_ORIENTATIONS = [
    np.column_stack([axes, flips])
    for axes in permutations(range(3))
    for flips in product((1, -1), repeat=3)
]


def oblique_affine(degrees: float = 12.0) -> np.ndarray:
    affine = np.eye(4)
    rotation = Rotation.from_euler("xyz", [degrees, -degrees / 2, degrees / 3], degrees=True)
    affine[:3, :3] = rotation.as_matrix() * SPACING_MM
    affine[:3, 3] = (-80.0, 35.5, 12.25)
    return affine


def scan(shape: tuple[int, int, int] = (4, 5, 6)) -> np.ndarray:
    return np.random.default_rng(1).normal(100, 20, shape).astype(np.float32)


def save(path: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


@pytest.mark.parametrize("orientation", ALL_ORIENTATIONS, ids=lambda o: str(o.tolist()))
def test_all_48_orientations_round_trip(tmp_path: Path, orientation: np.ndarray) -> None:
    ras, ras_affine = scan(), oblique_affine()
    data = orientations.apply_orientation(ras, orientation)
    affine = ras_affine @ orientations.inv_ornt_aff(orientation, ras.shape)
    brought = save(tmp_path / "brought.nii.gz", data, affine)

    volume = read_volume(brought)
    np.testing.assert_array_equal(volume.data, ras)
    np.testing.assert_allclose(volume.affine, ras_affine, atol=1e-4)
    assert volume.spacing_mm == pytest.approx(SPACING_MM, abs=1e-5)
    assert volume.user_axes == nib.aff2axcodes(affine)

    volume.write(tmp_path / "written.nii.gz")
    written = nib.load(tmp_path / "written.nii.gz")
    np.testing.assert_array_equal(written.get_fdata(), data)
    np.testing.assert_allclose(written.affine, affine, atol=1e-4)

    again = read_volume(tmp_path / "written.nii.gz")
    np.testing.assert_array_equal(again.data, volume.data)
    assert corner_distance_mm(again, volume) < 1e-4


def test_the_orientations_are_48() -> None:
    assert len({str(orientation) for orientation in ALL_ORIENTATIONS}) == 48


@pytest.mark.parametrize("degrees", [1e-3, 0.02, 0.06, 0.3, 5.0])
def test_what_we_write_near_180_degrees_can_be_read_again(tmp_path: Path, degrees: float) -> None:
    """A float32 quaternion is off by 0.4 mm here; the file must not hold it."""
    affine = np.eye(4)
    turn = Rotation.from_euler("z", 180 - degrees, degrees=True)
    tilt = Rotation.from_euler("x", degrees, degrees=True)
    affine[:3, :3] = (turn * tilt).as_matrix()
    save(tmp_path / "a.nii.gz", scan((400, 400, 3)), affine)
    volume = read_volume(tmp_path / "a.nii.gz")
    volume.write(tmp_path / "b.nii.gz")
    assert corner_distance_mm(read_volume(tmp_path / "b.nii.gz"), volume) < 1e-3
    header = nib.load(tmp_path / "b.nii.gz")
    if header.header["qform_code"]:
        np.testing.assert_allclose(header.get_qform(), affine, atol=1e-5)


def test_slight_shear_survives_writing(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[0, 1] = 8e-4
    volume = Volume(scan((300, 300, 2)), affine)
    volume.write(tmp_path / "a.nii.gz")
    assert corner_distance_mm(read_volume(tmp_path / "a.nii.gz"), volume) < 1e-3


def test_volume_of_a_voxel_is_its_determinant() -> None:
    volume = Volume(scan(), oblique_affine())
    assert volume.voxel_volume_mm3 == pytest.approx(np.prod(SPACING_MM))


def test_with_data_keeps_the_grid() -> None:
    volume = Volume(scan(), oblique_affine())
    assert volume.with_data(volume.data * 2).affine is volume.affine
    with pytest.raises(ValueError, match="does not fit"):
        volume.with_data(np.zeros((2, 2, 2), np.float32))


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9, 0.999])
def test_a_truncated_stream_is_an_error(tmp_path: Path, kept: float) -> None:
    whole = save(tmp_path / "a.nii.gz", scan((20, 20, 20)), np.eye(4)).read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(InputError, match=r"case_1: .*damaged"):
        read_volume(tmp_path / "a.nii.gz", name="case_1")


def test_every_flipped_bit_of_the_stream_is_an_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    path = save(tmp_path / "a.nii.gz", scan((12, 12, 12)), np.eye(4))
    whole = path.read_bytes()
    start = 10 + len("a.nii") + 1  # after the gzip header with its file name
    for place in rng.integers(start, len(whole), 60):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(InputError, match="damaged"):
            read_volume(path)


def raw(data: np.ndarray | None = None, affine: np.ndarray | None = None) -> bytearray:
    data, affine = scan() if data is None else data, np.eye(4) if affine is None else affine
    return bytearray(nib.Nifti1Image(data, affine).to_bytes())


def without_affine(spacing: float) -> bytearray:
    payload = raw()
    payload[252:256] = bytes(4)  # qform_code and sform_code
    payload[80:84] = np.float32(spacing).tobytes()
    return payload


def flat() -> bytearray:
    payload = raw()
    payload[312:328] = bytes(16)  # the third row of the sform
    return payload


def with_data_type(code: int) -> bytearray:
    payload = raw()
    payload[70:72] = np.int16(code).tobytes()
    return payload


def with_unit(code: int) -> bytearray:
    payload = raw()
    payload[123] = code
    return payload


def with_value(value: float) -> bytearray:
    data = scan()
    data[1, 2, 3] = value
    return raw(data)


def sheared() -> np.ndarray:
    affine = np.eye(4)
    affine[0, 1] = 0.2
    return affine


RGB = np.zeros((3, 4, 5), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
BAD_FILES = {
    "nothing": (b"", "not a whole NIfTI"),
    "text": (b"hello" * 200, "not a whole NIfTI"),
    "half a header": (bytes(raw()[:200]), "not a whole NIfTI"),
    "half of the voxels": (bytes(raw()[:600]), "not a whole NIfTI"),
    "unknown voxel type": (with_data_type(999), "not a whole NIfTI"),
    "zero spacing": (without_affine(0), r"voxel size of \[0.0, 1.0, 1.0\]"),
    "negative spacing": (without_affine(-2), r"voxel size of \[-2.0"),
    "micrometres": (raw(affine=np.diag([700.0, 700, 900, 1])), "900 mm long"),
    "singular": (flat(), "affine is not usable"),
    "shear": (raw(affine=sheared()), "sheared"),
    "header in µm": (with_unit(3), r"spacing in µm \(1, 1, 1 µm\)"),
    "header in m": (with_unit(1), r"spacing in m "),
    "metres": (raw(affine=np.diag([7e-4, 7e-4, 9e-4, 1])), "0.0009 mm long"),
    "NaN": (with_value(np.nan), r"1 voxels are NaN or Inf, the first at \(1, 2, 3\)"),
    "beyond float32": (raw(scan().astype(np.float64) * 1e300), "NaN or Inf"),
    "constant": (raw(np.full((3, 4, 5), 7, np.int16)), "every voxel has the value 7"),
    "RGB": (raw(RGB), "voxels are RGB"),
    "complex": (raw(scan().astype(np.complex64)), "voxels are complex"),
    "4-D": (raw(np.ones((3, 4, 5, 2), np.int16)), "4 dimensions .*Choose one channel"),
    "2-D": (raw(np.ones((3, 4), np.int16)), "2 dimensions"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_an_input_error_that_names_the_case(tmp_path: Path, kind: str) -> None:
    payload, sentence = BAD_FILES[kind]
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(payload))
    with pytest.raises(InputError, match=rf"(?s)^case_9: .*{sentence}"):
        read_volume(tmp_path / "a.nii.gz", name="case_9")


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        read_volume(tmp_path / "absent.nii.gz")


def test_a_single_fourth_axis_is_squeezed(tmp_path: Path) -> None:
    data = scan()
    save(tmp_path / "a.nii", data[..., None], np.eye(4))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").data, data)


def test_nifti2_and_scaled_integers_are_read(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(scan(), np.eye(4)), tmp_path / "a.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").data, scan())
    image = nib.Nifti1Image(np.arange(60, dtype=np.float64).reshape(3, 4, 5), np.eye(4))
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "b.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "b.nii").data.ravel(), range(60), atol=2e-3)


def test_of_two_places_the_sform_is_read(tmp_path: Path) -> None:
    """What NIfTI demands; 'cohort check' warns of it."""
    image = nib.Nifti1Image(scan(), np.eye(4))
    image.set_sform(oblique_affine(), code=1)
    image.set_qform(np.diag([1, 1, 1.2, 1]), code=1)
    nib.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii.gz").affine, oblique_affine(), 1e-6)


def test_the_place_of_a_bad_voxel_is_that_in_the_file(tmp_path: Path) -> None:
    data = scan()
    data[3, 0, 2] = np.inf
    path = save(tmp_path / "a.nii.gz", data, np.diag([-1.0, 1, 1, 1]))
    with pytest.raises(InputError, match=r"1 voxels are NaN or Inf, the first at \(3, 0, 2\)"):
        read_volume(path)


def test_an_image_as_mask_is_called_an_image(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", scan((9, 9, 9)), np.eye(4))
    with pytest.raises(InputError, match=r"729 different values from .*, so it is an image"):
        read_label_map(path, n_classes=3)


def test_label_ids_with_gaps_get_a_remap(tmp_path: Path) -> None:
    mask = np.zeros((4, 5, 6), np.int16)
    mask[1], mask[2] = 26, 205
    path = save(tmp_path / "a.nii.gz", mask, np.eye(4))
    with pytest.raises(InputError, match=r"26 \(30 voxels\), 205 \(30.*26 -> 1, 205 -> 2\.$"):
        read_label_map(path, n_classes=3)
    mask[3] = 2
    path = save(tmp_path / "a.nii.gz", mask, np.eye(4))
    with pytest.raises(InputError, match="remap 26, 205 in the mask or add the classes"):
        read_label_map(path, n_classes=3)


def test_a_file_that_inflates_beyond_its_header_is_refused_early(tmp_path: Path) -> None:
    """64 MiB behind a header that declares 480 bytes of voxels; memory stays small."""
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(bytes(raw()) + bytes(64 << 20)))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"case_3: .*made to fill the memory.*declares 1024 bytes"):
        read_volume(path, name="case_3")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("n", [32767, 3000])
def test_a_header_that_declares_more_than_the_stream_can_hold_is_refused(
    tmp_path: Path, n: int
) -> None:
    payload = raw()
    payload[42:48] = np.full(3, n, np.int16).tobytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(payload))
    with pytest.raises(InputError, match=r"damaged \(its header declares \d+ bytes of voxels"):
        read_volume(tmp_path / "a.nii.gz")


def test_what_is_no_nifti_is_not_inflated(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(64 << 20)))
    with pytest.raises(InputError, match="is damaged or no NIfTI file"):
        read_volume(tmp_path / "a.nii.gz")


def test_labels_are_rounded_and_unknown_ids_refused(tmp_path: Path) -> None:
    mask = np.zeros((4, 5, 6), np.float32)
    mask[1], mask[2] = 1.0004, 2
    path = save(tmp_path / "a.nii.gz", mask, np.eye(4))
    volume = read_label_map(path, n_classes=3)
    assert volume.data.dtype == np.uint8
    np.testing.assert_array_equal(np.unique(volume.data), [0, 1, 2])
    with pytest.raises(InputError, match=r"does not name: 2 \(30 voxels\)"):
        read_label_map(path, n_classes=2)
    save(path, mask / 2, np.eye(4))
    with pytest.raises(InputError, match="fractional"):
        read_label_map(path, n_classes=3)
    save(path, -mask.round(), np.eye(4))
    with pytest.raises(InputError, match="does not name: -2"):
        read_label_map(path, n_classes=3)


def test_a_mask_on_another_grid_names_the_distance() -> None:
    image = Volume(scan(), oblique_affine())
    moved = oblique_affine()
    moved[:3, 3] += (0, 7.5, 0)
    with pytest.raises(InputError, match=r"case_017: .*corners lie 7.5 mm apart"):
        require_same_grid(image, Volume(scan(), moved), name="case_017")
    moved[:3, 3] -= (0, 7.4995, 0)
    require_same_grid(image, Volume(scan(), moved), name="case_017")
    with pytest.raises(InputError, match=r"4x5x6 voxels .* but its mask is 4x5x5"):
        require_same_grid(image, Volume(scan((4, 5, 5)), oblique_affine()), name="case_017")


def test_writing_leaves_no_temporary_file(tmp_path: Path) -> None:
    for durable in (True, False):
        write_atomically(tmp_path / "deep" / "file", b"content", durable=durable)
        assert (tmp_path / "deep" / "file").read_bytes() == b"content"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


def test_written_bytes_do_not_depend_on_the_clock(tmp_path: Path) -> None:
    volume = Volume(scan(), np.eye(4))
    volume.write(tmp_path / "a.nii.gz")
    volume.write(tmp_path / "b.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_real_liver_mr_and_its_mask_lie_on_each_other(real_data: Callable[[str], Path]) -> None:
    folder = real_data("totalseg_mr_ct")
    image = read_volume(folder / "example_mr_sm.nii.gz")
    mask = read_label_map(folder / "example_seg_mr.nii.gz", n_classes=51)
    require_same_grid(image, mask, name="mr")
    assert image.user_axes == ("L", "P", "S")
    # The liver is on the patient's right, where x grows to in RAS+.
    liver_x = np.argwhere(mask.data == 5)[:, 0].mean()
    spleen_x = np.argwhere(mask.data == 1)[:, 0].mean()
    assert liver_x > spleen_x


def test_real_4d_data_asks_for_a_channel(real_data: Callable[[str], Path]) -> None:
    path = real_data("tristan_liver_mr_vfa") / "vfa_fa2-25.nii.gz"
    with pytest.raises(InputError, match="Choose one channel or phase"):
        read_volume(path)


def test_stored_numbers_are_scaled_by_whoever_reads(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (5, 4, 3)).astype(np.uint8)
    path = tmp_path / "probability.nii.gz"
    Volume(stored, oblique_affine()).write(path, scale=1 / 255)
    read = nib.Nifti1Image.from_filename(path)
    assert read.get_data_dtype() == np.uint8
    np.testing.assert_allclose(read.get_fdata(), stored / 255, atol=1e-7)
    np.testing.assert_allclose(read_volume(path).data, stored / 255, atol=1e-6)


def test_half_a_file_does_not_stay_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("neonet3d.cohort.volume.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", b"content")
    assert list(tmp_path.iterdir()) == []
