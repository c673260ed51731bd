"""docs/formats.md: every format that is read or written, from the code itself.

python -m transfer.formats > docs/formats.md
"""

import inspect
from types import ModuleType

from transfer.backbone import InputSpec
from transfer.convert import target_formats
from transfer.layout import Layout
from transfer.load import source_formats
from transfer.sources import moco_v3

EXAMPLE = moco_v3  # the format that the page shows to be added


def page() -> str:
    """The whole page, as Markdown."""
    return "\n".join([INTRODUCTION, _source_table(), WRITING, _target_table(), _adding()])


def _source_table() -> str:
    rows = [
        _row(_source_cells(name, module, layout))
        for name, module in source_formats().items()
        for layout in module.LAYOUTS
    ]
    head = ("format", "what", "detected by", "tested with", "pixels", "encoders", "dropped")
    return "\n".join([_row(head), _row(["---"] * len(head)), *rows]) + "\n"


def _source_cells(name: str, module: ModuleType, layout: Layout) -> list[str]:
    dropped = {**layout.heads, **layout.dropped}
    return [
        f"`{name}`",
        module.SUMMARY,
        _detection(layout),
        getattr(module, "TESTED_WITH", "names"),
        _pixels(layout.input) + (", stride in the 1x1" if layout.stride_in_1x1 else ""),
        ", ".join(f"`{encoder}`" for encoder in layout.encoders) if len(layout.encoders) > 1 else "",
        ", ".join(f"`{start}*` {reason}" for start, reason in dropped.items()),
    ]


def _detection(layout: Layout) -> str:
    section = layout.sections[0].replace("/", " → ")
    start = next(iter(layout.encoders.values())).rpartition(":")[2]
    parts = [f"{' or '.join(layout.containers)}:", f"`{start}{layout.names.theirs('conv1.weight')}`"]
    parts += [f"in `{section}`"] if section else []
    parts += [f"with `{mark}*`" for mark in layout.marks]
    parts += [f"without `{lack}*`" for lack in layout.lacks]
    parts += [f"beside `{key}`" for key in layout.beside]
    parts += [f"not beside `{key}`" for key in layout.not_beside]
    return " ".join(parts)


def _pixels(spec: InputSpec) -> str:
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (spec.mean, spec.std))
    return f"{spec.channel_order} 0–{spec.max_value:g}, mean {mean}, std {std}"


def _target_table() -> str:
    rows = [_row([f"`{name}`", m.SUMMARY, f"`{m.SUFFIX}`"]) for name, m in target_formats().items()]
    return "\n".join([_row(["format", "what", "usual ending"]), _row(["---"] * 3), *rows]) + "\n"


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _adding() -> str:
    source = inspect.getsource(EXAMPLE)
    return ADDING.format(num_lines=len(source.splitlines()), name=EXAMPLE.__name__.rpartition(".")[2], source=source)


INTRODUCTION = """# Formats

Made from the code by `python -m transfer.formats > docs/formats.md`; a test holds the page to it.

## Read

A file's format is told from what is in it, never from its name, and exactly one format may claim it. Shapes tell
ResNet-18, 34, 50, 101 and 152, torchvision's wide ones (`wide_resnet50_2`), those that are wider throughout
(`resnet50w2`, `w4`, ...) and a 3x3 stem for small pictures (`resnet18-cifar`). `module.` and `_orig_mod.` are ignored
wherever they stand in a name. A tensor that is neither the backbone's nor dropped for a reason is an error.
Weights in float16 or bfloat16 are widened to float32, which loses nothing; the provenance says so. The checkpoints that
MoCo's authors released are known by their MD5: their provenance has the recipe that repeats them.

*Detected by* names the first convolution and where it is; *pixels* is the input convention of the format's authors,
which a file that states its own overrides; a warning says where a network with a 3x3 stem is given ImageNet's for want
of any other. *Tested with* names the package whose own files the tests read; where it says `names`, tests make the
files from the names in the authors' published code. The first of several *encoders* is the one that the authors
evaluate; `--encoder NAME` chooses another, for `inspect`, `convert` and `bench`, and the provenance says so.
"""
WRITING = """
## Write

Every target is read back, and the features of source and target are compared after the stem and each stage, before a
file gets its name: the target is run under its own names, as the benchmarks run it and, in Detectron2's format, by the
embedded engine (a ResNet-50) and by Detectron2 itself where it is installed. A target refuses what its tool's own
network cannot be: a 3x3 stem; a stride in the 1x1 convolutions (not `detectron2`); and networks as wide as `resnet50w2`
(`moco`, `timm`, `torchvision`), `resnet18w2` (`detectron2`) or `wide_resnet50_2` (`huggingface`). `safetensors`, the
project's own, takes everything.
"""
ADDING = """
## Add a format

One file in `transfer/sources`. This is all of `{name}.py`, {num_lines} lines:

```python
{source}```

The contract tests make a file of every layout, and read, convert, prove and refuse it: they need no line for a new one.
Where the names inside the network are not torchvision's, the layout also has a table of names (`names=`, to translate
them) and a spelling (`spelling=`, to run them): `transfer/huggingface_names.py` has both. A target is a file in
`transfer/targets` with a function `write(backbone, path)`.
"""

if __name__ == "__main__":
    print(page(), end="")
