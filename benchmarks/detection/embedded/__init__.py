"""The R-CNN of Detectron2 on torch and torchvision.ops. Knows tensors only."""
