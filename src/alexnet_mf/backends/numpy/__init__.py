"""The reference: every layer forward and backward in float64, in plain NumPy. Read `layers.py` first."""

from alexnet_mf.backends.numpy.backend import NumpyBackend

BACKEND = NumpyBackend()
