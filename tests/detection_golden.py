"""What the golden file keeps of a detector: one course through all that it does, the same for both engines."""

from typing import Any

import torch
from detection_examples import DECIDED, UNDECIDED, fill_by_formula, picture_by_formula, resize_last_layers
from detection_reference import VARIANTS, Detectron2, Embedded, Sizes, Solver, in_float64, train

NUM_CLASSES = 5
SHAPES = ((64, 96), (80, 64), (72, 72), (56, 104))  # (height, width) of two padded batches
# Fewer regions and anchors than there are, so that the draws and the share of foreground count.
SIZES = Sizes(rpn_post_nms_train=20, rpn_post_nms_test=16, detections_per_image=24)
SOLVER = Solver(iterations=5, warmup_iterations=2, decay_iterations=(4,))
# One of each part of a detector, where it has it.
GRADIENTS = (
    "backbone.stem.conv1.weight",
    "backbone.bottom_up.stem.conv1.weight",
    "backbone.res4.5.conv2.weight",
    "backbone.fpn_lateral2.weight",
    "backbone.fpn_output5.weight",
    "proposal_generator.rpn_head.conv.weight",
    "proposal_generator.rpn_head.anchor_deltas.weight",
    "roi_heads.res5.0.conv2.weight",
    "roi_heads.res5.norm.weight",
    "roi_heads.box_head.conv1.weight",
    "roi_heads.box_head.fc1.weight",
    "roi_heads.box_predictor.cls_score.weight",
    "roi_heads.box_predictor.bbox_pred.weight",
    "roi_heads.mask_head.mask_fcn1.weight",
    "roi_heads.mask_head.deconv.weight",
    "roi_heads.mask_head.predictor.weight",
)


def trace(kind: type[Embedded] | type[Detectron2], name: str) -> dict[str, Any]:
    """Precise statistics and detections of decided weights; losses, gradients and five steps of undecided ones.

    All of it in float64, so that it is the same on any machine.
    """
    variant = VARIANTS[name]
    engine = kind(variant, num_classes=NUM_CLASSES, sizes=SIZES)
    in_float64(engine)
    masks = variant.protocol.masks
    pictures = [
        picture_by_formula(number, height=height, width=width, num_classes=NUM_CLASSES, masks=masks)
        for number, (height, width) in enumerate(SHAPES)
    ]
    batches = [pictures[:2], pictures[2:]]
    fill_by_formula(engine.model, seed=0)
    engine.make_precise(batches)
    running = engine.model.state_dict()
    result: dict[str, Any] = {
        "statistics": {
            key: rounded(running[key].double().norm())
            for key in sorted(running)
            if key.endswith("5.conv1.norm.running_var")
        },
        "proposals": [rounded(each) for each in engine.proposals(batches[0])],
        "detections": [
            {
                "boxes": rounded(torch.from_numpy(each.boxes)),
                "scores": rounded(torch.from_numpy(each.scores)),
                "labels": each.labels.tolist(),
                "masks": None if each.masks is None else [mask["counts"].decode() for mask in each.masks],
            }
            for each in engine.detections(batches[0])
        ],
    }
    resize_last_layers(engine.model, now=DECIDED, then=UNDECIDED)
    torch.stack(list(engine.losses(batches[1], seed=7).values())).sum().backward()
    parameters = dict(engine.model.named_parameters())
    result["gradients"] = {key: rounded(parameters[key].grad.norm()) for key in GRADIENTS if key in parameters}
    result["steps"] = train(engine, batches, SOLVER)
    return result


def rounded(tensor: torch.Tensor) -> Any:
    """The numbers with seven significant digits, as lists."""
    if tensor.ndim == 0:
        return float(f"{float(tensor):.7g}")
    return [rounded(each) for each in tensor]
