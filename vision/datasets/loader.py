"""The loader of a training run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from vision.datasets.dataset import Batch, Sample


class ResumableLoader(DataLoader[Sample]):
    """Yields `Batch`es; its sampler finds its place by itself, so there is no state to keep.

    Lightning warns on resuming unless a loader has `state_dict` and `load_state_dict`.
    """

    waited = 0.0  # seconds that whoever iterates has stood still, over all epochs

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        batches = super().__iter__()
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Nothing: see `GlobalBatchSampler`."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load."""
