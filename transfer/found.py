"""What a source format found in a file, before it is checked against an architecture."""

from dataclasses import dataclass

import torch

from transfer.backbone import InputSpec, Provenance
from transfer.features import Spelling


@dataclass(frozen=True)
class Found:
    """The weights of a file under the file's own names, and what becomes of each.

    `own` holds every tensor by its own name, and `spelling` says how the format spells a ResNet. Each name of `own` is
    either mapped (`canonical` gives its canonical name) or dropped on purpose (`dropped` gives the reason); a name that
    the format does not know is mapped to itself, and the check against the architecture reports it. `dropped` also
    lists the file's other parts, such as an optimizer's state. `declared_arch` and `declared_digest` are what the file
    says of itself.
    """

    own: dict[str, torch.Tensor]
    spelling: Spelling
    canonical: dict[str, str]
    dropped: dict[str, str]
    input: InputSpec
    provenance: Provenance
    stride_in_1x1: bool = False
    declared_arch: str | None = None
    declared_digest: str | None = None
