"""Handing a trained model over: as one file of our own, as ONNX, as a MONAI bundle."""
