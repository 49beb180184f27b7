"""feedseg: semantic segmentation of microscopy images with feedback networks, in JAX/Flax."""

__version__ = "0.1.0"
