"""Diffusion: the objective, schedulers, the pipeline, and all there is about sampling."""
