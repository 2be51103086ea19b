"""What does the normalization layer do to a vision transformer? Experiments on timm."""

__version__ = "0.1.0"
