"""SAM: embed an image once, decode any number of prompts on it. SAM-HQ, SAM 2 and SAM 3 are made from it.

Knows tensors and files, nothing of HTTP, nor how the decoder computes (see `models.segmenter.decoder`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from transformers import SamConfig, SamModel

from models.families import ModelFiles
from models.huggingface_folder import folder_files, folders_below, weights_at
from models.mapped_weights import moved
from models.segmenter import sam_folder
from models.segmenter.cuda.sam import PROMPTS, TOKENS, CudaDecoder, CudaEncoder
from models.segmenter.decoder import Images, PlaceTables, encode_prompts
from models.segmenter.decoder_graphs import DecoderGraph, EncoderGraph
from models.segmenter.encoder import ImageEncoder, UnknownEncoder
from models.segmenter.mask_packing import full_size, pack_masks, unpack_bits
from models.segmenter.mask_prompts import images_with_masks, logits_of_mask
from models.segmenter.pixel_upload import normalize, upload
from models.segmenter.portions import Portion, filled_up, portions
from models.segmenter.prompt_points import labelled_points, token_count
from models.segmenter.protocol import DecodeRequest, RawMasks
from models.segmenter.published_decoder import decode_as_published
from models.segmenter.ready_images import ReadyPhotos
from models.segmenter.upsampling import binary_masks
from models.square_images import IMAGENET_MEAN, IMAGENET_STD, Sample, input_size, normalization, resized
from models.types import Embedding, Masks, Prompts, check_rgb

log = logging.getLogger("box2mask")

# Prompts decoded at once, by kind of device: bounds the decoder's memory, about 30 MB for each prompt of a
# full-size SAM in float32. A processor is fastest with what its caches and the allocator's lists still hold;
# a GPU wants much to do at once, from as many images as there are.
PROMPTS_AT_ONCE = {"cpu": 4, "cuda": PROMPTS[-1]}
# `models.segmenter.decoder` is the faster one while a prompt's tokens are few: what it does grows with their square.
FACTORED_TOKENS = 24


# The encoder: samples -> features (B, C, h, w) on the device.
Encode = Callable[[Sequence[Sample], Callable[[], None] | None], Tensor]


class Sam:
    """A loaded SAM; make one with `Sam.load`. It is a `models.segmenter.protocol.Segmenter`.

    `preprocess` and `postprocess` may run in any number of threads beside one `embed` or `decode`.
    """

    # What its folder says that it is, and of which of transformers' classes it is.
    model_types: ClassVar[tuple[str, ...]] = sam_folder.SAM
    config_class: ClassVar[Any] = SamConfig
    model_class: ClassVar[Any] = SamModel
    # Whether images become squares whatever their shape, instead of being padded to them.
    stretches: ClassVar[bool] = False
    # By which images are normalised where the folder does not say it.
    mean_std: ClassVar[tuple[Sequence[float], Sequence[float]]] = (IMAGENET_MEAN, IMAGENET_STD)
    # What makes image embeddings ready for prompts, and whether `models.segmenter.cuda` knows this network.
    images_class: ClassVar[type[Images]] = Images
    has_cuda_graphs: ClassVar[bool] = True
    decoder_graph: ClassVar[type[DecoderGraph]] = DecoderGraph

    def __init__(
        self,
        model: Any,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        fast: bool = True,
    ) -> None:
        """mean, std: by which RGB in 0..1 is normalised. fast: False runs Hugging Face's own modules instead.

        The model's weights must not change after the first `decode`.
        """
        self.device = torch.device(device)
        self.dtype = dtype
        self.fast = fast
        is_cuda = self.device.type == "cuda"
        on_gpu = fast and is_cuda and dtype != torch.float32 and self.has_cuda_graphs
        # A GPU decodes prompts on several images at once, unless it has graphs, which know one image. A processor
        # gains nothing by that.
        self.mix_images = is_cuda and not on_gpu
        self.prompts_at_once = PROMPTS_AT_ONCE["cuda" if is_cuda else "cpu"]
        self.image_size: int = model.prompt_encoder.input_image_size
        self.mask_side: int = 4 * model.prompt_encoder.image_embedding_size[0]
        # In bfloat16, whose steps near one are 1/128, a prompt could not tell places 8 pixels apart.
        encodings = [
            (part, part.positional_embedding.detach().to(self.device, torch.float32, copy=True))
            for part in (model.shared_image_embedding, model.prompt_encoder.shared_embedding)
        ]
        self._model = moved(model, self.device, dtype).eval().requires_grad_(False)
        for part, frequencies in encodings:
            part.positional_embedding.data = frequencies
        self._places: PlaceTables | None = None
        self._gpu_encoder: CudaEncoder | None = None
        self.ready = ReadyPhotos(self._made_ready)
        self._mean, self._std = (torch.tensor(v, dtype=torch.float32, device=self.device) for v in (mean, std))
        # A GPU has the masks of a photo ready before the processor would have begun, and fewer bytes to send.
        self.packs_masks = fast and is_cuda
        self._encode = self._fast_encoder(on_gpu) if fast else None
        self._gpu_decoder = CudaDecoder(self._model) if on_gpu else None

    @classmethod
    def find(cls, path: Path) -> Path:
        """See `models.segmenter.sam_folder.find`."""
        return sam_folder.find(path, cls.model_types)

    @classmethod
    def folders_below(cls, root: Path) -> set[Path]:
        """See `models.huggingface_folder.folders_below`."""
        return folders_below(root, cls.model_types)

    @classmethod
    def files(cls, path: Path) -> ModelFiles:
        """Configs and weights. Raises ModelFilesError."""
        folder = cls.find(path)
        return folder_files(folder, weights_at(path, folder))

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        fast: bool = True,
    ) -> Self:
        """Load a Hugging Face SAM folder of any size, Azure's MLflow folder around one, or a file of weights in it.

        Weights of another dtype are converted. Raises ModelFilesError if the files make no SAM, and its
        CheckpointError if the weights are unsafe or do not fit.
        """
        folder = cls.find(Path(path))
        model = cls.network(Path(path), folder)
        size = model.prompt_encoder.input_image_size
        mean, std = normalization(folder, size, stretched=cls.stretches, default=cls.mean_std)
        return cls(model, mean, std, device, dtype, fast=fast)

    @classmethod
    def network(cls, path: Path, folder: Path) -> Any:
        """See `models.segmenter.sam_folder.load_network`."""
        return sam_folder.load_network(path, folder, cls.config_class, cls.model_class)

    @property
    def model(self) -> Any:
        """Its network, of `model_class`. Training alone may change it, of a segmenter that never decodes."""
        return self._model

    def preprocess(self, image: np.ndarray) -> Sample:
        """(H, W, 3) uint8 RGB -> Sample, as Hugging Face's SamImageProcessor with Pillow makes it."""
        check_rgb(image)
        return resized(image, self.image_size, stretched=self.stretches)

    def pixels(self, samples: Sequence[Sample]) -> Tensor:
        """(B, 3, S, S) on the device in its dtype: normalised, then padded with zeros at the right and bottom."""
        uploaded = upload([sample.image for sample in samples], self.image_size, self.device)
        return normalize(*uploaded, self._mean, self._std, self.dtype)

    @torch.inference_mode()
    def embed(self, samples: Sequence[Sample], between: Callable[[], None] | None = None) -> list[Embedding]:
        """Run the image encoder on the device; one Embedding per sample, in order.

        between: called on the way as often as the encoder can, and may run other work in this thread.
        """
        if not samples:
            return []
        if self._encode is not None:
            features = self._encode(samples, between)  # (B, C, h, w)
        else:
            features = self.published_features(self.pixels(samples))
        return [
            Embedding(one, sample.size_hw, sample.resized_hw) for one, sample in zip(features, samples, strict=True)
        ]

    def published_features(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, h, w) by Hugging Face's own modules: what embeddings hold."""
        return self._model.vision_encoder(pixels).last_hidden_state

    def named_features(self, features: Tensor) -> dict[str, Tensor]:
        """See `Segmenter.named_features`."""
        return {"image_embeddings": features}

    def graphs(self) -> tuple[EncoderGraph, DecoderGraph]:
        """See `Segmenter.graphs`."""
        # The shortest decimals of the float32 numbers.
        mean, std = ([float(str(one)) for one in values.cpu().numpy()] for values in (self._mean, self._std))
        encoder = EncoderGraph(self._model, lambda x: self.named_features(self.published_features(x)), mean, std)
        return encoder, self.decoder_graph(self._model, stretched=self.stretches)

    def _fast_encoder(self, on_gpu: bool) -> Encode | None:
        try:
            if on_gpu:
                gpu_encoder = self._gpu_encoder = CudaEncoder(self._model.vision_encoder, self._mean, self._std)
                return lambda samples, between: gpu_encoder.encode_images([one.image for one in samples], between)
            return self._fast_features()
        except UnknownEncoder as error:
            log.warning("SAM's encoder runs as published, not on the fast path: %s", error)
            return None

    def _fast_features(self) -> Encode:
        """The encoder of this package. Raises UnknownEncoder."""
        encoder = ImageEncoder(self._model.vision_encoder, frees=True)
        return lambda samples, between: encoder(self.pixels(samples), between)

    @torch.inference_mode()
    def capture_encoder(self) -> None:
        """On a GPU, get ready for every size of batch; in the thread and on the stream that will call `embed`."""
        if self._gpu_encoder is not None:
            self._gpu_encoder.warm_up()

    @torch.inference_mode()
    def capture_decoder(self, embedding: Embedding) -> None:
        """On a GPU, get ready for usual prompts; in the thread and on the stream that will call `decode`."""
        if self._gpu_decoder is not None:
            self._gpu_decoder.warm_up(embedding.features)

    def decode(self, embedding: Embedding, prompts: Prompts, *, multimask: bool) -> RawMasks:
        """Run prompt encoder and mask decoder on the device, for any number of prompts.

        multimask: three masks per prompt instead of one.
        """
        (raw,) = self.decode_batch([DecodeRequest(embedding, prompts, multimask)])
        return raw

    @torch.inference_mode()
    def decode_batch(
        self, requests: Sequence[DecodeRequest], between: Callable[[], None] | None = None
    ) -> list[RawMasks]:
        """`decode` for any number of requests, which may differ in everything; one RawMasks each, in order.

        Each prompt's result is what it would be alone. At most `prompts_at_once` prompts are decoded at
        once; `between` is called between one such portion and the next.
        """
        raws = [self._no_masks_yet(request) for request in requests]
        factored, published = self._decoder(requests), self._hugging_faces_decoder(requests)
        for number, portion in enumerate(self._portions(requests)):
            if number and between is not None:
                between()
            is_factored = self._factored(requests[portion[0][0]].prompts)
            logits, scores = (factored if is_factored else published)(portion)
            are_numbers = logits.sum(dim=(1, 2, 3), dtype=torch.float32).isfinite()  # in one pass, without a copy
            scores = scores.float().masked_fill(~are_numbers[:, None], torch.nan)
            sizes = [len(piece) for _, piece in portion]
            for (r, piece), its_logits, its_scores in zip(
                portion, logits.split(sizes), scores.cpu().split(sizes), strict=True
            ):
                raw, rows = raws[r], slice(piece.start, piece.stop)
                raw.iou_scores[rows] = its_scores.numpy()
                if raw.packed is None:
                    raw.logits[rows] = its_logits
                else:
                    raw.packed[rows] = pack_masks(its_logits, *self.mask_frame(raw), raw.size_hw).cpu().numpy()
        self.ready.let_go()
        return raws

    def _no_masks_yet(self, request: DecodeRequest) -> RawMasks:
        """The place for a request's masks: as logits, or as bits where these are fewer bytes and made on the way."""
        image, most = request.embedding, self._model.mask_decoder.num_multimask_outputs
        shape = (len(request.prompts), most if request.multimask else 1)
        side = self.mask_side
        height, row_bytes = image.size_hw[0], -(-image.size_hw[1] // 8)
        packed = None
        if self.packs_masks and not request.keep_logits and height * row_bytes <= 4 * side * side:
            packed, side = np.empty((*shape, height, row_bytes), np.uint8), 0
        logits, scores = torch.empty(*shape, side, side), np.empty(shape, np.float32)
        return RawMasks(logits, scores, image.size_hw, image.resized_hw, packed)

    def _portions(self, requests: Sequence[DecodeRequest]) -> Iterator[Portion]:
        """All prompts of all requests, at most `prompts_at_once` in a portion, in which all want as many masks.

        One image after the other, or mixed (`mix_images`). Prompts of as many tokens come together, so that
        few are filled up. Where some of them have masks, they come apart from those without.
        """

        def kind(r: int) -> tuple[int, ...]:
            request = requests[r]
            if not self._factored(request.prompts):
                return (0, r)
            image = () if self.mix_images else (id(request.embedding.features),)
            tokens = () if self._gpu_decoder is None else (token_count(request.prompts),)
            return (1, *image, *tokens, request.multimask, request.prompts.mask_logits is not None)

        return portions(requests, kind, self.prompts_at_once)

    def _factored(self, prompts: Prompts) -> bool:
        return self.fast and token_count(prompts) <= FACTORED_TOKENS

    def _decoder(self, requests: Sequence[DecodeRequest]) -> Callable[[Portion], tuple[Tensor, Tensor]]:
        """Decodes a portion by our own decoder: logits (P, M, S / 4, S / 4) and scores (P, M) on the device."""
        points = [self.labelled_points(r) for r in requests]

        def decode(portion: Portion) -> tuple[Tensor, Tensor]:
            features = {id(requests[r].embedding.features): requests[r].embedding.features for r, _ in portion}
            numbers = {number: i for i, number in enumerate(features)}
            image_of = [numbers[id(requests[r].embedding.features)] for r, piece in portion for _ in piece]
            xy, labels, present = filled_up(portion, points)
            multimask = requests[portion[0][0]].multimask
            with_masks = requests[portion[0][0]].prompts.mask_logits is not None
            if (
                self._gpu_decoder is not None
                and not with_masks
                and labels.shape[1] in TOKENS
                and len(features) == 1
                and present.all()
            ):
                (only,) = (one.to(self.device, self.dtype) for one in features.values())
                return self._gpu_decoder(only, torch.from_numpy(xy), torch.from_numpy(labels), multimask=multimask)
            tokens = encode_prompts(self._model.prompt_encoder, self._send(xy), self._send(labels))
            mask = None if present.all() else self._send(present)
            wanted = slice(1, None) if multimask else slice(0, 1)
            if with_masks:
                image_of = list(range(len(image_of)))
                images = images_with_masks(self.images_class, self._model, self._place_tables(), requests, portion)
            else:
                images = self.ready.of(list(features.values()), len(image_of))
            return images.decode(tokens, self._send(np.array(image_of)), mask, wanted)

        return decode

    def _made_ready(self, features: list[Tensor]) -> Images:
        """What all prompts on these images share."""
        stacked = torch.stack([one.to(self.device, self.dtype) for one in features])
        return self.images_class(self._model, stacked, self._place_tables(), projected=False)

    def _place_tables(self) -> PlaceTables:
        if self._places is None:
            self._places = PlaceTables(self._model)
        return self._places

    def _hugging_faces_decoder(self, requests: Sequence[DecodeRequest]) -> Callable[[Portion], tuple[Tensor, Tensor]]:
        """Decodes a portion, which is of one request, by Hugging Face's own modules: the plain twin."""

        def decode(portion: Portion) -> tuple[Tensor, Tensor]:
            ((r, piece),) = portion
            return decode_as_published(self._model, self._published_masks, requests[r], piece, self.device, self.dtype)

        return decode

    def _published_masks(
        self, features: Tensor, place: Tensor, sparse: Tensor | None, dense: Tensor, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, P, M, 4h, 4w) and scores (B, P, M) by published modules, of P prompts on each of B images.

        features: (B, C, h, w). place, dense: (1 or B, C, h, w). sparse: (B, P, T, C) tokens; None: P is 1, without any.
        """
        return self._model.mask_decoder(features, place, sparse, dense, multimask)

    @classmethod
    def labelled_points(cls, request: DecodeRequest) -> tuple[np.ndarray, np.ndarray]:
        """See `models.segmenter.prompt_points.labelled_points`."""
        return labelled_points(request.embedding, request.prompts)

    def mask_frame(self, raw: RawMasks) -> tuple[int, tuple[int, int]]:
        """The side of the square that logits are interpolated to, and the part of it (h, w) that the image fills."""
        return self.image_size, raw.resized_hw

    def _send(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    @torch.inference_mode()
    def postprocess(self, raw: RawMasks, index: int) -> np.ndarray:
        """The masks (M, H, W) bool of prompt `index`, in the image's own size, on the CPU.

        One prompt at a time, because a hundred masks of a large photo would not fit into memory at once.
        The logits are interpolated to the padded square, cropped, then interpolated to the image, as
        Hugging Face's `post_process_masks` does.
        """
        if raw.packed is not None:
            return unpack_bits(raw.packed[index], raw.size_hw[1])
        if self.fast:
            return binary_masks(raw.logits[index].numpy(), *self.mask_frame(raw), raw.size_hw)
        return (full_size(raw.logits[index], *self.mask_frame(raw), raw.size_hw) > 0).numpy()

    def logits_of_mask(self, mask: np.ndarray) -> np.ndarray:
        """A mask (H, W) bool of an image as the logits of a prompt: see `models.segmenter.mask_prompts`."""
        resized_hw = input_size((mask.shape[0], mask.shape[1]), self.image_size, stretched=self.stretches)
        return logits_of_mask(mask, self.image_size, resized_hw, self.mask_side)

    def segment(self, image: np.ndarray, prompts: Prompts, *, multimask: bool = False) -> Masks:
        """All steps for one image and all of its prompts."""
        (embedding,) = self.embed([self.preprocess(image)])
        raw = self.decode(embedding, prompts, multimask=multimask)
        return Masks(np.stack([self.postprocess(raw, index) for index in range(len(raw))]), raw.iou_scores)
