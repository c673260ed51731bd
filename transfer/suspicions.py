"""What is legal in a checkpoint but suspicious: BN statistics without sense, a classifier that does not fit, pixels
that nothing tells how to prepare.
"""

from collections.abc import Mapping

import torch

from transfer.arch import STEMS, parse_arch
from transfer.backbone import IMAGENET_RGB, Backbone, is_counter, is_variance
from transfer.found import Found


def suspicious_statistics(backbone: Backbone) -> list[str]:
    """BN statistics that training does not leave; NaN, Inf and negative variance are errors of a Backbone already."""
    tensors = backbone.tensors
    layers = [name.removesuffix(".running_var") for name in tensors if is_variance(name)]
    untouched = [layer for layer in layers if _is_untouched(tensors, layer)]
    found = []
    if untouched:
        found.append(
            f"{len(untouched)} of {len(layers)} BN layers have the statistics they start with (mean 0, variance 1), "
            f"{untouched[0]} first: the network was hardly trained, or its statistics were lost"
        )
    num_off = {layer: int((tensors[layer + ".running_var"] == 0).sum()) for layer in layers}
    with_dead = [layer for layer, num_channels in num_off.items() if num_channels]
    if with_dead:
        found.append(
            f"{sum(num_off.values())} channels of {len(with_dead)} BN layers have variance 0, {with_dead[0]} first: "
            "they never changed in training"
        )
    never_counted = [name for name, t in tensors.items() if is_counter(name) and t == 0]
    if never_counted and not untouched:
        found.append(f"{len(never_counted)} BN counters are 0, though the statistics are not those BN starts with")
    return found


def _is_untouched(tensors: Mapping[str, torch.Tensor], layer: str) -> bool:
    mean, variance = tensors[layer + ".running_mean"], tensors[layer + ".running_var"]
    return bool((mean == 0).all()) and bool((variance == 1).all())


def classifier_shape(found: Found) -> tuple[int, int] | None:
    """(classes, features) of the one linear classifier that is dropped; None if there is none, or more than one."""
    shapes = [
        tuple(value.shape)
        for name, value in found.own.items()
        if found.dropped.get(name) == "classifier"
        and name.endswith(found.spelling.weight)
        and isinstance(value, torch.Tensor)
        and value.ndim == 2
    ]
    return (shapes[0][0], shapes[0][1]) if len(shapes) == 1 else None


def suspicious_classifier(shape: tuple[int, int] | None, backbone: Backbone) -> list[str]:
    """A classifier of other features than the backbone's: it belongs to another network."""
    if shape is None or shape[1] == backbone.feature_size:
        return []
    return [
        f"the classifier takes {shape[1]} features, where a {backbone.arch} makes {backbone.feature_size}: it belongs "
        "to another network"
    ]


def assumes_convention(found: Found) -> bool:
    """Whether ImageNet's convention is taken for that of a file that says neither this nor of which method it is."""
    # A convention that is stated is another object, even if its numbers are the same.
    return found.input is IMAGENET_RGB and found.provenance.method is None


def unusual_assumption(found: Found, backbone: Backbone) -> list[str]:
    """A stem for small pictures, which are rarely ImageNet's, where neither file nor format states a convention."""
    if found.input is not IMAGENET_RGB or parse_arch(backbone.arch).stem == STEMS[""]:
        return []
    return ["3x3 stem: ImageNet's mean and std, and no max-pooling, are assumed"]
