"""Metrics of generated images: every file in this folder is one, of the file's name."""
