"""Match the tensors in a weights file to a network's parameters: by the file's own description of its network, by
names, or by order and shape. Whatever can be read in two ways is refused."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alexnet_mf import spec
from alexnet_mf.errors import ParametersError, SpecError
from alexnet_mf.spec import Network, comparison, zoo
from alexnet_mf.spec.layers import Shape
from alexnet_mf.weights import layouts, names, other_forms, parameters
from alexnet_mf.weights.parameters import Parameters
from alexnet_mf.weights.stored import FLOATS, Layout, StoredWeights

MOST_TENSORS, LONGEST_NAME = 10_000, 1_000
"""Limits for files from outside, beyond any network of the spec."""
MOST_PREFIXES = 20
"""Largest number of parts of a training program, such as `model`, `teacher` and `loss`, in one file."""
TENSORFLOW_LAYOUT = "arrays in TensorFlow's layout (height, width, in, out) were converted"


@dataclass(frozen=True)
class Match:
    """The tensor in a file for each parameter of a network."""

    network: Network
    """The network asked for, with the file's number of classes if that was left open."""
    names: dict[str, str]
    """The file's name by each canonical name."""
    layout: Layout
    notes: tuple[str, ...] = ()
    """One clause for each choice that was made."""
    scheme: str = ""
    """Name of the scheme in `names` that the file's names follow."""


def match(stored: StoredWeights, network: Network, any_classes: bool = False) -> Match:
    """Return the tensor for each parameter of the network.

    Args:
        any_classes: accept another number of classes in the file.

    Raises:
        ParametersError: if the file describes another network, its tensors do not fit, or they fit in two ways. The
            message follows the file's name.
    """
    try:
        return _match(stored, network, any_classes)
    except _Misfit as error:
        fits = " and ".join(name for name in fitting(stored) if name != network.name)
        remedy = f"its tensors fit {fits}: name the network with `net`" if fits else error.remedy
        raise ParametersError(f"{error}; {remedy}") from error


class Unnamed(ParametersError):
    """Weights alone, whose network is not known."""


class _Misfit(ParametersError):
    """Tensors that are not those of the network."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def _match(stored: StoredWeights, network: Network, any_classes: bool = False) -> Match:
    described = _described(stored, network)
    if described is not None:
        return _match_description(stored, described, network, any_classes)
    if len(stored.tensors) > MOST_TENSORS or any(len(name) > LONGEST_NAME for name in stored.tensors):
        raise ParametersError(f"not the parameters of {network.name}: {len(stored.tensors):,} tensors, or names of "
                              f"over {LONGEST_NAME:,} letters; name a file of weights alone")
    best: tuple[Match, list[str]] | None = None
    for candidate in _candidates(stored, network, any_classes):
        faults = _misfits(stored, candidate)
        if not faults:
            return _with_epsilon(_with_certain_layout(stored, candidate))
        if best is None or len(faults) < len(best[1]):
            best = candidate, faults
    assert best is not None
    inside = list(_inside_prefixes(stored, network, any_classes))
    if len(inside) == 1:
        return _with_epsilon(inside[0])
    closest, faults = best
    wanted = {closest.names.get(name, name) for name in parameters.shapes(closest.network)}
    form = "" if wanted <= stored.tensors.keys() else other_forms.remedy(stored)
    raise _Misfit(str(parameters.misfit(closest.network, [*faults, *_layout_hint(stored, closest)])),
                  form or "name another network with `net`")


def _inside_prefixes(stored: StoredWeights, network: Network, any_classes: bool) -> Iterator[Match]:
    """Yield the match of the tensors under each first component of the names that fits alone, without the others."""
    prefixes = dict.fromkeys(re.split(r"[./]", name)[0] for name in stored.tensors)
    for prefix in prefixes if 1 < len(prefixes) <= MOST_PREFIXES else ():
        tensors = {name: tensor for name, tensor in stored.tensors.items() if re.split(r"[./]", name)[0] == prefix}
        part = replace(stored, tensors=tensors)
        for candidate in _by_names(part, network, any_classes, {"canonical": _own_names, **names.SCHEMES}):
            if not _misfits(part, candidate):
                others = [parameters.printable(name) for name in stored.tensors if name not in tensors]
                more = f" and {len(others) - 3:,} more" if len(others) > 3 else ""
                note = f"without the tensors {', '.join(others[:3])}{more}"
                yield replace(_with_certain_layout(part, candidate), notes=(*candidate.notes, note))
                break


def _with_epsilon(candidate: Match) -> Match:
    """Return the candidate with a note on the numbers of batch normalization that tensors alone do not have."""
    numbers = sorted({layer.epsilon for layer in candidate.network.layers if isinstance(layer, spec.BatchNorm)})
    note = f"epsilon of batch normalization is not in the file, {' and '.join(map(str, numbers))} by the network"
    return replace(candidate, notes=(*candidate.notes, note)) if numbers else candidate


def _with_certain_layout(stored: StoredWeights, candidate: Match) -> Match:
    """Return the candidate, unless the other layout fits as well. Canonical names stand for the canonical layout."""
    is_canonical = all(name == theirs for name, theirs in candidate.names.items())
    if stored.layout is None and candidate.layout == "OIHW" and not is_canonical and \
            not _misfits(stored, replace(candidate, layout="HWIO")):
        raise ParametersError("fits in PyTorch's layout and in TensorFlow's; write it under canonical names "
                              f"({', '.join(list(candidate.names)[:2])}, ...) in PyTorch's layout")
    return candidate


def identify(stored: StoredWeights) -> Match:
    """Return the match with the network that the file describes, or that its names stand for.

    Raises:
        ParametersError: if the file shows neither; lists the built-in networks that fit.
    """
    if stored.network is not None:
        same = (network for network in zoo.NETWORKS.values()
                if not comparison.differences(stored.network, network))
        own = stored.network
        if own.name in zoo.NETWORKS:  # the file's name for another network
            own = replace(own, name=f"my-{own.name}")
        return match(stored, next(same, own))
    for scheme in ("torchvision", "model_zoo"):
        for candidate in _by_names(stored, zoo.ALEXNET_OWT, True, {scheme: names.SCHEMES[scheme]}):
            if not _misfits(stored, candidate):
                if stored.layers:  # without the shape of the input
                    return match(stored, candidate.network)
                note = f"network {candidate.network.name}, by the names and shapes of the tensors"
                return replace(candidate, notes=(note, *candidate.notes))
    fits = fitting(stored)
    if stored.layers:
        raise ParametersError("describes its layers without the size of their input; name a network with that input "
                              "with `net`" + (f", such as {' or '.join(fits)}" if fits else ""))
    raise Unnamed("does not name its network; " + (f"its tensors fit {' and '.join(fits)}: " if fits else "")
                  + "name the network with `net`")


def fitting(stored: StoredWeights) -> list[str]:
    """Return the names of the built-in networks that the tensors fit."""
    result = []
    for network in zoo.NETWORKS.values():
        with contextlib.suppress(ParametersError):
            _match(stored, network, any_classes=True)
            result.append(network.name)
    return result


def load(stored: StoredWeights, matched: Match) -> tuple[Parameters, tuple[str, ...]]:
    """Read the matched tensors, and return them in canonical layout and float32, with all notes of the file, the match
    and the conversion.

    Raises:
        ParametersError: if a value is NaN or infinite, or too large for float32; names all tensors.
    """
    images = layouts.flattened_shapes(matched.network)
    result: Parameters = {}
    faults, dtypes = [], set()
    for name in parameters.shapes(matched.network):
        tensor = stored.tensors[matched.names.get(name, name)]
        value = tensor.load()
        with np.errstate(over="ignore"):
            converted = value.astype(np.float32, copy=False)
        if not np.isfinite(converted).all():
            faults.append(f"{name} contains " + ("values beyond float32" if np.isfinite(value).all() else
                                                 "NaN or infinity"))
        elif name.endswith(".running_var") and value.min() < 0:
            faults.append(f"{name} has a variance below 0")
        if matched.layout == "HWIO":
            converted = layouts.to_canonical(converted, images.get(name))
        result[name] = np.require(converted, requirements=("C", "W"))
        dtypes.add(tensor.dtype)
    if faults:
        raise parameters.misfit(matched.network, faults)
    words = {"float16": "float16 was widened to float32", "bfloat16": "bfloat16 was widened to float32",
             "float64": "float64 was rounded to float32"}
    conversions = tuple(words[dtype] for dtype in FLOATS if dtype in dtypes and dtype in words)
    return result, (*stored.notes, *matched.notes, *conversions)


def _described(stored: StoredWeights, network: Network) -> Network | None:
    """Return the network that the file describes; if it lacks the input, with the other network's."""
    if stored.network is not None or not stored.layers:
        return stored.network
    try:
        return Network("file", network.input, stored.layers)
    except SpecError as error:
        raise ParametersError(f"describes another network than {network.name} ({error}); name another with `net`"
                              ) from error


def _match_description(stored: StoredWeights, described: Network, network: Network, any_classes: bool) -> Match:
    notes: tuple[str, ...] = ()
    if any_classes and described.classes != network.classes:
        notes = (_classes_note(network, described.classes),)
        network = spec.with_classes(network, described.classes)
    network = replace(network, output=described.output)
    faults = comparison.differences(described, network)
    if faults:
        raise ParametersError(f"describes another network than {network.name}: {'; '.join(faults)}; " + (
            "leave out `net`" if stored.network else "name another network with `net`"))
    ours = [layer.name for layer in network.layers if isinstance(layer, spec.LEARNERS)]
    theirs = [layer.name for layer in described.layers if isinstance(layer, spec.LEARNERS)]
    by_layer = dict(zip(ours, theirs))
    mapped = {name: stored.names["{}.{}".format(by_layer[name.partition(".")[0]], name.partition(".")[2])]
              for name in parameters.shapes(network)}
    if isinstance(network.layers[0], spec.Normalize) and not isinstance(described.layers[0], spec.Normalize):
        notes += (f"the file does not normalize pixels, {network.name} does",)
    result = Match(network, mapped, stored.layout or "OIHW", notes)
    if misfits := _misfits(stored, result, surplus=False):
        raise parameters.misfit(network, misfits)
    return result


def _misfits(stored: StoredWeights, candidate: Match, surplus: bool = True) -> list[str]:
    """Return a clause for each parameter without a fitting tensor and, if wanted, for each tensor without parameter."""
    faults = []
    for name, wanted in parameters.shapes(candidate.network).items():
        tensor = stored.tensors.get(candidate.names.get(name, name))
        if tensor is None:
            faults.append(f"missing {name}")
            continue
        shape = _canonical_shape(tensor.shape, candidate.layout)
        if shape != wanted:
            faults.append(f"{name} is {shape}, not {wanted}")
        elif tensor.dtype not in FLOATS:
            faults.append(f"{name} is {tensor.dtype}, not a float")
    used = {candidate.names.get(name, name) for name in parameters.shapes(candidate.network)}
    return faults + [f"surplus {parameters.printable(name)}" for name in stored.tensors if surplus and name not in used]


def _canonical_shape(shape: Shape, layout: Layout) -> Shape:
    return layouts.canonical_shape(shape) if layout == "HWIO" else shape


def _layout_hint(stored: StoredWeights, candidate: Match) -> list[str]:
    """Return a clause if some tensors have TensorFlow's layout and others do not: a square one could have either."""
    wanted = parameters.shapes(candidate.network)
    theirs = {name: stored.tensors[candidate.names[name]].shape for name in wanted
              if candidate.names.get(name) in stored.tensors}
    turned = [name for name, shape in theirs.items() if shape != wanted[name] == layouts.canonical_shape(shape)]
    return [f"{', '.join(turned)} would fit in TensorFlow's layout; bring all tensors, square ones too, into one layout"
            ] if turned and stored.layout is None else []


def _candidates(stored: StoredWeights, network: Network, any_classes: bool) -> Iterator[Match]:
    """Yield assignments of tensors to parameters, the surest first."""
    yield from _by_names(stored, network, any_classes, {"canonical": _own_names, **names.SCHEMES})
    yield from _by_shape(stored, network, any_classes)
    yield _by_position(stored, network)


def _by_position(stored: StoredWeights, network: Network) -> Match:
    """Return the assignment of layers of each kind in turn. It fits no file, and gives a good message."""
    ours: dict[type[spec.Layer], list[dict[str, str]]] = {kind: [] for kind in spec.LEARNERS}
    for layer in network.layers:
        if isinstance(layer, spec.LEARNERS):
            ours[type(layer)].append({part: f"{layer.name}.{part}" for part in parameters.parts(layer)})
    result: dict[str, str] = {}
    for parts in _modules(stored).values():
        is_conv = any(len(stored.tensors[name].shape) == 4 for name in parts.values())
        has_state = not parts.keys().isdisjoint(parameters.STATE)
        same = ours[spec.Conv2d if is_conv else spec.BatchNorm if has_state else spec.Dense]
        own = same.pop(0) if same else {}
        result |= {own[part]: name for part, name in parts.items() if part in own}
    return Match(network, result, stored.layout or "OIHW")


def _own_names(network: Network) -> dict[str, str]:
    return {layer.name: layer.name for layer in network.layers if isinstance(layer, spec.LEARNERS)}


def _by_names(stored: StoredWeights, network: Network, any_classes: bool,
              schemes: Mapping[str, Callable[[Network], dict[str, str]]]) -> Iterator[Match]:
    """Yield the assignments by each scheme of names, after the removal of wrappers and of a common prefix."""
    modules = _modules(stored)
    paths = {module: names.components(module) for module in modules}
    removable = min(map(len, paths.values()), default=1) - 1
    for removed in range(removable + 1):
        prefixes = {tuple(path[:removed]) for path in paths.values()}
        if len(prefixes) > 1:
            break
        short = {".".join(path[removed:]): module for module, path in paths.items()}
        for scheme, name_layers in schemes.items():
            theirs = name_layers(network)
            mapped = {f"{layer}.{part}": modules[short[name]][part] for layer, name in theirs.items()
                      if name in short for part in modules[short[name]]}
            if not mapped and (scheme, removed) != ("canonical", 0):
                continue
            is_renamed = any(short_name != module for short_name, module in short.items())
            notes = (f"names without {_removed_words(paths, removed)}",) if is_renamed and len(short) == len(
                modules) and _removed_words(paths, removed) else ()
            for layout in (stored.layout,) if stored.layout else ("OIHW", "HWIO"):
                turned = (TENSORFLOW_LAYOUT,) if layout == "HWIO" and not stored.layout else ()
                candidate = Match(network, mapped, layout, (*notes, *turned), scheme)
                yield _with_classes(stored, candidate) if any_classes else candidate


def _removed_words(paths: Mapping[str, list[str]], removed: int) -> str:
    """Return the components that were left out of the names, as `module.` and `net.`."""
    wrappers = {word for module in paths for word in re.split(r"[./]", module) if word in names.WRAPPERS}
    prefix = next(iter(paths.values()), [])[:removed]
    return " and ".join(f"`{word}.`" for word in [*sorted(wrappers), *prefix])


def _with_classes(stored: StoredWeights, candidate: Match) -> Match:
    """Return the candidate with the number of classes that the file's last layer has."""
    name = f"{candidate.network.layers[-1].name}.weight"
    tensor = stored.tensors.get(candidate.names.get(name, name))
    if tensor is None or len(tensor.shape) != 2:
        return candidate
    classes = _canonical_shape(tensor.shape, candidate.layout)[0]
    if classes == candidate.network.classes or classes < 1:
        return candidate
    return replace(candidate, network=spec.with_classes(candidate.network, classes),
                   notes=(*candidate.notes, _classes_note(candidate.network, classes)))


def _classes_note(network: Network, classes: int) -> str:
    return f"{classes:,} classes, where {network.name} has {network.classes:,}"


def _modules(stored: StoredWeights) -> dict[str, dict[str, str]]:
    """Return the tensors' names by module and canonical part, in the file's order."""
    result: dict[str, dict[str, str]] = {}
    for name in stored.tensors:
        divided = names.split(name)
        if divided is not None:
            result.setdefault(divided[0], {})[divided[1]] = name
    return result


def _by_shape(stored: StoredWeights, network: Network, any_classes: bool) -> Iterator[Match]:
    """Yield the assignment by order among the layers of equal shapes.

    Raises:
        ParametersError: if two modules of equal shapes have no certain order, or a layout is as good as the other.
    """
    modules = _modules(stored)
    fits = []
    for layout in (stored.layout,) if stored.layout else ("OIHW", "HWIO"):
        theirs = {module: {part: _canonical_shape(stored.tensors[name].shape, layout) for part, name in parts.items()}
                  for module, parts in modules.items()}
        adapted = _with_classes_by_shape(theirs, network) if any_classes else network
        wanted: dict[str, dict[str, Shape]] = {}
        for name, shape in parameters.shapes(adapted).items():
            layer, _, part = name.partition(".")
            wanted.setdefault(layer, {})[part] = shape
        assigned: dict[str, str] = {}
        is_certain = True
        for shapes in _distinct(wanted.values()):
            layers = [layer for layer, each in wanted.items() if each == shapes]
            same = [module for module, each in theirs.items() if each == shapes]
            if len(layers) != len(same):
                break
            is_certain &= len(same) == 1
            assigned |= dict(zip(layers, _in_order(same, stored.is_ordered, layers)))
        else:
            if len(assigned) == len(theirs):
                fits.append((layout, adapted, assigned, is_certain))
    for layout, adapted, assigned, is_certain in fits:
        pairs = ", ".join(f"{layer} = {parameters.printable(assigned[layer])}" for layer in _own_names(adapted))
        notes = [] if is_certain else [f"matched by order and shape: {pairs}"]
        if layout == "HWIO" and not stored.layout:
            notes.append(TENSORFLOW_LAYOUT)
        if adapted is not network:
            notes.append(_classes_note(network, adapted.classes))
        yield Match(adapted, {f"{layer}.{part}": name for layer, module in assigned.items()
                              for part, name in modules[module].items()}, layout, tuple(notes))


def _with_classes_by_shape(theirs: Mapping[str, Mapping[str, Shape]], network: Network) -> Network:
    last = parameters.shapes(network)[f"{network.layers[-1].name}.weight"]
    sizes = [parts["weight"][0] for parts in theirs.values()
             if len(parts.get("weight", ())) == 2 and parts["weight"][1] == last[1]]
    return spec.with_classes(network, sizes[-1]) if sizes and sizes[-1] > 0 else network


def _distinct(values: Any) -> list[Any]:
    result: list[Any] = []
    for value in values:
        if value not in result:
            result.append(value)
    return result


def _in_order(modules: list[str], is_ordered: bool, layers: list[str]) -> list[str]:
    """Return modules of equal shapes in the model's order.

    Raises:
        ParametersError: if the order of the file and the numbers in the names do not give the same, certain order.
    """
    by_number = sorted(modules, key=_numbers)
    is_numbered = _are_numbered(modules)
    is_certain = (modules == by_number or not is_ordered) if is_numbered else is_ordered
    if len(modules) > 1 and not is_certain:
        some = ", ".join(map(parameters.printable, modules[:4])) + ", ..." * (len(modules) > 4)
        raise ParametersError(f"the order of {some} is not certain, and their shapes are equal; name them "
                              f"{', '.join(layers[:4])}{', ...' * (len(layers) > 4)}, each with .weight and .bias, or "
                              "in Keras save the model with model.save('NAME.keras')")
    return by_number if is_numbered else modules


def _are_numbered(modules: list[str]) -> bool:
    """Return True if the names differ in their numbers alone; Keras's first `dense` comes before `dense_1`."""
    return len({re.sub(r"\d+", "0", re.sub(r"_\d+$", "", module)) for module in modules}) == 1


def _numbers(module: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", module)]
