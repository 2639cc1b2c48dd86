"""What annotation files are made of: numbers, boxes, outlines, masks, references to images."""
