"""Checkpoints: the file format, runs, published formats, exports."""
