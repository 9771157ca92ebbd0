"""A capability that a backend does not declare is refused in one line."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from alexnet_mf.backends.capabilities import measurable, measurable_model, weight_formats
from alexnet_mf.errors import BackendUnavailable
from alexnet_mf.weights import parameters


def test_every_backend_declares_its_capabilities(backend, small):
    model = backend.build(small, parameters.initialize(small, 0))
    assert measurable(backend) is backend
    if backend.name != "numpy":  # the reference has no format of its own
        assert weight_formats(backend) is backend
    assert measurable_model(model) is model


@pytest.mark.parametrize("ask, words", [
    (measurable, "backend jax: cannot be measured"), (weight_formats, "backend jax: has no weights files of its own"),
    (measurable_model, "SimpleNamespace: cannot be measured")])
def test_a_missing_capability_is_refused(ask, words):
    bare: Any = SimpleNamespace(name="jax")
    with pytest.raises(BackendUnavailable, match=words):
        ask(bare)
