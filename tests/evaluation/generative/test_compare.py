"""Sources, saved statistics and processes: the same images give the same metrics."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import distributed

from vision.errors import CorruptImageError
from vision.evaluation.generative.compare import compare_image_sets, with_statistics
from vision.evaluation.generative.features import Extractor
from vision.evaluation.generative.image_set import ImageSet, open_image_set
from vision.evaluation.generative.saved_statistics import (
    StatisticsCache,
    read_statistics,
    write_statistics,
)
from vision.evaluation.generative.sources import DataSource
from vision.metrics.base import Options

ALL = {"metrics": ("fid", "is", "kid", "prc", "sfid"), "kid_subset_size": 50, "quiet": True}
KEYS = ("fid", "fid_error", "is", "is_std", "kid", "kid_std", "precision", "recall", "sfid")


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    real = draw.integers(0, 256, (103, 9, 7, 3), dtype=np.uint8)
    return {"real": real, "fake": draw.integers(20, 200, (90, 9, 7, 3), dtype=np.uint8)}


@pytest.fixture(scope="module")
def home(arrays: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """real.npz, fake.npz (compressed) and the same images in folders real/ and fake/."""
    home = tmp_path_factory.mktemp("sources")
    np.savez(home / "real.npz", arr_0=arrays["real"])
    np.savez_compressed(home / "fake.npz", arr_0=arrays["fake"])
    for name, images in arrays.items():
        (home / name).mkdir()
        for index, pixels in enumerate(images):
            Image.fromarray(pixels).save(home / name / f"{index:03d}.png")
    return home


@pytest.fixture
def metrics(home: Path, extractor: Extractor) -> dict:
    return compare_image_sets(str(home / "real"), str(home / "fake"), extractor, **ALL)


def test_an_npz_gives_the_metrics_of_the_folder_to_the_last_bit(
    home: Path, extractor: Extractor, metrics: dict
) -> None:
    result = compare_image_sets(str(home / "real.npz"), str(home / "fake.npz"), extractor, **ALL)
    assert {key: result[key] for key in KEYS} == {key: metrics[key] for key in KEYS}


def test_tensors_give_the_metrics_of_the_folders_to_the_last_bit(
    home: Path, extractor: Extractor, metrics: dict
) -> None:
    real, fake = (
        torch.from_numpy(np.load(home / f"{name}.npz")["arr_0"]).permute(0, 3, 1, 2)
        for name in ("real", "fake")
    )
    result = compare_image_sets(real, fake, extractor, **ALL)
    assert {key: result[key] for key in KEYS} == {key: metrics[key] for key in KEYS}
    assert result["settings"]["fake"]["name"] == f"tensor of {len(fake)} images"
    for wrong, message in ((real / 255, "got float32"), (real[:, :2], "2, "), (real[:0], "none")):
        with pytest.raises(ValueError, match=message):
            compare_image_sets(wrong, fake, extractor, **ALL)


@pytest.mark.parametrize("batch_size", [1, 7, 200])
def test_metrics_do_not_depend_on_the_batches(
    batch_size: int, home: Path, extractor: Extractor, metrics: dict
) -> None:
    paths = str(home / "real"), str(home / "fake")
    result = compare_image_sets(*paths, extractor, batch_size=batch_size, **ALL)
    for key in KEYS:
        assert result[key] == pytest.approx(metrics[key], rel=1e-9, abs=1e-12)


def test_a_set_against_itself_is_at_zero(home: Path, extractor: Extractor) -> None:
    result = compare_image_sets(str(home / "real"), str(home / "real.npz"), extractor, **ALL)
    assert abs(result["fid"]) < 1e-3 and abs(result["sfid"]) < 1e-3
    assert result["precision"] == result["recall"] == 1.0


def _process(rank: int, world: int, home: Path, extractor: Extractor, out: Path) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(str(out / "store"), world)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    result = compare_image_sets(str(home / "real"), str(home / "fake"), extractor, **ALL)
    (out / f"{rank}.json").write_text(json.dumps({key: result[key] for key in KEYS}))
    distributed.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3])
def test_any_number_of_processes_gives_the_metrics_of_one(
    world: int, home: Path, extractor: Extractor, metrics: dict, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")  # what is imported stays imported
    processes = [
        context.Process(target=_process, args=(rank, world, home, extractor, tmp_path))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * world
    for rank in range(world):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        for key in KEYS:
            assert found[key] == pytest.approx(metrics[key], rel=1e-6, abs=1e-9), key


def test_saved_statistics_stand_for_the_images(
    home: Path, extractor: Extractor, metrics: dict, tmp_path: Path
) -> None:
    options = Options(**{k: v for k, v in ALL.items() if k != "quiet"})
    real = with_statistics(open_image_set(str(home / "real")), extractor, options)
    write_statistics(tmp_path / "stats.npz", real.statistics)
    result = compare_image_sets(str(tmp_path / "stats.npz"), str(home / "fake"), extractor, **ALL)
    assert {key: result[key] for key in KEYS} == {key: metrics[key] for key in KEYS}
    assert [path.name for path in tmp_path.iterdir()] == ["stats.npz"]  # nothing temporary
    changed = Extractor("light", extractor.model, extractor.extract, {"extractor": "light"})
    with pytest.raises(ValueError, match=r"resize = 'legacy', this call None"):
        compare_image_sets(str(tmp_path / "stats.npz"), str(home / "fake"), changed, **ALL)


def test_the_statistics_files_of_others_are_read_and_only_fit_inception(
    home: Path, extractor: Extractor, tmp_path: Path
) -> None:
    draw = np.random.default_rng(1)
    features = draw.normal(size=(50, 6))
    mu, sigma = features.mean(0), np.cov(features, rowvar=False)
    path = tmp_path / "adm.npz"
    np.savez(path, mu=mu, sigma=sigma, mu_s=mu[:3], sigma_s=sigma[:3, :3])
    measured = read_statistics(path)
    assert measured.settings is None and measured.moments.count is None
    np.testing.assert_array_equal(measured.spatial_moments.cov, sigma[:3, :3])
    with pytest.raises(ValueError, match="extractor = 'inception', this call 'light'"):
        compare_image_sets(str(path), str(home / "fake"), extractor, quiet=True)
    settings = {"extractor": "inception", "resize": "legacy", "weights_sha256": "0"}
    inception = Extractor("inception", extractor.model, extractor.extract, settings)
    result = compare_image_sets(
        str(path), str(home / "fake"), inception, metrics=("fid", "sfid"), quiet=True
    )
    assert result["fid"] > 0 and result["labels"]["sfid"] == "sFID"
    assert "do not say how many" in result["warnings"][0]
    with pytest.raises(ValueError, match="saved statistics without features"):
        compare_image_sets(str(path), str(home / "fake"), inception, metrics=("kid",), quiet=True)


def test_reference_statistics_are_cached_by_content_and_settings(
    home: Path, extractor: Extractor, metrics: dict, tmp_path: Path
) -> None:
    seen = []

    def counting(images: torch.Tensor, spatial: bool) -> object:
        seen.append(len(images))
        return extractor.extract(images, spatial)

    counted = Extractor("light", extractor.model, counting, extractor.settings)
    cache = StatisticsCache(tmp_path)
    paths = str(home / "real"), str(home / "fake")
    for expected in (193, 90):  # the second time only the fake images are looked at
        seen.clear()
        result = compare_image_sets(*paths, counted, cache=cache, **ALL)
        assert sum(seen) == expected
        assert {key: result[key] for key in KEYS} == {key: metrics[key] for key in KEYS}
    assert len(list(tmp_path.iterdir())) == 1
    compare_image_sets(*paths, counted, cache=cache, metrics=("fid",), quiet=True)
    assert len(list(tmp_path.iterdir())) == 2  # other settings, other file


def test_number_takes_a_random_subset_and_says_so(home: Path, extractor: Extractor) -> None:
    paths = str(home / "real.npz"), str(home / "fake.npz")
    both = {"number": 40, "real_number": 40, "quiet": True}
    result = compare_image_sets(*paths, extractor, **both)
    assert result["settings"]["real"]["count"] == result["settings"]["fake"]["count"] == 40
    assert result["fid"] == compare_image_sets(*paths, extractor, **both)["fid"]
    other = compare_image_sets(*paths, extractor, seed=1, **both)
    assert result["fid"] != other["fid"]
    with pytest.raises(ValueError, match="number = 91: expected 2 to 90"):
        compare_image_sets(*paths, extractor, number=91, quiet=True)


def test_the_error_of_the_distance_is_of_the_size_of_its_spread(extractor: Extractor) -> None:
    draw = np.random.default_rng(2)

    class Noise:
        name = "noise"

        def __init__(self, count: int) -> None:
            self.images = torch.from_numpy(draw.integers(0, 256, (count, 3, 4, 4), dtype=np.uint8))

        def __len__(self) -> int:
            return len(self.images)

        def batches(self, indices: list[int], batch_size: int) -> object:
            yield self.images[torch.tensor(indices)]

        def fingerprint(self) -> None:
            return None

    real = ImageSet("real", Noise(2000))
    results = [
        compare_image_sets(real, ImageSet("fake", Noise(200)), extractor, quiet=True)
        for _ in range(40)
    ]
    spread = np.std([result["fid"] for result in results])
    mean_error = np.mean([result["fid_error"] for result in results])
    assert 0.4 < mean_error / spread < 2.5


def test_grey_images_count_as_rgb_with_equal_channels(tmp_path: Path) -> None:
    grey = np.random.default_rng(3).integers(0, 256, (5, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "grey.npz", arr_0=grey)
    (images,) = open_image_set(str(tmp_path / "grey.npz")).source.batches(range(5), 8)
    assert images.shape == (5, 3, 4, 4)
    assert (images.numpy() == grey[:, None]).all()
    digits = DataSource.load("configs/data/digits.yaml", (), "test")
    (images,) = digits.batches(range(6), 8)
    assert images.shape == (6, 3, 8, 8) and len(digits) == 360
    assert torch.equal(images[:, 0], images[:, 2])


def test_images_of_several_sizes_keep_their_order(tmp_path: Path) -> None:
    for index, size in enumerate([4, 4, 6, 4]):
        Image.new("L", (size, size), index).save(tmp_path / f"{index}.png")
    batches = list(open_image_set(str(tmp_path)).source.batches([0, 1, 2, 3], 4))
    assert [tuple(batch.shape) for batch in batches] == [(2, 3, 4, 4), (1, 3, 6, 6), (1, 3, 4, 4)]
    assert [int(image[0, 0, 0]) for batch in batches for image in batch] == [0, 1, 2, 3]


def test_what_cannot_be_read_is_named(tmp_path: Path, extractor: Extractor) -> None:
    floats = np.random.default_rng(4).random((6, 4, 4, 3), dtype=np.float32)
    np.savez(tmp_path / "floats.npz", arr_0=floats)
    (images,) = open_image_set(str(tmp_path / "floats.npz")).source.batches(range(6), 6)
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1), np.rint(floats.astype("f8") * 255))
    floats[3, 0, 0, 0] = np.nan
    np.savez(tmp_path / "nan.npz", arr_0=floats)
    with pytest.raises(ValueError, match=r"nan.npz: image 3 of arr_0 holds NaN"):
        list(open_image_set(str(tmp_path / "nan.npz")).source.batches(range(6), 6))
    np.savez(tmp_path / "other.npz", x=floats)
    with pytest.raises(ValueError, match="neither images"):
        open_image_set(str(tmp_path / "other.npz"))
    (tmp_path / "images").mkdir()
    with pytest.raises(FileNotFoundError, match="no images; expected files with an ending"):
        open_image_set(str(tmp_path / "images"))
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    with pytest.raises(CorruptImageError, match=r"broken.png"):
        list(open_image_set(str(tmp_path / "images")).source.batches([0], 1))
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        open_image_set(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="metrics = 'fdi'"):
        Options(metrics=("fdi",))
