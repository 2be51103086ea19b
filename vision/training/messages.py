"""What a run prints, and which warnings it does not."""

from __future__ import annotations

import logging
import warnings

from pytorch_lightning.utilities import rank_zero_only

from vision.notices import is_first_process
from vision.text import show


@rank_zero_only
def say(*lines: str) -> None:
    """Print lines to stdout, in the first process of a run."""
    show(*lines)


class _StderrHandler(logging.Handler):
    """Writes to what is sys.stderr at that moment: a progress bar puts itself there, and keeps
    lines above it. logging.StreamHandler would write into the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        show(*self.format(record).split("\n"), error=True)


def set_up_logging() -> None:
    """Show this package's messages (which kernel a norm uses) and other people's warnings, but for
    those that are expected."""
    handler = _StderrHandler()
    for name, level in (
        ("vision", logging.INFO if is_first_process() else logging.WARNING),
        ("pytorch_lightning", logging.WARNING),
        ("lightning_fabric", logging.WARNING),  # how many processes joined, by each of them
    ):
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).handlers[:] = [handler]
    # said of every model without such modules
    logging.getLogger("diffusers.models.modeling_utils").addFilter(
        lambda record: "should be kept in float32: []" not in record.getMessage()
    )
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
