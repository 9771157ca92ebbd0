"""The MXNet backend."""

from alexnet_mf.backends.mxnet import compat

compat.prepare()

from alexnet_mf.backends.mxnet.backend import MXNetBackend  # noqa: E402

BACKEND = MXNetBackend()
