"""Models: timm classifiers, masked autoencoders, diffusion transformers, with any norm."""
