"""With one file of weights, our metrics are torch-fidelity's."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from vision.evaluation.generative import compare_image_sets
from vision.evaluation.generative.extractors import create_extractor
from vision.evaluation.generative.features import Extractor

FAKE, REAL = 22, 20
METRICS = ("fid", "is", "kid", "prc", "sfid")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Grey and RGB images, smooth and rough, of 32 x 32."""
    home = tmp_path_factory.mktemp("images")
    draw = np.random.default_rng(0)
    for name, count, low in (("fake", FAKE, 0), ("real", REAL, 60)):
        (home / name).mkdir()
        for index in range(count):
            side = int(draw.integers(2, 33))
            shape = (side, side) if index % 5 == 0 else (side, side, 3)
            pixels = draw.integers(low, 256, shape, dtype=np.uint8)
            image = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC)
            image.save(home / name / f"{index:03d}.png")
    return home / "fake", home / "real"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights whose activations keep their size over the depth of the network."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    with pytest.MonkeyPatch.context() as patch:  # the constructor would fetch trained weights
        home = "torch_fidelity.feature_extractor_inceptionv3"
        patch.setattr(f"{home}.load_state_dict_from_url", lambda url, progress: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        model = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
    model.fc.weight.data.normal_(0, 0.05, generator=generator)
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def extractor(weights: Path) -> Extractor:
    return create_extractor("inception", str(weights))


@pytest.fixture(scope="module")
def ours(folders: tuple[Path, Path], extractor: Extractor) -> dict:
    fake, real = folders
    options = {"metrics": METRICS, "kid_subset_size": 16, "batch_size": 16, "device": "cpu"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = compare_image_sets(str(real), str(fake), extractor, **options)
    assert any("singular" in str(line.message) for line in caught)
    return result


def test_all_metrics_equal_torch_fidelitys(
    ours: dict, folders: tuple[Path, Path], weights: Path
) -> None:
    fake, real = folders
    theirs = torch_fidelity.calculate_metrics(
        input1=str(fake), input2=str(real), isc=True, fid=True, kid=True, prc=True, cuda=False,
        feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(weights),
        kid_subset_size=16, batch_size=16, save_cpu_ram=True, cache=False, verbose=False,
    )  # fmt: skip
    assert ours["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert ours["is"] == pytest.approx(theirs["inception_score_mean"], rel=1e-4)
    assert ours["is_std"] == pytest.approx(theirs["inception_score_std"], rel=1e-3)
    assert ours["kid"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)
    assert ours["precision"] == theirs["precision"]
    assert ours["recall"] == theirs["recall"]
    assert theirs["inception_score_mean"] > 1.001  # else every score would equal it


def test_fewer_samples_than_features_are_finite_and_warned_of(ours: dict) -> None:
    assert all(np.isfinite(ours[key]) for key in ("fid", "sfid", "fid_error"))
    assert ours["fid"] > 0 and ours["sfid"] > 0
    text = "\n".join(ours["warnings"])
    assert "real: 20 samples for 2,048 features: the covariance is singular" in text
    assert "not torch-fidelity's published file" in text


def test_only_the_fid_inception_gives_a_fid(ours: dict) -> None:
    assert ours["labels"]["fid"] == "FID"
    assert ours["settings"]["extractor"] == "inception"
    assert ours["settings"]["resize"] == "legacy"
    assert len(ours["settings"]["weights_sha256"]) == 64
    assert ours["settings"]["fake"]["count"] == FAKE


def test_spatial_features_are_those_of_the_first_seven_channels(extractor: Extractor) -> None:
    draw = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (1, 3, 299, 299), dtype=torch.uint8, generator=draw)
    caught = []
    layer = extractor.model.get_submodule("Mixed_6d.branch1x1")
    hook = layer.register_forward_hook(lambda m, i, output: caught.append(output))
    spatial = extractor(images, spatial=True).spatial
    hook.remove()
    assert spatial.shape == (1, 2023)
    assert torch.equal(spatial, caught[0][:, :7].flatten(1))
    assert extractor(images).spatial is None


def test_a_file_that_is_not_the_fid_inception_is_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(1000, 2048)}, tmp_path / "torchvision.pth")
    with pytest.raises(ValueError, match=r"fc.weight is \[1008, 2048\]"):
        create_extractor("inception", str(tmp_path / "torchvision.pth"))
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        create_extractor("inception", str(tmp_path / "none.pth"))


@pytest.mark.parametrize(
    ("name", "value"), [("Mixed_6e.branch7x7_2.bn.running_var", torch.nan), ("fc.bias", torch.inf)]
)
def test_weights_that_are_not_finite_are_refused_by_every_tool_that_takes_them(
    name: str, value: float, weights: Path, forked, small_dit: list[str], tmp_path: Path
) -> None:
    state = torch.load(weights, weights_only=True)
    state[name].view(-1)[-1] = value
    torch.save(state, tmp_path / "broken.pth")
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    sides = ["--real", tmp_path, "--fake", tmp_path, "--weights", tmp_path / "broken.pth"]
    used = ["evaluation.extractor=inception", f"evaluation.weights={tmp_path / 'broken.pth'}"]
    where = [f"output_dir={tmp_path}", "name=run"]
    for tool, arguments in (("fid", sides), ("train", [*small_dit, *used, *where])):
        said = forked(f"tools/{tool}.py", *arguments, code=2)
        (line,) = [line for line in said.stderr.splitlines() if line.startswith("error: ")]
        assert f"weights = {tmp_path / 'broken.pth'}: {name} holds numbers that are not" in line
        assert "Traceback" not in said.stderr
    assert not (tmp_path / "run").exists()


def test_without_weights_the_error_names_file_folder_and_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    with pytest.raises(FileNotFoundError) as caught:
        create_extractor("inception")
    line = str(caught.value)
    assert "weights-inception-2015-12-05-6726825d.pth" in line
    assert str(tmp_path / "checkpoints") in line
    assert "--weights FILE" in line and "\n" not in line
