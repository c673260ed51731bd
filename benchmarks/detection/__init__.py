"""Detection protocols, VOC and COCO data, metrics and the engines."""
