"""Norms x tasks x seeds: running them."""
