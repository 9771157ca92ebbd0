"""Networks as data, without any framework or NumPy. `spec.zoo` holds the networks by name."""

from alexnet_mf.spec.layers import (
    Activation,
    AdaptiveAvgPool2d,
    AvgPool2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LocalResponseNorm,
    MaxPool2d,
    Normalize,
    Shape,
    has_parameters,
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
    with_classes,
    with_dropout,
)
from alexnet_mf.spec.preprocessing import Preprocessing

__all__ = ["BIAS_INITIALISATIONS", "Activation", "AdaptiveAvgPool2d", "AvgPool2d", "BiasInitialisation", "Conv2d",
           "Dense", "Dropout", "Flatten", "Layer", "LocalResponseNorm", "MaxPool2d", "Network", "Normalize",
           "Preprocessing", "Shape", "as_dict", "digest", "fingerprint", "from_dict", "has_parameters", "output_shape",
           "with_classes", "with_dropout"]
