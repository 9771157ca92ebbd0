"""Networks in files: read, check and write a spec as TOML.

The keys are the fields of `Network`: `name`, `input`, and one `[[layers]]` for each layer, with its `kind` and the
fields of that kind in `layers.py`. TOML has no null: no activation is `activation = "none"`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from alexnet_mf import files, spec
from alexnet_mf.errors import SpecError
from alexnet_mf.spec import Network, zoo

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUFFIX = ".toml"
MOST_BYTES = 1_000_000
NO_ACTIVATION = "none"


def find_network(net: Network | Path | str, backend: str | None = None) -> Network:
    """Return `net` itself, the network in a .toml file, or the package's network of that name.

    Args:
        backend: the backend in a comparison; `alexnet-tab` then means its own tab.

    Raises:
        SpecError: as `load`, or if the name is unknown; lists the known ones.
    """
    if isinstance(net, Network):
        return net
    if not isinstance(net, (str, Path)):
        raise SpecError(f"`net` must be a network, its name or a .toml file, not {net!r}")
    net = str(net)
    if net.lower().endswith(SUFFIX):
        return load(Path(net))
    return zoo.get_network(zoo.name_in_backend(net, backend) if backend else net)


def load(path: Path) -> Network:
    """Read a network from a TOML file.

    Raises:
        SpecError: if the file cannot be read, is not TOML, or is not a network; names the layer and, if possible,
            the line.
    """
    try:
        text = files.read_text(path, MOST_BYTES)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror}); `toml.dump` writes one of the package's own "
                        "networks to start from") from error
    except ValueError as error:
        raise SpecError(f"{path}: {error}") from error
    try:
        fields = tomllib.loads(text)
    except RecursionError as error:
        raise SpecError(f"{path}: not a network: nested too deeply") from error
    except ValueError as error:
        raise SpecError(f"{path}: not TOML: {' '.join(str(error).split())}") from error
    if fields.get("name") in (*zoo.NETWORKS, zoo.TAB):
        raise SpecError(f"{path}: {fields['name']} is the name of one of the package's networks; use another name")
    layers = fields.get("layers")
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise SpecError(f"{path}: no layers; each begins with a line [[layers]]")
    for layer in layers:
        if layer.get("activation") == NO_ACTIVATION:
            layer["activation"] = None
    try:
        return spec.from_dict(fields)
    except SpecError as error:
        raise SpecError(f"{path}: {_line(text, len(layers), error)}{' '.join(str(error).split())}") from error


def _line(text: str, count: int, error: SpecError) -> str:
    """Return "line N: " for the key or layer that an error is about, or "" if the line is unknown.

    The parser reports the lines of syntax errors only. So the [[layers]] headers are counted, one for each layer.
    """
    lines = text.splitlines()
    headers = [number for number, line in enumerate(lines, 1) if re.match(r"\s*\[\[\s*layers\s*\]\]", line)]
    layer = error.layer or 0
    if layer and len(headers) != count:
        return ""
    first, end = [1, *headers, len(lines) + 1][layer:layer + 2]
    key = re.search(r"unknown key '([^']+)'|^(?:network [^:]+: )?(\w+) must be ", str(error))
    if key:
        word = re.escape(key[1] or key[2])
        for number in range(first, end):
            if re.match(rf"\s*[\"']?{word}[\"']?\s*=", lines[number - 1]):
                return f"line {number}: "
    return f"line {first}: " if layer else ""


def dump(network: Network) -> str:
    """Return the network as TOML for `load`. A name of the package's own networks gets the prefix `my-`."""
    name = f"my-{network.name}" if network.name in zoo.NETWORKS else network.name
    lines = [f"name = {_value(name)}"]
    if network.source:
        lines.append(f"source = {_value(network.source)}")
    lines += [f"input = {_value(list(network.input))}  # channels, height, width",
              f"bias_initialisation = {_value(network.bias_initialisation)}  "
              f"# one of: {', '.join(spec.BIAS_INITIALISATIONS)}"]
    if network.learning_rate is not None:
        lines.append(f"learning_rate = {_value(network.learning_rate)}")
    if network.output != "logits":
        lines.append(f"output = {_value(network.output)}")
    for values in spec.as_dict(network)["layers"]:
        lines += ["", "[[layers]]", *(f"{key} = {_value(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """Return a value in TOML, which writes strings, lists and numbers as JSON does."""
    return json.dumps(NO_ACTIVATION if value is None else value, ensure_ascii=False)
