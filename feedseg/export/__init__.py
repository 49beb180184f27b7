"""Trained models as files of other tools: StableHLO, ONNX, bioimage.io, ensembles."""
