"""Dense tasks on an encoder: segmentation, detection and depth."""
