"""Segmentation models of Hugging Face as judges of layout, their classes mapped onto ours: Mask2Former gives
the mIoU_MF of the paper.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from dpsims.checkpoint import weights_digest
from dpsims.evaluation.report import to_bytes
from dpsims.labels import LabelSpace

PREFIX = "hf:"
AT_ONCE = 4  # pictures in the model at once: it sees them enlarged, and a hundred maps of each
# those whose answer is a class and a mask of each query, and needs nothing but the picture
_OF_QUERIES = ("Mask2FormerForUniversalSegmentation", "MaskFormerForInstanceSegmentation")

# names in published models of classes that the benchmarks' own lists call otherwise (ADE20K's, remembered)
_OTHER_NAMES = {"television receiver": "television"}


class HuggingFaceSegmenter:
    """A segmentation model by its name on the Hub or from a folder, that answers in our classes.

    space: the classes that evaluation counts. Theirs go onto ours of the same name, in any case; `mapping` is
    a YAML or JSON file {their name: our name, or null} that goes before the names. The answer at a pixel is
    the likeliest one of the mapped classes: those mapped to nothing are left out, as if the model did not
    know them. A class of ours that none is mapped to is never answered, so its IoU is 0 wherever maps have
    it; `missing` names those, `left_out` theirs without one of ours, and `notices` says both.

    Pictures are enlarged and normalised by the model's own processor; size: the side of the square that it
    makes of them, where not its own. `key` says for a report what the answers depend on.

    Raises ValueError, in a line, where transformers is not installed, the model cannot be had, is of a kind
    that does not segment a picture by classes, or has weights missing; for a mapping that names unknown
    classes; and where no class of ours is mapped.
    """

    def __init__(
        self,
        name_or_dir: str,
        space: LabelSpace,
        mapping: str | Path | None = None,
        device: str | torch.device = "cpu",
        size: int | None = None,
    ) -> None:
        self.name, self.num_classes, self.device = name_or_dir, space.num_classes, torch.device(device)
        model, self.processor = _load(name_or_dir)
        config = model.config
        theirs = [str(config.id2label[i]) for i in range(len(config.id2label))]
        table = map_classes(theirs, space.names, mapping, f"{PREFIX}{name_or_dir}")
        mapped = {theirs_at: ours_at for theirs_at, ours_at in enumerate(table) if ours_at is not None}
        self.missing = [name for i, name in enumerate(space.names) if i not in set(mapped.values())]
        self.left_out = [name for i, name in enumerate(theirs) if i not in mapped]
        self.key: dict[str, Any] = {
            # a folder by its last name: moved, it is the same model
            "model": Path(name_or_dir).name if Path(name_or_dir).is_dir() else name_or_dir,
            "revision": getattr(config, "_commit_hash", None),
            "weights": weights_digest(model),
            "processor": hashlib.sha256(self.processor.to_json_string().encode()).hexdigest()[:16],
            "transformers": _transformers().__version__,
            "mapping": [f"{theirs[i]} -> {space.names[to]}" for i, to in mapped.items()],
            "missing": self.missing,
            "left_out": self.left_out,
            "size": size,
        }
        self._of_queries = _architecture(config) in _OF_QUERIES
        self._kept = torch.tensor(list(mapped), device=self.device)
        unmapped = [i for i in range(len(theirs)) if i not in mapped]
        self._left_out = torch.tensor(unmapped, dtype=torch.int64, device=self.device)
        self._table = torch.tensor(list(mapped.values()))  # of those kept
        self._resize = {} if size is None else {"size": {"height": size, "width": size}}
        self.model = model.to(self.device)

    @property
    def notices(self) -> list[str]:
        """What the mapping leaves open, a line each."""
        told = []
        if self.missing:
            told.append(
                f"{PREFIX}{self.name} tells nothing of {len(self.missing)} of {self.num_classes} classes, "
                f"whose IoU is 0 wherever maps have them: {', '.join(self.missing)}"
            )
        if self.left_out:
            told.append(
                f"{PREFIX}{self.name}: {len(self.left_out)} of its {len(self._kept) + len(self.left_out)} "
                f"classes are none of ours and left out of its answers: {', '.join(self.left_out)}"
            )
        return told

    @property
    def weights(self) -> str:
        """A digest of the model's weights, for reports."""
        return self.key["weights"]

    @torch.no_grad()
    def predict(
        self, image: Float[Tensor, "b 3 h w"], size: tuple[int, int] | None = None
    ) -> Int[Tensor, "b h2 w2"]:
        """The likeliest mapped class of each pixel of pictures in [-1, 1], 0..K-1, on the CPU.

        size: (height, width) of the answer, the picture's where not given; the model's processor makes it of
        the scores, not of the classes.
        """
        self.model.eval()
        wanted = tuple(image.shape[-2:]) if size is None else tuple(size)
        return torch.cat([self._predict(part, wanted) for part in image.split(AT_ONCE)])

    def _predict(self, image: Float[Tensor, "b 3 h w"], size: tuple[int, ...]) -> Int[Tensor, "b h2 w2"]:
        # as files, which is what the processor is made for, and what the pictures are saved as
        files = [Image.fromarray(array) for array in to_bytes(image).permute(0, 2, 3, 1).cpu().numpy()]
        inputs = self.processor(images=files, return_tensors="pt", **self._resize).to(self.device)
        with torch.autocast(self.device.type, enabled=False):
            outputs = self.model(**inputs)
        if self._of_queries:
            answer = self._answer_of_queries(outputs)
        else:
            answer = SimpleNamespace(logits=outputs.logits[:, self._kept])
        found = self.processor.post_process_semantic_segmentation(answer, target_sizes=[size] * len(image))
        return self._table[torch.stack(list(found)).long().cpu()]

    def _answer_of_queries(self, outputs: Any) -> SimpleNamespace:
        """Class and mask logits of the queries, without the classes that are left out."""
        logits = outputs.class_queries_logits
        # The last class is "nothing", which the processor drops after a softmax. Those left out join it: the
        # probabilities of the others stay as they were.
        nothing = torch.cat([logits[..., self._left_out], logits[..., -1:]], -1).logsumexp(-1, keepdim=True)
        return SimpleNamespace(
            class_queries_logits=torch.cat([logits[..., self._kept], nothing], -1),
            masks_queries_logits=outputs.masks_queries_logits,
        )


def map_classes(
    theirs: Sequence[str], ours: Sequence[str], mapping: str | Path | None = None, where: str = "model"
) -> list[int | None]:
    """For each class of theirs the index in ours, or None: as the file `mapping` says, else by name (in any
    case).

    Raises ValueError naming `where` or the file: for names that neither side has, and where nothing is
    mapped.
    """
    index = {_plain(name): i for i, name in enumerate(ours)}
    said: dict[str, str | None] = {}
    if mapping is not None:
        known = {_plain(name) for name in theirs}
        for name, to in _read_mapping(Path(mapping)).items():
            if _plain(name) not in known:
                raise ValueError(f"{mapping}: {name!r} is no class of {where}{_near(name, theirs)}")
            if to is not None and _plain(to) not in index:
                raise ValueError(
                    f"{mapping}: {name!r} is mapped to {to!r}, no class that is counted{_near(to, ours)}"
                )
            said[_plain(name)] = to
    table = []
    for name in theirs:
        to = said.get(_plain(name), name)
        other = _OTHER_NAMES.get(_plain(name), "")
        table.append(None if to is None else index.get(_plain(to), index.get(other)))
    if all(to is None for to in table):
        raise ValueError(
            f"{where}: none of its {len(theirs)} classes ({_some(theirs)}) is one of the {len(ours)} "
            f"counted ones ({_some(ours)}); map them in a file: --segmenter-classes FILE"
        )
    return table


def _read_mapping(path: Path) -> dict[str, str | None]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text (UTF-8)") from error
    import yaml

    try:
        values = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: is neither YAML nor JSON ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: give {{their name: our name, or null}}, a line for each class")
    for name, to in values.items():
        if not isinstance(name, str) or not isinstance(to, str | None):
            raise ValueError(f"{path}: {name!r}: {to!r} maps no name to a name or null; put names in quotes")
    return values


def _load(name: str) -> tuple[Any, Any]:
    """The model, in float32, and its processor."""
    transformers = _transformers()
    if name.startswith((".", "/", "~")) and not Path(name).is_dir():
        raise ValueError(f"{PREFIX}{name}: there is no such folder; give a folder or a name of the Hub")
    try:
        with _quiet(transformers):
            config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
            kind = _kind(transformers, _architecture(config), name)
            processor = transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
            model, info = kind.from_pretrained(name, config=config, output_loading_info=True)
    except _Refused:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise ValueError(
            f"{PREFIX}{name}: cannot be loaded ({_first_sentence(error)}); give the name of a segmentation "
            "model on the Hub, or the folder of one that was downloaded"
        ) from error
    parameters = dict(model.named_parameters())
    # auxiliary heads only help in training
    absent = [key for key in info["missing_keys"] if key in parameters and "auxiliary" not in key]
    if absent:
        raise ValueError(
            f"{PREFIX}{name}: {len(absent)} of its weights are missing ({_some(sorted(absent))}); "
            "give a model that was trained to segment"
        )
    if not hasattr(processor, "post_process_semantic_segmentation"):
        raise ValueError(
            f"{PREFIX}{name}: its {type(processor).__name__} does not make label maps; give another model"
        )
    return model.float().eval(), processor


class _Refused(ValueError):
    """Already says what is wrong."""


def _kind(transformers: Any, architecture: str | None, name: str) -> Any:
    """The class that loads such a model."""
    from transformers.models.auto import modeling_auto

    known = modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES

    if architecture in _OF_QUERIES:
        return transformers.AutoModelForUniversalSegmentation
    if architecture in known.values():
        return transformers.AutoModelForSemanticSegmentation
    raise _Refused(
        f"{PREFIX}{name}: is a {architecture or 'model of no named kind'}; give one for semantic "
        "segmentation (Mask2Former, MaskFormer, SegFormer, UperNet, BEiT, DPT, ...)"
    )


def _architecture(config: Any) -> str | None:
    return (config.architectures or [None])[0]


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without the log and the progress bar of reading a file: what is wrong is said in one line."""
    from huggingface_hub.utils import logging as hub  # would say each of its attempts to connect

    log = transformers.utils.logging
    verbosity, bar, of_hub = log.get_verbosity(), log.is_progress_bar_enabled(), hub.get_verbosity()
    log.set_verbosity(logging.CRITICAL)
    hub.set_verbosity(logging.CRITICAL)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        hub.set_verbosity(of_hub)
        if bar:
            log.enable_progress_bar()


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ValueError(
            "segmenters of Hugging Face need transformers: pip install 'dpsims[evaluation]'"
        ) from error
    return transformers


def _plain(name: str) -> str:
    return name.strip().casefold()


def _near(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(_plain(name), [_plain(n) for n in names], n=1)
    return f" (did you mean {near[0]!r}?)" if near else f" ({_some(names)})"


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"


def _first_sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition(". ")[0].removesuffix(".")[:200]
