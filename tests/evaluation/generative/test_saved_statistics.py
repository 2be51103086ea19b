"""Statistics that are written are read again, whoever computed them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vision.evaluation.generative.saved_statistics import read_statistics, write_statistics
from vision.metrics.base import FeatureStatistics


def test_statistics_that_do_not_say_their_number_of_images_are_kept(tmp_path: Path) -> None:
    spatial = {"mu_s": np.zeros(2), "sigma_s": np.eye(2)}
    np.savez(tmp_path / "adm.npz", mu=np.zeros(3), sigma=np.eye(3), **spatial)
    write_statistics(tmp_path / "cached.npz", read_statistics(tmp_path / "adm.npz"))
    found = read_statistics(tmp_path / "cached.npz")
    assert found.moments is not None and found.moments.count is None
    assert np.array_equal(found.moments.cov, np.eye(3))


@pytest.mark.slow
def test_what_is_written_is_read_again_at_any_size(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    features = torch.zeros(131_073, 2048)  # one more than 1 GiB holds, as of --max-features 131073
    features[-1] = torch.arange(2048)
    write_statistics(file, FeatureStatistics({}, None, None, features))
    assert file.stat().st_size > 2**30
    found = read_statistics(file).features
    assert found is not None and found.shape == features.shape
    assert torch.equal(found[-1], features[-1]) and not found[0].any()
    file.unlink()  # pytest keeps the folders of three sessions
