"""Fine-tuning of a segmenter: images with masks and a SAM to start from -> a SAM folder that can be served.

`models.finetuning.segmenter.options` imports nothing heavy; the training itself is
`models.finetuning.segmenter.training.finetune_segmenter`.
"""
