"""Checkpoints of the MoCo authors' code and of `mocobench pretrain`, which has the same layout.

epoch, arch, optimizer
state_dict: module.encoder_q.*  the query encoder, with its projection head at `fc`
            module.encoder_k.*  the key encoder, its moving average
            module.queue, module.queue_ptr
mocobench:  recipe, seed, input (ours only)
"""

from dataclasses import replace
from pathlib import Path

from mocobench.runtime.errors import UserError
from transfer.backbone import IMAGENET_RGB, InputSpec, Provenance
from transfer.container import Content
from transfer.features import TORCHVISION
from transfer.found import Found

SUMMARY = "checkpoint of the MoCo authors' code or of `mocobench pretrain`"
QUERY = "module.encoder_q."
SPELLING = replace(TORCHVISION, prefix=QUERY)
# Everything but the query encoder's trunk serves the pretext task only.
DROPPED = {
    QUERY + "fc.": "projection head",
    "module.encoder_k.": "key encoder",
    "module.queue": "queue of keys",
}


def claims(content: Content) -> bool:
    """`state_dict` holds a `module.encoder_q.`."""
    return content.container == "torch" and any(str(name).startswith(QUERY) for name in content.section("state_dict"))


def read(content: Content, path: Path) -> Found:
    """The query encoder's trunk; the input convention is ours if the file states one, else the authors'.

    Raises:
        UserError: our own part of the file is not what `mocobench pretrain` writes.
    """
    own = content.section("state_dict")
    dropped = {name: reason for name in own if (reason := _reason_to_drop(name))}
    head = "MLP" if QUERY + "fc.2.weight" in own else "linear"
    ours = content.section("mocobench")
    try:
        spec = InputSpec.from_dict(ours["input"]) if ours else IMAGENET_RGB
        recipe = str(ours["recipe"]["name"]) if ours else None
        seed = int(ours["seed"]) if ours else None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: expected under `mocobench` a recipe, a seed and an input convention, found "
            f"{type(error).__name__} {error}; write the checkpoint again"
        ) from error
    epoch, arch = content.values.get("epoch"), content.values.get("arch")
    provenance = Provenance(
        source=path.name,
        format="moco",
        method=f"MoCo, {head} head",
        epochs=epoch if isinstance(epoch, int) else None,
        recipe=recipe,
        seed=seed,
    )
    return Found(
        own=own,
        spelling=SPELLING,
        canonical={name: name.removeprefix(QUERY) for name in own if name not in dropped},
        dropped=dropped | content.beside("state_dict", "epoch", "arch", "mocobench"),
        input=spec,
        provenance=provenance,
        declared_arch=arch if isinstance(arch, str) else None,
    )


def _reason_to_drop(name: str) -> str | None:
    return next((reason for start, reason in DROPPED.items() if name.startswith(start)), None)
