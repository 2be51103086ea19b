"""Metrics, each in a file of its own, and the feature extractors that some need."""
