"""Checkpoints of the MoCo authors' code and of `mocobench pretrain`, which has the same layout.

epoch, arch, optimizer
state_dict: module.encoder_q.*  the query encoder, with its projection head at `fc`
            module.encoder_k.*  the key encoder, its moving average
            module.queue, module.queue_ptr
mocobench:  recipe, seed, input (of `mocobench pretrain`) or metadata (of `mocobench convert`)
"""

from dataclasses import replace
from pathlib import Path

from mocobench.runtime.errors import UserError
from transfer.backbone import InputSpec
from transfer.container import Content
from transfer.found import Found
from transfer.layout import Layout
from transfer.metadata import KEY, with_metadata
from transfer.released import ReleasedFile

# The methods of `mocobench pretrain`, all of them in the layout of MoCo's authors
METHODS = {"moco": "MoCo", "end-to-end": "end-to-end", "simclr": "SimCLR"}
SUMMARY = "checkpoint of the MoCo authors' code (v1, v2) or of `mocobench pretrain`"
TESTED_WITH = "mocobench pretrain"
# The table of models in the authors' README, github.com/facebookresearch/moco; all are of ImageNet's training images.
RELEASED = tuple(
    ReleasedFile(md5, method, epochs, recipe, num_images=1_281_167)
    for md5, method, epochs, recipe in (
        ("b251726a", "MoCo v1", 200, "moco-v1-200ep"),
        ("59fd9945", "MoCo v2", 200, "moco-v2-200ep"),
        ("a04e12f8", "MoCo v2", 800, "moco-v2-800ep"),
    )
)
LAYOUTS = (
    Layout(
        format="moco",
        method="MoCo",
        sections=("state_dict",),
        encoders={"query": "encoder_q.", "key": "encoder_k."},
        heads={"fc.": "projection head"},
        # Everything but the query encoder's trunk serves the pretext task only.
        dropped={"queue": "queue of keys"},
    ),
)


def finish(found: Found, content: Content, path: Path) -> Found:
    """The head's kind, and recipe, seed and input convention where the file has them.

    Raises:
        UserError: our own part of the file is not what this project writes.
    """
    found.dropped.pop(KEY, None)
    ours = content.section(KEY)
    if "metadata" in ours:
        return with_metadata(found, str(ours["metadata"]), path)
    head = "MLP head" if any(name.endswith("encoder_q.fc.0.weight") for name in found.own) else "linear head"
    provenance = replace(found.provenance, method=f"MoCo, {head}")
    if not ours:
        return replace(found, provenance=provenance)
    try:
        method = METHODS[ours["recipe"].get("method", "moco")]  # before version 0.2 there was no other
        whence = replace(
            provenance,
            method=f"{method}, {head}",
            recipe=str(ours["recipe"]["name"]),
            recipe_changes="; ".join(ours.get("differs", ())) or None,
            num_images=ours.get("data", {}).get("images"),
            seed=int(ours["seed"]),
        )
        return replace(
            found,
            input=InputSpec.from_dict(ours["input"]),
            provenance=whence,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: expected under `{KEY}` a recipe, a seed and an input convention, found "
            f"{type(error).__name__} {error}; write the checkpoint again"
        ) from error
