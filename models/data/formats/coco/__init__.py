"""COCO's object annotations."""
