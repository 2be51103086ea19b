"""What a run prints, and which warnings it does not."""

from __future__ import annotations

import logging
import warnings

from pytorch_lightning.utilities import rank_zero_only


@rank_zero_only
def say(line: str) -> None:
    """Print a line to stdout, in the first process of a run."""
    print(line, flush=True)


def set_up_logging() -> None:
    """Show this package's messages (which kernel a norm uses); silence expected warnings."""
    own = logging.getLogger("vision")
    own.setLevel(logging.INFO)
    if not own.handlers:
        own.addHandler(logging.StreamHandler())
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for expected in (
        ".*does not have many workers.*",  # workers do not pay off on small images
        ".*your dataloader is not resumable.*",  # its sampler takes its position from the trainer
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*smaller than the logging interval.*",
        ".*isinstance.treespec, LeafSpec.* is deprecated.*",  # Lightning's, of torch's
        ".*in eval mode at the start of training.*",  # the averaged weights are, on purpose
        ".*when logging on epoch level in distributed.*",  # metrics are reduced already
        ".*returned a view tensor.*",  # of a sharded MAE; nobody writes into it
    ):
        warnings.filterwarnings("ignore", expected)
