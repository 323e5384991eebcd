"""Artifacts of a generator that Frechet distances do not see: texture that is locked to its place, a lattice,
fine detail that the noise does not change.

Fine detail is an image's luminance minus its 9x9 mean, at the pixels whose whole window is inside the image
(beyond them the window is cut, and a smooth gradient would leave the same detail at the border of every
image). It is brought to mean 0 and variance 1 within each class of each image, so that neither brightness nor
contrast count. A correlation is pooled over all pairs of pixels of a class: sum a b / sum (a^2 + b^2) / 2.

The 9x9 mean itself correlates the detail of white noise, by -0.018 at shifts (0,4) and (4,0), -0.021 at
(4,4), +0.0014 at (0,8) and (8,0), and less further on: `lattice` takes that out, see `white`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dpsims.evaluation.regions import SMALLEST_REGION
from dpsims.labels import LabelSpace

WINDOW = 9
DISTANCES = (4, 8, 16)
SHIFTS = tuple(shift for d in DISTANCES for shift in ((0, d), (d, 0), (d, d)))
"""(rows, columns) at which `lattice` looks: both axes and the diagonal"""
SMALLEST_SHARE = 0.02
"""of the labeled pixels; smaller classes do not count in the means over classes"""
FEWEST_PAIRS = 1000
"""pairs of pixels, about; a correlation of fewer says little (its standard error is above 0.03)"""
KEPT = 64
"""details that are kept, at most, to be compared with one another"""
APART = 4  # images of a pair are this part of those kept away from one another, or further
NAMES = ("texture_lock", "lattice", "noise_detail")
_LUMINANCE = (0.299, 0.587, 0.114)  # Rec. 601
_FLAT = 1e-10  # variance of detail (values from -1 to 1): less than that of one pixel in 100,000 a byte off


class Detail(NamedTuple):
    """Fine detail of one image, mean 0 and variance 1 in each class, and the class of each pixel.

    Regions that are flat or under SMALLEST_REGION pixels are unlabeled, and detail is 0 there.
    """

    values: Float[Tensor, "h w"]
    label: Int[Tensor, "h w"]


def fine_detail(image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h2 w2"]:
    """Luminance minus its mean over 9x9 pixels; h2 = h - 8, w2 = w - 8 (0 for smaller images)."""
    margin = WINDOW // 2
    gray = torch.einsum("bchw,c->bhw", image.float(), image.new_tensor(_LUMINANCE, dtype=torch.float32))
    if min(gray.shape[1:]) < WINDOW:
        return gray[:, :0, :0]
    return gray[:, margin:-margin, margin:-margin] - F.avg_pool2d(gray[:, None], WINDOW, stride=1)[:, 0]


def normalized(detail: Float[Tensor, "h w"], label: Int[Tensor, "h w"], unlabeled: int) -> Detail:
    """Detail with mean 0 and variance 1 in each class."""
    classes = _present(label, unlabeled)
    flat = detail.flatten()
    sums = _one_hot(label, classes) @ torch.stack([torch.ones_like(flat), flat, flat.square()], dim=1)
    count = sums[:, 0].clamp(min=1)
    mean = sums[:, 1] / count
    variance = sums[:, 2] / count - mean.square()
    enough = (sums[:, 0] >= SMALLEST_REGION) & (variance > _FLAT)
    # by class, the unlabeled pixels last: gathered for every pixel
    offset, gain = detail.new_zeros(unlabeled + 1), detail.new_zeros(unlabeled + 1)
    offset[classes] = mean
    gain[classes] = variance.clamp(min=_FLAT).rsqrt().where(enough, 0)
    by_pixel = gain[label]
    return Detail((detail - offset[label]) * by_pixel, label.where(by_pixel > 0, unlabeled))


def products(a: Detail, b: Detail) -> Float[Tensor, "2 h w"]:
    """a b and (a^2 + b^2) / 2 where both have the same class, 0 elsewhere."""
    same = (a.label == b.label).to(a.values.dtype)
    return torch.stack([a.values * b.values, (a.values.square() + b.values.square()) / 2]).mul_(same)


def white(shift: tuple[int, int]) -> float:
    """The correlation that subtracting a 9x9 mean gives to white noise at (rows, columns).

    Detail is the noise through (1 - box), which has the autocorrelation 1 - 2 box + box * box.
    """
    down, right = shift
    area = WINDOW**2
    overlap = max(0, WINDOW - down) * max(0, WINDOW - right) / area**2
    covered = max(down, right) <= WINDOW // 2
    return (overlap - 2 / area * covered) / (1 - 1 / area)


def lattice_products(detail: Detail) -> Float[Tensor, "n 2 h w"]:
    """`products` of an image and itself moved by each of SHIFTS; 0 where that leaves the image."""
    height, width = detail.label.shape
    found = detail.values.new_zeros(len(SHIFTS), 2, height, width)
    for (down, right), into in zip(SHIFTS, found, strict=True):
        if down < height and right < width:
            here = Detail(*(part[: height - down, : width - right] for part in detail))
            there = Detail(*(part[down:, right:] for part in detail))
            into[:, : height - down, : width - right] = products(here, there)
    return found


def locked(details: Sequence[Detail], classes: int) -> Float[Tensor, " k"]:
    """The correlation of detail at the same place of different images, by class; float64, NaN where there are
    too few pairs of pixels.

    Over the pairs that are at least a quarter of the sequence apart: neighbors may be frames of one video
    (of CamVid's test photographs, those 20 seconds apart still correlate by 0.1). No pair is gone through:
    each image meets the running sums of all those before it.
    """
    apart = max(1, len(details) // APART)
    found = torch.full((classes,), torch.nan, dtype=torch.float64)
    having = [set(_present(detail.label, classes).tolist()) for detail in details]
    for index in set[int]().union(*having):
        sums = torch.zeros(3, *details[0].label.shape)  # values, squares and number of the images before
        product, norm, pairs = 0.0, 0.0, 0.0
        parts: list[Tensor | None] = []  # of the images whose sums still wait
        for detail, has in zip(details, having, strict=True):
            if len(parts) == apart:
                earlier = parts.pop(0)
                sums = sums if earlier is None else sums + earlier
            parts.append(_parts(detail, index) if index in has else None)
            if (own := parts[-1]) is not None:
                product += float((own[0] * sums[0]).sum(dtype=torch.float64))
                norm += float((own[1] * sums[2] + own[2] * sums[1]).sum(dtype=torch.float64)) / 2
                pairs += float((own[2] * sums[2]).sum(dtype=torch.float64))
        if pairs >= FEWEST_PAIRS:
            found[index] = product / norm
    return found


def _parts(detail: Detail, index: int) -> Float[Tensor, "3 h w"]:
    """Values, their squares and 1 where the image has the class, 0 elsewhere."""
    mask = (detail.label == index).float()
    values = detail.values.float() * mask
    return torch.stack([values, values.square(), mask])


class Artifacts:
    """The three artifacts, by class, of images that come one by one.

    `texture_lock`: correlation of detail at the same place of images of different maps, over the pixels that
    have the class in both; over the pairs (see `locked`) of 33 to KEPT images that are evenly spaced over the
    set, of all where it has no more: at most 1,176 pairs.
    `lattice`: autocorrelation of detail inside a class, the root of the mean square over both axes and the
    diagonal, the largest of DISTANCES. Squared, because a generator's grid is often a checkerboard, which is
    negative along the axes; over three directions, so that a structure in one (a pole) counts less.
    `noise_detail`: as `texture_lock`, of two images of one map with different noise; class borders, which
    both share, are part of it.

    Memory is bounded by KEPT images of one channel, in half precision.
    """

    def __init__(self, space: LabelSpace) -> None:
        self.names = space.evaluation.names
        self._table = torch.from_numpy(space.evaluation_table)
        count = len(self.names)
        self._pixels = torch.zeros(count, dtype=torch.int64)
        self._noise = torch.zeros(2, count, dtype=torch.float64)
        self._lattice = torch.zeros(len(SHIFTS), 2, count, dtype=torch.float64)
        self._kept: list[Detail] = []  # of the numbers 0, s, 2 s ... for a stride s that doubles
        self._stride, self._seen = 1, 0

    def update(self, image: Float[Tensor, "b 3 h w"], label: Int[Tensor, "b h w"]) -> None:
        """Images in [-1, 1] of the split's maps, one each in their order, and those maps."""
        for detail in self._details(image, label, count=True):
            self._lattice += self._by_class(lattice_products(detail), detail.label)
            self._keep(detail)

    def _keep(self, detail: Detail) -> None:
        if self._seen % self._stride == 0:
            self._kept.append(Detail(detail.values.half().cpu(), detail.label.short().cpu()))
        self._seen += 1
        if len(self._kept) > KEPT:
            self._kept, self._stride = self._kept[::2], 2 * self._stride

    def update_noise(
        self,
        first: Float[Tensor, "b 3 h w"],
        second: Float[Tensor, "b 3 h w"],
        label: Int[Tensor, "b h w"],
    ) -> None:
        """Images of the same maps with two noises."""
        pairs = (self._details(image, label) for image in (first, second))
        for a, b in zip(*pairs, strict=True):
            self._noise += self._by_class(products(a, b)[None], a.label)[0]

    def _details(self, image: Tensor, label: Tensor, count: bool = False) -> list[Detail]:
        table, unlabeled = self._table.to(image.device), len(self.names)
        label = table[label.to(image.device)]
        if count:
            self._pixels += torch.bincount(label.flatten().cpu(), minlength=unlabeled + 1)[:unlabeled]
        margin = WINDOW // 2
        details = fine_detail(image)
        inside = label[:, margin : margin + details.shape[1], margin : margin + details.shape[2]]
        return [normalized(*pair, unlabeled) for pair in zip(details, inside, strict=True)]

    def _by_class(self, values: Float[Tensor, "n 2 h w"], label: Int[Tensor, "h w"]) -> Tensor:
        """Sums over the pixels of each class, float64 (n, 2, classes)."""
        classes = _present(label, len(self.names))
        sums = values.flatten(2) @ _one_hot(label, classes).T
        found = torch.zeros(*sums.shape[:2], len(self.names), dtype=torch.float64)
        found[..., classes.cpu()] = sums.double().cpu()
        return found

    def report(self) -> dict[str, Any]:
        """Plain values, None for what was not measured.

        `artifacts`: a value each, the mean over the classes that cover SMALLEST_SHARE or more of the labeled
        pixels; `artifacts_by_class`: {artifact: {class: value}}, of all classes; `lattice_by_shift`:
        {"ROWS,COLUMNS": mean over the classes of `artifacts`, with its sign}.
        """
        by_white = torch.tensor([white(shift) for shift in SHIFTS], dtype=torch.float64)[:, None]
        lattice = (_correlation(self._lattice) - by_white) / (1 - by_white)
        by_distance = lattice.square().unflatten(0, (len(DISTANCES), -1)).nanmean(dim=1).sqrt()
        largest = by_distance.nan_to_num(-1).amax(dim=0)
        largest = largest.where(largest >= 0, torch.nan)
        lock = locked(self._kept, len(self.names))
        found = dict(zip(NAMES, (lock, largest, _correlation(self._noise)), strict=True))
        large = self._pixels >= SMALLEST_SHARE * max(1, int(self._pixels.sum()))
        return {
            "artifacts": {name: _mean(values[large]) for name, values in found.items()},
            "artifacts_by_class": {
                name: dict(zip(self.names, map(_value, values), strict=True))
                for name, values in found.items()
            },
            "lattice_by_shift": {
                f"{shift[0]},{shift[1]}": _mean(values[large])
                for shift, values in zip(SHIFTS, lattice, strict=True)
            },
        }

    def state_dict(self) -> dict[str, Tensor]:
        """The sums, and the details that were kept."""
        sums = {"pixels": self._pixels, "noise": self._noise, "lattice": self._lattice}
        state = {name: value.clone() for name, value in sums.items()}
        state |= {"seen": torch.tensor(self._seen), "stride": torch.tensor(self._stride)}
        if self._kept:
            state["values"] = torch.stack([detail.values for detail in self._kept])
            state["label"] = torch.stack([detail.label for detail in self._kept])
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._pixels, self._noise = state["pixels"].clone(), state["noise"].clone()
        self._lattice = state["lattice"].clone()
        self._seen, self._stride = int(state["seen"]), int(state["stride"])
        kept = zip(state["values"], state["label"], strict=True) if self._seen else ()
        self._kept = [Detail(values.clone(), label.clone()) for values, label in kept]


def beside_real(own: Mapping[str, Any], real: Mapping[str, Any]) -> dict[str, Any]:
    """`Artifacts.report` of generated images, with the values of real ones beside each: {artifact:
    {"generated": value, "real": value}}.
    """
    theirs = real.get("artifacts") or {}
    values = {
        name: {"generated": value, "real": theirs.get(name)} for name, value in own["artifacts"].items()
    }
    return {**own, "artifacts": values}


def _present(label: Int[Tensor, "h w"], unlabeled: int) -> Int[Tensor, " r"]:
    return torch.bincount(label.flatten(), minlength=unlabeled + 1)[:unlabeled].nonzero().flatten()


def _one_hot(label: Int[Tensor, "h w"], classes: Int[Tensor, " r"]) -> Float[Tensor, "r n"]:
    return (label.flatten() == classes[:, None]).float()


def _correlation(sums: Float[Tensor, "*n 2 k"]) -> Float[Tensor, "*n k"]:
    """NaN where there are too few pairs: the mean square is about 1, so that `norm` is about their number."""
    product, norm = sums.unbind(dim=-2)
    return (product / norm).where(norm >= FEWEST_PAIRS, torch.nan)


def _value(value: Tensor) -> float | None:
    return float(value) if value.isfinite() else None


def _mean(values: Float[Tensor, " k"]) -> float | None:
    return _value(values.nanmean()) if len(values) else None
