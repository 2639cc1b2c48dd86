"""Fine-tuning: a data set with boxes and a detector to start from -> a detector folder that can be served.

`models.finetuning.options` imports nothing heavy; the training itself is `models.finetuning.training.finetune`.
"""
