"""Trained models applied to images of any size: model files, tiling, ensembles, prediction."""
