"""A folder of pictures made by any program, measured in the place of a model."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dpsims.checkpoint import is_model_folder
from dpsims.data.batches import Resize, resize_picture
from dpsims.data.files import IMAGE_SUFFIXES, files_with, read_image
from dpsims.labels import LabelSpace


class PictureFolder:
    """Pictures of a data set's label maps, found by the maps' names; offers what is measured of a model.

    names: the pairs of the split, in its order. The picture of NAME is NAME.png (or .jpg, .webp), or else the
    one file whose name begins with `NAME_` (programs keep endings such as `_leftImg8bit`). Further samples of
    a map, for diversity, are NAME_1.png, NAME_2.png ... beside NAME_0.png. size: (height, width) that all
    pictures are brought to, by the filter `resize`; None takes the first one's. Raises ValueError where a map
    has no picture, or several that could be meant.
    """

    def __init__(
        self,
        folder: str | Path,
        names: Sequence[str],
        space: LabelSpace,
        size: tuple[int, int] | None = None,
        resize: Resize = "bilinear",
    ) -> None:
        self.folder, self.space = Path(folder), space
        self.resize: Resize = resize
        self.about: dict[str, Any] = {}
        files = files_with(self.folder, IMAGE_SUFFIXES)
        self.samples = _match(self.folder, files, names)
        counts = [len(samples) for samples in self.samples]
        self.notices: list[str] = []
        if max(counts) > min(counts):
            few = names[counts.index(min(counts))]
            self.notices.append(
                f"{self.folder}: {few} has {min(counts)} samples, others up to {max(counts)}; the first "
                f"{min(counts)} of each map are taken"
            )
        self.size = size or read_image(self.samples[0][0]).shape[:2]

    @property
    def samples_per_map(self) -> int:
        """How many pictures every map has."""
        return min(map(len, self.samples))

    @property
    def identity(self) -> str:
        """A digest of names, sizes and times of the files: other pictures, another one."""
        files = (file for samples in self.samples for file in samples)
        told = ((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
        return hashlib.sha256(repr(list(told)).encode()).hexdigest()[:16]

    def generate(
        self, label: Int[Tensor, "b h w"], indices: Sequence[int], sample: int
    ) -> Float[Tensor, "b 3 h w"]:
        """The pictures in [-1, 1] of the maps of these numbers (see `dpsims.evaluation.run.Generate`)."""
        return torch.stack([self._read(self.samples[index][sample]) for index in indices])

    def _read(self, file: Path) -> Float[Tensor, "3 h w"]:
        image = torch.from_numpy(read_image(file)).permute(2, 0, 1)
        if image.shape[1:] != self.size:
            image = resize_picture(image, self.size, self.resize)
        return image.float() / 127.5 - 1


def holds_pictures(path: str | Path) -> bool:
    """Whether `path` is a folder of pictures, and so no model (whose folder may have some beside it)."""
    folder = Path(path)
    return folder.is_dir() and not is_model_folder(folder) and bool(files_with(folder, IMAGE_SUFFIXES))


def _match(folder: Path, files: list[Path], names: Sequence[str]) -> list[list[Path]]:
    """The pictures of each name, sample by sample."""
    by_stem: dict[str, Path] = {}
    for file in files:
        if file.stem in by_stem:
            raise ValueError(f"{file}: same name as {by_stem[file.stem].name}; remove one of them")
        by_stem[file.stem] = file
    stems, wanted = sorted(by_stem), set(names)
    found = [_samples_of(name, wanted, by_stem, stems) for name in names]
    missing = [name for name, samples in zip(names, found, strict=True) if not samples]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ValueError(
            f"{folder}: {len(missing)} of the {len(names)} label maps have no picture here ({shown}); name "
            "pictures as the maps, or choose another --split"
        )
    return found


def _samples_of(name: str, names: set[str], by_stem: dict[str, Path], stems: list[str]) -> list[Path]:
    numbered = []
    while f"{name}_{len(numbered)}" in by_stem and f"{name}_{len(numbered)}" not in names:
        numbered.append(by_stem[f"{name}_{len(numbered)}"])
    if numbered and name in by_stem:
        raise ValueError(f"{by_stem[name]}: {numbered[0].name} could be meant, too; remove one of them")
    if numbered or name in by_stem:
        return numbered or [by_stem[name]]
    start = bisect_left(stems, f"{name}_")
    longer = [s for s in stems[start : start + 2] if s.startswith(f"{name}_") and s not in names]
    if len(longer) > 1:
        raise ValueError(f"{by_stem[longer[0]]}: {longer[1]} could be meant, too; name it {name}")
    return [by_stem[stem] for stem in longer]
