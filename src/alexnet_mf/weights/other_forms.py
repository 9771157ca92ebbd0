"""Weights in another form, which this package does not read: pruned, normalized, parametrized, quantized or unnamed."""

from __future__ import annotations

import re

from alexnet_mf.weights.stored import StoredWeights

OTHER_FORMS = tuple((re.compile(pattern, re.DOTALL), what) for pattern, what in {
    r"(.*\.)?weight_(orig|mask)": "weights are pruned: call torch.nn.utils.prune.remove(module, 'weight') for each "
                                  "pruned module, and save it again",
    r"(.*\.)?weight_[gv]": "weights are normalized: call torch.nn.utils.remove_weight_norm(module) for each such "
                           "module, and save it again",
    r"(.*\.)?parametrizations\..*": "weights are parametrized: call torch.nn.utils.parametrize.remove_parametrizations("
                                    "module, 'weight') for each such module, and save it again",
    r"(.*\.)?scale\[\]": "weights are quantized: save the model before it is quantized",
    r"arr_\d+": "arrays have no names: write np.savez(FILE, **{'conv1.weight': array, ...}), or in Keras save the "
               "model with model.save('NAME.keras')"}.items())
"""Descriptions of weights in another form, with the remedy, by a pattern of a tensor's name; [] ends a scalar's."""


def remedy(stored: StoredWeights) -> str:
    """Return the form of the weights with the remedy, or "" if the names of the tensors show none."""
    names = [name if tensor.shape else f"{name}[]" for name, tensor in stored.tensors.items()]
    return next((f"its {what}" for pattern, what in OTHER_FORMS if any(map(pattern.fullmatch, names))), "")
