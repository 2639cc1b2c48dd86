"""What a training starts from: a detector's config for the data's classes, and the weights of it that still fit."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from mmengine.dist import get_world_size

from models.checkpoints import CheckpointError, ModelFilesError, StateDict, load_into, load_state_dict
from models.detector import mask_pasting, mmcv_ops
from models.detector.configs import read_config
from models.detector.files import DetectorFiles, build_trainable, find_class_names
from models.detector.pipelines import inference_pipeline
from models.detector.single_image import LEFT_OFF, name_of
from models.finetuning import classes, colours, students, trainable
from models.model_errors import Say
from models.wrappers import unwrapped

Take = Literal["all", "backbone", "nothing"]

# Counters that matter to nothing, and weights of parts that are left out.
_IGNORED = ("*num_batches_tracked", *LEFT_OFF, *classes.SEMANTIC_WEIGHTS)


def _silent(_: str) -> None:
    pass


@dataclass(frozen=True)
class Start:
    """A detector to start from.

    path: its config. config: MMDetection's, as the detector has it. checkpoint, state_dict: its weights; None to
    start from random ones. class_names: of its own classes, None where nobody knows them. student: what is trained on
    its backbone, None where the detector itself is.
    """

    path: Path
    config: Any
    checkpoint: Path | None
    state_dict: StateDict | None
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...] = ()
    student: str | None = None

    @property
    def name(self) -> str:
        return self.student or self.path.stem

    @classmethod
    def read(cls, path: Path, take: Take = "all", student: str | None = None) -> Start:
        """Read a detector's folder, or, to take nothing of its weights, a config alone. Raises ModelFilesError.

        student: one of STUDENTS, to train on the detector's backbone in place of the detector; of whose weights it
        takes the backbone's, or none.
        """
        if student is not None:
            begun = cls.read(path, "nothing" if take == "nothing" else "backbone")
            config = students.student_config(student, begun.config, begun.path)
            return replace(begun, config=config, student=student)
        mmcv_ops.install()
        colours.install()
        mask_pasting.install()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if take == "nothing" and path.suffix == ".py" and path.is_file():
                return cls(path, _readable(path), None, None, None)
            files = DetectorFiles.find(path)
            config = _readable(files.config)
            if take == "nothing":
                return cls(files.config, config, None, None, None)
            notes: list[str] = []
            state_dict, meta = load_state_dict(files.checkpoint, notes.append)
            model = build_trainable(config, files.config)
            own = model.state_dict().keys()
            state_dict = unwrapped(state_dict, own, files.checkpoint, notes.append)
            if take == "backbone":
                if not any(key.startswith("backbone.") for key in state_dict):  # perhaps a backbone alone
                    inner = {key.removeprefix("backbone.") for key in own if key.startswith("backbone.")}
                    state_dict = unwrapped(state_dict, inner, files.checkpoint, notes.append)
                backbone = _backbone(state_dict, files.checkpoint)
                return cls(files.config, config, files.checkpoint, backbone, None, tuple(notes))
            try:
                names = find_class_names(files, meta, config, model)
            except CheckpointError:
                raise
            except ModelFilesError:  # names that are missing or do not fit: the head is made anew, which is said
                names = None
            return cls(files.config, config, files.checkpoint, state_dict, names, tuple(notes))

    @property
    def factors(self) -> dict[str, Any]:
        """What share of the learning rate each part gets by the config; YOLOF's backbone a third."""
        wrapper = self.config.get("optim_wrapper") or {}
        return {
            key: {name: float(share) for name, share in value.items()}
            for key, value in ((wrapper.get("paramwise_cfg") or {}).get("custom_keys") or {}).items()
        }

    def order(self, class_names: Sequence[str]) -> tuple[str, ...]:
        """The data's classes in the order in which a model of them counts: the detector's own, if they are the same."""
        if self.class_names is not None and set(self.class_names) == set(class_names):
            return self.class_names
        return tuple(class_names)

    def knows(self, class_names: Sequence[str]) -> bool:
        """Whether it finds these very classes as it is."""
        same = self.class_names is not None and tuple(self.class_names) == tuple(class_names)
        return same and not classes.has_stuff(self.config.model)

    def config_for(self, class_names: Sequence[str], say: Say = _silent) -> Any:
        """The config with as many classes, for training. Raises ModelFilesError for a detector that is not trained
        here.

        say: is told what is left out of the model.
        """
        reason = trainable.why_not(self.config, len(class_names))
        if reason is not None:
            raise ModelFilesError(f"{self.path}: {reason}")
        config = copy.deepcopy(self.config)
        classes.leave_out_stuff(config.model, say)
        classes.set_classes(config.model, len(class_names))
        if self.checkpoint is None:
            classes.train_all(config.model)
        preprocessor = config.model.get("data_preprocessor")
        if isinstance(preprocessor, dict):
            preprocessor.pop("batch_augments", None)  # they resize or pad to the zoo's sizes, whatever the data's are
            if self.learns_masks:
                preprocessor["pad_mask"] = True
        return config

    @property
    def learns_masks(self) -> bool:
        """Whether every object has to have a mask."""
        return trainable.learns_masks(self.config)

    def model_for(self, class_names: Sequence[str], config: Any, say: Say, seed: int) -> Any:
        """A model for these classes with every weight that fits; what does not is made anew, and said.

        Raises ModelFilesError if the config makes no model, or weights are missing that the classes do not explain.
        """
        from mmengine.model.utils import revert_sync_batchnorm

        torch.manual_seed(seed)
        model = build_trainable(config, self.path)
        if get_world_size() == 1 or not torch.cuda.is_available():  # with nobody, or by no means, to synchronise
            model = revert_sync_batchnorm(model)
        model.init_weights()
        if self.state_dict is None:
            say("weights: all new")
            return model
        assert self.checkpoint is not None
        for note in self.notes:
            say(note)
        own = model.state_dict()
        anew: list[str] = []
        if not self.knows(class_names):
            # What depends on the classes is what has another shape in the same model for one class more.
            larger = build_trainable(self.config_for([*class_names, ""]), self.path).state_dict()
            anew = [key for key, tensor in own.items() if larger[key].shape != tensor.shape]
        kept = {key: tensor for key, tensor in self.state_dict.items() if key not in anew}
        if not any(key.startswith(("neck.", "bbox_head.", "roi_head.")) for key in kept):  # a backbone
            load_into(model, {**own, **kept}, self.checkpoint)
            say(f"weights: the backbone of {self.checkpoint}; neck and head are new")
            return model
        load_into(model, {**{key: own[key] for key in anew}, **kept}, self.checkpoint, ignore=_IGNORED)
        if anew:
            known = f" in place of {_few(self.class_names)}" if self.class_names else ""
            dropped = ", ".join(f"{key} {_shape(self.state_dict.get(key))}" for key in anew)
            say(f"weights: {self.checkpoint}; a new class head for {_few(class_names)}{known}, dropping {dropped}")
        else:
            say(f"weights: {self.checkpoint}; the classes are the same, so its head is kept")
        return model


def _readable(path: Path) -> Any:
    """The config of a detector that is trained here, before anything of it is built. Raises ModelFilesError."""
    config = read_config(path)
    reason = trainable.why_kind_not(config)
    if reason is not None:
        raise ModelFilesError(f"{path}: {reason}")
    return config


def pipeline_steps(
    config: Any, path: Path, image_min_size: int | None, image_max_size: int | None
) -> list[dict[str, Any]]:
    """The config's test pipeline, with other sizes where asked for: to resize to, and to pad to.

    Raises ModelFilesError where the pipeline resizes in a way that has no sizes to set.
    """
    loading, *steps = (dict(step) for step in inference_pipeline(config, path))
    resizes = [step for step in steps if isinstance(step.get("scale"), (tuple, list))]
    if image_min_size or image_max_size:
        if not resizes:
            raise ModelFilesError(f"{path}: its test pipeline has no Resize with a scale that could be set")
        for step in resizes:
            short, long = min(step["scale"]), max(step["scale"])
            if image_min_size:
                short, long = image_min_size, max(image_min_size, long)
            if image_max_size:
                short, long = min(short, image_max_size), image_max_size
            step["scale"] = (long, short)
        for step in steps:
            if name_of(step["type"]) == "Pad" and step.get("size"):
                step["size"] = (long, long)  # an image may lie or stand
    return [{**loading, "type": "LoadImageFromFile", "backend_args": None}, *steps]


def _backbone(state_dict: StateDict, checkpoint: Path) -> StateDict:
    """The backbone's weights of a detector's; those of a backbone alone get the names they have in a detector."""
    chosen = {key: tensor for key, tensor in state_dict.items() if key.startswith("backbone.")}
    if not chosen and "conv1.weight" in state_dict:
        chosen = {f"backbone.{key}": tensor for key, tensor in state_dict.items() if not key.startswith("fc.")}
    if not chosen:
        raise CheckpointError(
            f"{checkpoint}: expected weights of a backbone, found none whose key begins with 'backbone.'"
        )
    return chosen


def _shape(tensor: torch.Tensor | None) -> str:
    return "which it lacks" if tensor is None else f"({' x '.join(map(str, tensor.shape))})"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{len(names)} classes"
