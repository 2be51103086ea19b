"""Statistics that are written are read again, whoever computed them."""

from pathlib import Path

import numpy as np

from vision.evaluation.generative.saved_statistics import read_statistics, write_statistics


def test_statistics_that_do_not_say_their_number_of_images_are_kept(tmp_path: Path) -> None:
    spatial = {"mu_s": np.zeros(2), "sigma_s": np.eye(2)}
    np.savez(tmp_path / "adm.npz", mu=np.zeros(3), sigma=np.eye(3), **spatial)
    write_statistics(tmp_path / "cached.npz", read_statistics(tmp_path / "adm.npz"))
    found = read_statistics(tmp_path / "cached.npz")
    assert found.moments is not None and found.moments.count is None
    assert np.array_equal(found.moments.cov, np.eye(3))
