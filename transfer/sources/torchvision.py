"""State dicts of torchvision's ResNets: bare, or under a `state_dict` or `model` key; and those this project writes."""

from pathlib import Path

from transfer.backbone import IMAGENET_RGB, Provenance
from transfer.container import Content
from transfer.features import TORCHVISION
from transfer.found import Found
from transfer.metadata import KEY, parse_metadata

SUMMARY = "state dict of a torchvision ResNet"
SECTIONS = ("state_dict", "model")
NAMES_TO_KNOW_IT_BY = ("conv1.weight", "layer1.0.conv1.weight")


def claims(content: Content) -> bool:
    """The file, or its `state_dict` or `model`, holds a ResNet's first convolutions under torchvision's names."""
    return content.container == "torch" and _where(content) is not None


def read(content: Content, path: Path) -> Found:
    """Everything but the classifier; the input convention is torchvision's unless the file states another.

    Raises:
        UserError: the file's metadata is not what this project writes.
    """
    where = _where(content)
    own = content.section(where) if where else content.values
    dropped = {name: "classifier" for name in own if name.startswith("fc.")}
    canonical = {name: name for name in own if name not in dropped}
    # This project's target leaves its metadata on the dictionary itself, which torch.save keeps.
    stated = getattr(own, KEY, None)
    if stated is not None:
        return Found(own, TORCHVISION, canonical, dropped, **vars(parse_metadata(stated, path)))
    if where:
        dropped |= content.beside(where, "epoch", "arch")
    epoch, arch = (content.values.get(name) if where else None for name in ("epoch", "arch"))
    return Found(
        own=own,
        spelling=TORCHVISION,
        canonical=canonical,
        dropped=dropped,
        input=IMAGENET_RGB,
        provenance=Provenance(source=path.name, format="torchvision", epochs=epoch if isinstance(epoch, int) else None),
        declared_arch=arch if isinstance(arch, str) else None,
    )


def _where(content: Content) -> str | None:
    """The key the state dict is under, `` for the file itself, None if there is no state dict."""
    candidates = {"": content.values} | {name: content.section(name) for name in SECTIONS}
    found = (where for where, state in candidates.items() if all(name in state for name in NAMES_TO_KNOW_IT_BY))
    return next(found, None)
