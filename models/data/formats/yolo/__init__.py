"""YOLO's text files, of boxes and of outlines."""
