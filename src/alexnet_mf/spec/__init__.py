"""Networks as data, without any framework or NumPy. `spec.zoo` holds the networks by name."""

from alexnet_mf.spec.layers import (
    LEARNERS,
    Activation,
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Layer,
    Learner,
    LocalResponseNorm,
    MaxPool2d,
    Normalize,
    Shape,
    output_shape,
)
from alexnet_mf.spec.network import (
    BIAS_INITIALISATIONS,
    BiasInitialisation,
    Network,
    as_dict,
    digest,
    fingerprint,
    from_dict,
    with_channels,
    with_classes,
    with_dropout,
)
from alexnet_mf.spec.preprocessing import Preprocessing

__all__ = ["BIAS_INITIALISATIONS", "LEARNERS", "Activation", "AdaptiveAvgPool2d", "AvgPool2d", "BatchNorm",
           "BiasInitialisation", "Conv2d", "Dense", "Dropout", "Flatten", "Layer", "Learner", "LocalResponseNorm",
           "MaxPool2d", "Network", "Normalize", "Preprocessing", "Shape", "as_dict", "digest", "fingerprint",
           "from_dict", "output_shape", "with_channels", "with_classes", "with_dropout"]
