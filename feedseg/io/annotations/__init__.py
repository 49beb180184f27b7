"""Shapes that people draw on images, as the programs store them: ImageJ, COCO, labelme, QuPath."""
