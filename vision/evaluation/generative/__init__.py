"""Generated images against real ones."""

from vision.evaluation.generative.compare import compare_image_sets

__all__ = ["compare_image_sets"]
