"""What a source format found in a file, before it is checked against an architecture."""

from dataclasses import dataclass, field

import torch

from transfer.backbone import InputSpec, Provenance
from transfer.features import Spelling


@dataclass(frozen=True)
class Found:
    """The weights of a file under the file's own names, and what becomes of each.

    Each name of `own` is either mapped (`canonical` gives its canonical name) or dropped on purpose (`dropped` gives
    the reason); a name that the format does not know is mapped to itself, and the check against the architecture
    reports it. `dropped` also lists the file's other parts, such as an optimizer's state. `implied` are canonical
    tensors that the format leaves out because it means them always the same.

    `in_network` gives the names of mapped tensors in their owner's network, and `spelling` says how that network spells
    a ResNet's parts: enough to run it. `small_stem` is what a 3x3 first convolution stands for.
    `input` is the object IMAGENET_RGB where nothing states a convention.
    `declared_arch` and `declared_digest` are what the file says of itself.
    """

    own: dict[str, torch.Tensor]
    in_network: dict[str, str]
    spelling: Spelling
    canonical: dict[str, str]
    dropped: dict[str, str]
    input: InputSpec
    provenance: Provenance
    encoder: str | None = None
    implied: dict[str, torch.Tensor] = field(default_factory=dict)
    small_stem: str = "-cifar"
    stride_in_1x1: bool = False
    declared_arch: str | None = None
    declared_digest: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def network(self) -> dict[str, torch.Tensor]:
        """The mapped tensors by the names they have in their owner's network."""
        return {theirs: self.own[name] for name, theirs in self.in_network.items()}
