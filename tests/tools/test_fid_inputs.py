"""What tools/fid.py makes of files and options as people have them."""

import json
import math
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision.datasets.image_files import read_file
from vision.datasets.transforms import eval_transform
from vision.evaluation.generative.sources import DataSource

DRAW = np.random.default_rng(0)
PIXELS = DRAW.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def sets(fid, tmp_path: Path) -> Path:
    """all.npz, part.npz (24 of its images), adm.npz (part, with the statistics of all), fake.npz"""
    np.savez(tmp_path / "all.npz", arr_0=PIXELS)
    np.savez(tmp_path / "part.npz", arr_0=PIXELS[:24])
    np.savez(tmp_path / "fake.npz", arr_0=PIXELS[20:] // 2)
    out = ["--save-stats", tmp_path / "stats.npz"]
    fid("--real", tmp_path / "all.npz", "--fake", tmp_path / "fake.npz", *out)
    saved = dict(np.load(tmp_path / "stats.npz"))
    np.savez(tmp_path / "adm.npz", arr_0=PIXELS[:24], **saved)
    saved.pop("count")  # as of a file that does not say
    np.savez(tmp_path / "adm_uncounted.npz", arr_0=PIXELS[:24], **saved)
    return tmp_path


@pytest.mark.parametrize("name", ["adm", "adm_uncounted"])
def test_statistics_in_a_file_are_used_and_the_rest_is_of_its_images(
    name: str, fid, sets: Path
) -> None:
    fake = ["--fake", sets / "fake.npz", "--kid-subset-size", "10"]
    whole, _ = fid("--real", sets / "all.npz", *fake)
    part, _ = fid("--real", sets / "part.npz", *fake, "--metrics", "fid,kid,prc,is")
    found, said = fid("--real", sets / f"{name}.npz", *fake, "--metrics", "fid,kid,prc,is")
    assert found["fid"] == pytest.approx(whole["fid"], rel=1e-9)
    assert found["fid"] != pytest.approx(part["fid"], rel=1e-3)
    for key in ("kid", "precision", "recall", "is"):
        assert found[key] == pytest.approx(part[key], rel=1e-9)
    assert f"of {'60' if name == 'adm' else '?'} images), and features of 24 images" in said
    # the number is of the generated images: here of the same file on the other side
    alone, _ = fid("--real", sets / f"{name}.npz", "--fake", sets / "fake.npz", "--number", "40")
    assert alone["fid"] == pytest.approx(whole["fid"], rel=1e-9)
    other, said = fid("--real", sets / "all.npz", "--fake", sets / f"{name}.npz", "--number", 40)
    assert abs(other["fid"]) < 1e-6
    assert "saved statistics are of all their images, not of 40" in said


@pytest.mark.parametrize(("number", "real"), [(30, None), (None, 20), (30, 20)])
def test_the_number_of_images_is_given_for_each_side(
    number: int | None, real: int | None, fid, sets: Path
) -> None:
    options = [
        *(["--number", number] if number else []),
        *(["--real-number", real] if real else []),
    ]
    found, _ = fid("--real", sets / "all.npz", "--fake", sets / "fake.npz", *options)
    settings = found["settings"]
    assert (settings["real"]["count"], settings["fake"]["count"]) == (real or 60, number or 40)
    assert (settings["real_number"], settings["number"]) == (real, number)
    _, said = fid("--real", sets / "all.npz", "--fake", sets / "fake.npz", "--number", 41, code=2)
    assert "number = 41: expected 2 to 40" in said


@pytest.mark.parametrize("count", [2, 5, 13])
def test_no_metric_of_few_images_is_nan(count: int, fid, sets: Path) -> None:
    np.savez(sets / "few.npz", arr_0=PIXELS[:count])
    metrics = "fid,is" if count < 5 else "fid,is,kid,prc"
    found, said = fid("--real", sets / "all.npz", "--fake", sets / "few.npz", "--metrics", metrics)
    assert all(math.isfinite(found[key]) for key in found["labels"])
    assert "nan" not in said
    assert f"is: {count // 2} parts, for at least two images in each, not 10" in said


def test_a_metric_that_is_not_finite_is_refused(fid, sets: Path) -> None:
    broken = dict(np.load(sets / "stats.npz"))
    for name, value in (("overflow", 1e300), ("nan", np.nan)):
        np.savez(sets / f"{name}.npz", **{**broken, "mu": broken["mu"] + value})
        sides = ["--real", sets / "all.npz", "--fake", sets / f"{name}.npz"]
        _, said = fid(*sides, code=2)
        assert "Traceback" not in said
        assert {"overflow": "fid is inf", "nan": "holds NaN"}[name] in said


@pytest.mark.parametrize("count", [3, 7])
def test_of_a_folder_of_samples_only_its_images_count(count: int, fid, tmp_path: Path) -> None:
    (tmp_path / "samples" / "images").mkdir(parents=True)
    for index in range(count):
        Image.fromarray(PIXELS[index]).save(tmp_path / "samples" / "images" / f"{index:06d}.png")
    Image.fromarray(PIXELS[0]).save(tmp_path / "samples" / "grid.png")
    (tmp_path / "samples" / "settings.json").write_text(json.dumps({"count": count}))
    found, _ = fid("--real", tmp_path / "samples", "--fake", tmp_path / "samples" / "images")
    assert found["settings"]["real"]["count"] == count
    assert found["settings"]["real"]["name"].endswith("samples/images")


@pytest.mark.parametrize(
    "changes", [["data.interpolation=bicubic"], ["data.interpolation=nearest", "data.crop_pct=0.5"]]
)
def test_real_images_go_through_the_evaluation_transform(
    changes: list[str], fid, tmp_path: Path
) -> None:
    files = []
    for split in ("train", "val"):
        for label in range(2):
            folder = tmp_path / split / str(label)
            folder.mkdir(parents=True)
            for index in range(3):
                pixels = DRAW.integers(0, 256, (21 + index, 17, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
                files += [folder / f"{index}.png"] if split == "train" else []
    given = [f"data.root={tmp_path}", "data.img_size=8", "data.num_workers=0", *changes]
    half = ["data.mean=[0,0,0]", "data.std=[1,1,1]"]
    source = DataSource.load("configs/data/imagefolder.yaml", [*given, *half], "train")
    (images,) = source.batches(range(6), 6)
    transform = eval_transform(source.config)
    for image, file in zip(images, files, strict=True):
        assert np.array_equal(image / np.float32(255), transform(read_file(file, "RGB")))
    np.savez(tmp_path / "as_prepared.npz", arr_0=images.permute(0, 2, 3, 1).numpy())
    sides = ["--real", "configs/data/imagefolder.yaml", "--fake", tmp_path / "as_prepared.npz"]
    found, _ = fid(*sides, *given)
    assert abs(found["fid"]) < 1e-6
    assert found["settings"]["real"]["interpolation"] == changes[0].partition("=")[2]


def test_a_set_is_at_no_distance_from_itself(fid, sets: Path) -> None:
    for name in ("all.npz", "fake.npz"):
        found, said = fid("--real", sets / name, "--fake", sets / name)
        assert 0 <= found["fid"] < 1e-6
        assert " -" not in said


def test_images_of_a_folder_may_have_many_sizes_whatever_the_batch(fid, tmp_path: Path) -> None:
    """mseitzer/pytorch-fid#81 ends there, as images of one batch must have one size."""
    sizes = [(8, 8), (8, 8), (21, 9), (8, 8), (5, 30), (21, 9), (40, 33)]
    for index, size in enumerate(sizes):
        for side, brightness in (("real", 1), ("fake", 2)):
            pixels = DRAW.integers(0, 256, (*size, 3), dtype=np.uint8) // brightness
            (tmp_path / side).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / side / f"{index}.png")
    both = ["--real", tmp_path / "real", "--fake", tmp_path / "fake"]
    found = []
    for batch, workers in ((1, 0), (3, 0), (64, 2)):
        result, _ = fid(*both, "--batch-size", batch, "--num-workers", workers)
        assert [result["settings"][key]["count"] for key in ("real", "fake")] == [7, 7]
        found.append(result["fid"])
    assert found[0] > 0.1
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)


def test_statistics_of_objects_are_refused_by_their_file(fid, sets: Path) -> None:
    """What numpy.save makes of a dict; reading it would run code."""
    np.savez(sets / "objects.npz", mu=np.array({"mean": 0}), sigma=np.eye(3))
    np.save(sets / "stats.npy", {"mu": np.zeros(3), "sigma": np.eye(3)})
    for name, message in (("objects.npz", "cannot be read"), ("stats.npy", "expected a folder of")):
        _, said = fid("--real", sets / name, "--fake", sets / "fake.npz", code=2)
        assert f"{sets / name}: {message}" in said


def test_arrays_of_another_version_and_outputs_in_the_way_are_one_line(fid, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "new.npz", "w") as archive, archive.open("arr_0.npy", "w") as f:
        np.lib.format.write_array(f, PIXELS, version=(3, 0))
    np.savez(tmp_path / "all.npz", arr_0=PIXELS)
    both = ["--real", tmp_path / "all.npz", "--fake", tmp_path / "new.npz"]
    _, said = fid(*both, code=2)
    assert "new.npz: arr_0 is of .npy version 3.0, expected 1.0 or 2.0" in said
    both[-1] = tmp_path / "all.npz"
    target = tmp_path / "new.npz" / "stats.npz"
    _, said = fid(*both, "--save-stats", target, code=2)
    assert f"error: {tmp_path / 'new.npz'}" in said and "Traceback" not in said


@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_an_archive_of_images_is_to_be_unpacked(ending: str, fid, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for index in range(3):
        Image.fromarray(PIXELS[index]).save(tmp_path / "images" / f"{index}.png")
    archive = shutil.make_archive(str(tmp_path / "set"), ending, tmp_path / "images")
    for sides in (("--real", "--fake"), ("--fake", "--real")):
        _, said = fid(sides[0], archive, sides[1], tmp_path / "images", code=2)
        (line,) = said.splitlines()
        assert line.startswith(f"error: {archive}: an archive; unpack it: expected a folder of")
