"""Detectors in Hugging Face's folders: RT-DETR, D-FINE, RF-DETR, DETR and its variants, Grounding DINO, OWLv2."""
