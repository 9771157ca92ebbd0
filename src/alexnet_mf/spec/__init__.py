"""Network specs: data that imports no framework, nor NumPy. The networks by name are in `spec.zoo`."""

from alexnet_mf.spec.network import (
    BIAS_INITIALISATIONS,
    BiasInitialisation,
    Network,
    as_dict,
    digest,
    from_dict,
    with_dropout,
)

__all__ = ["BIAS_INITIALISATIONS", "BiasInitialisation", "Network", "as_dict", "digest", "from_dict", "with_dropout"]
