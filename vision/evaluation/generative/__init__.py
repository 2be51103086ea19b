"""Metrics of generated images against real ones: two sets of images in, FID and others out."""
