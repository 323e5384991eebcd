"""How much pictures of one label map differ: 0 for a generator that ignores its noise.

In pixels, in LPIPS and in the features of each network; over the whole picture and inside its regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dpsims.evaluation.features import PooledFeatures
from dpsims.evaluation.lpips import Lpips, at_once, over_picture, over_regions
from dpsims.evaluation.regions import Cells, Means, Pairs, Regions, pixel_distances, regions_of
from dpsims.labels import LabelSpace

PIXELS = "pixels"  # a measure, as LPIPS and the networks are, by their names


def pixel_distance(a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    """Mean absolute difference of pictures on the [-1, 1] scale; 2 is black against white."""
    return (a - b).abs().mean(dim=(1, 2, 3), dtype=torch.float64)


def feature_distance(a: Float[Tensor, "b d"], b: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """1 - cosine of feature vectors, as half a squared distance: exactly 0 for equal vectors."""
    return (_unit(a) - _unit(b)).square().sum(dim=1) / 2


def _unit(vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return F.normalize(vectors.double(), dim=1)


class PairwiseDiversity:
    """Mean distance over all pairs of M samples of a map, then over maps; inside regions, over all regions of
    a class.

    space: label space of the maps; what `evaluation` counts of it are the classes. None leaves the regions
    out. A distance inside a region is, in pixels and LPIPS, the mean of the distance by pixel over it; in
    features, that of the mean feature over it (of the coarsest level, each position as far as the region
    covers it), so that networks without a level have none. Regions under `SMALLEST_REGION` pixels are
    skipped, and in features those that cover less than one position. What surrounds a region reaches into its
    LPIPS and features, as far as the network sees; in pixels nothing does.
    """

    def __init__(
        self,
        networks: Sequence[PooledFeatures],
        space: LabelSpace | None = None,
        lpips: Lpips | None = None,
    ) -> None:
        self.networks, self.space, self.lpips = networks, space, lpips
        self.maps = 0
        self._means = _means(networks, space, lpips)

    def update(
        self, samples: Sequence[Float[Tensor, "b 3 h w"]], label: Int[Tensor, "b h w"] | None = None
    ) -> None:
        """M samples of the same b maps, each in [-1, 1], and those maps (needed for regions).

        Raises ValueError for fewer than two samples. Each network sees each sample once, and the samples of a
        map at the same place of batches of one size: equal samples have distance 0, not nearly.
        """
        if len(samples) < 2:
            raise ValueError(f"diversity needs at least 2 samples a map, got {len(samples)}")
        count = len(samples[0])
        regions = regions_of(label, count, self.space)
        for i, of_map in enumerate(regions):
            distances = pixel_distances(torch.stack([sample[i] for sample in samples]))
            self._means.add(PIXELS, distances.mean()[None])
            self._means.add(PIXELS, of_map.mean(distances), of_map.classes)
        for network in self.networks:
            self._update_features(network, samples, regions)
        if self.lpips is not None:
            size = at_once(samples[0])
            for i in range(0, count, size):
                self._update_lpips(self.lpips, [s[i : i + size] for s in samples], regions[i : i + size])
        self.maps += count

    def _update_features(
        self, network: PooledFeatures, samples: Sequence[Tensor], regions: Sequence[Regions]
    ) -> None:
        whole, inside = Pairs(), [Pairs() for _ in regions]
        cells: list[Cells] = []
        for sample in samples:
            if self.space is None or not network.spatial:
                whole.add(_unit(network(sample)))
                continue
            levels = network.level(sample)
            whole.add(_unit(levels.mean(dim=(2, 3))))
            height, width = levels.shape[-2:]
            cells = cells or [of_map.cells((height, width)) for of_map in regions]
            for pairs, of_map, level in zip(inside, cells, levels, strict=True):
                pairs.add(_unit(of_map.mean(level)))
        self._means.add(network.name, whole.mean() / 2)
        for of_map, pairs in zip(cells, inside, strict=False):  # no cells where the network has no level
            self._means.add(network.name, pairs.mean() / 2, of_map.classes)

    def _update_lpips(self, lpips: Lpips, samples: Sequence[Tensor], regions: Sequence[Regions]) -> None:
        levels: list[Pairs] = []
        for sample in samples:
            features = lpips.features(sample)
            levels = levels or [Pairs() for _ in features]
            for pairs, level in zip(levels, features, strict=True):
                pairs.add(level)
        distances = [pairs.mean() for pairs in levels]
        self._means.add(_title(lpips), over_picture(distances))
        for i, of_map in enumerate(regions):
            inside = over_regions([level[i] for level in distances], of_map.masks)
            self._means.add(_title(lpips), inside, of_map.classes)

    def report(self) -> dict[str, Any]:
        """{"diversity": pixels, "diversity_features": {network: value}}; with an Lpips {"lpips": {its name:
        value}}; with a label space {"diversity_regions": {"pixels", "lpips NAME" and each spatial network:
        {class: value}}}. None where no map was measured, and for a class without a region.
        """
        return _report(self._means, self.networks, self.space, self.lpips)

    def state_dict(self) -> dict[str, Tensor]:
        """All that was gathered: one with the same arguments that loads it goes on as if it had done it."""
        return {"maps": torch.tensor(self.maps), **self._means.state_dict()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.maps = int(state["maps"])
        self._means.load_state_dict(state)


class RealDiversity:
    """The figure that real pictures set beside a generator's diversity.

    No real map has been photographed twice in different light, so random pairs of different pictures are
    compared, in pixels only where both have the same class (unlabelled is none): what differs there is how
    the class looks, not where it lies. LPIPS and features of whole pictures cannot leave the layout out, and
    so are an upper bound. Inside regions, pixels and LPIPS are compared where both pictures have the class,
    and the mean feature over all that one has of it with that of the other. What surrounds a region differs
    too, so that LPIPS and features are an upper bound there as well, if a nearer one.

    A random sample of `capacity` pictures (reservoir sampling) is kept, whatever their number.
    """

    def __init__(
        self,
        networks: Sequence[PooledFeatures],
        ignore_index: int,
        seed: int = 0,
        capacity: int = 64,
        space: LabelSpace | None = None,
        lpips: Lpips | None = None,
    ) -> None:
        self.networks, self.space, self.lpips = networks, space, lpips
        self.ignore_index = ignore_index
        self.capacity = capacity
        self._generator = torch.Generator().manual_seed(seed)
        self._seen = 0
        self._kept: list[tuple[Tensor, Tensor]] = []

    def update(self, image: Float[Tensor, "b 3 h w"], label: Int[Tensor, "b h w"]) -> None:
        """Real pictures in [-1, 1] with their maps; those not drawn are forgotten."""
        for pair in zip(image.cpu(), label.cpu(), strict=True):
            self._seen += 1
            if len(self._kept) < self.capacity:
                self._kept.append((pair[0].clone(), pair[1].clone()))
                continue
            slot = int(torch.randint(self._seen, (), generator=self._generator))
            if slot < self.capacity:
                self._kept[slot] = (pair[0].clone(), pair[1].clone())

    def report(self) -> dict[str, Any]:
        """As PairwiseDiversity.report; None where there are no two pictures with a class in common."""
        means = _means(self.networks, self.space, self.lpips)
        generator = torch.Generator()  # of its own: asking changes nothing of what is drawn later
        generator.set_state(self._generator.get_state())
        order = torch.randperm(len(self._kept), generator=generator).tolist()
        pairs = [(i, j) for i, j in zip(order, order[1:] + order[:1], strict=True) if i != j]
        for i, j in pairs:
            self._compare(means, *self._kept[i], *self._kept[j])
        for network in self.networks:
            seen = [_look(network, image[None], label[None], self.space) for image, label in self._kept]
            for i, j in pairs:
                (whole_a, inside_a), (whole_b, inside_b) = seen[i], seen[j]
                means.add(network.name, feature_distance(whole_a, whole_b))
                for index in sorted(inside_a.keys() & inside_b.keys()):
                    distance = feature_distance(inside_a[index], inside_b[index])
                    means.add(network.name, distance, torch.tensor([index]))
        return _report(means, self.networks, self.space, self.lpips)

    def _compare(
        self, means: Means, image_a: Tensor, label_a: Tensor, image_b: Tensor, label_b: Tensor
    ) -> None:
        """Two pictures in pixels and LPIPS."""
        same = (label_a == label_b) & (label_a != self.ignore_index)
        distances = pixel_distances(torch.stack([image_a, image_b]))
        if same.any():
            means.add(PIXELS, distances[same].mean()[None])
        [regions] = regions_of(label_a.where(same, self.ignore_index)[None], 1, self.space)
        means.add(PIXELS, regions.mean(distances), regions.classes)
        if self.lpips is not None:
            levels = self.lpips.between(image_a[None], image_b[None])
            means.add(_title(self.lpips), over_picture(levels))
            inside = over_regions([level[0] for level in levels], regions.masks)
            means.add(_title(self.lpips), inside, regions.classes)

    def state_dict(self) -> dict[str, Tensor]:
        """The pictures that are kept, and where the drawing stands."""
        state = {"seen": torch.tensor(self._seen), "generator": self._generator.get_state()}
        for i, (image, label) in enumerate(self._kept):
            state |= {f"image.{i}": image, f"label.{i}": label}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._seen = int(state["seen"])
        self._generator.set_state(state["generator"])
        kept = min(self._seen, self.capacity)
        self._kept = [(state[f"image.{i}"].clone(), state[f"label.{i}"].clone()) for i in range(kept)]


def _look(
    network: PooledFeatures, image: Tensor, label: Tensor, space: LabelSpace | None
) -> tuple[Tensor, dict[int, Tensor]]:
    """What a network sees of one picture: of the whole (1, d), and of each class's region (1, d)."""
    if space is None or not network.spatial:
        return network(image), {}
    level = network.level(image)
    height, width = level.shape[-2:]
    cells = regions_of(label, 1, space)[0].cells((height, width))
    inside = zip(cells.classes.tolist(), cells.mean(level[0]), strict=True)
    return level.mean(dim=(2, 3)), {index: vector[None] for index, vector in inside}


def _title(lpips: Lpips) -> str:
    return f"lpips {lpips.name}"


def _means(networks: Sequence[PooledFeatures], space: LabelSpace | None, lpips: Lpips | None) -> Means:
    names = [PIXELS, *([_title(lpips)] if lpips else []), *(network.name for network in networks)]
    return Means(names, space.evaluation.names if space else ())


def _report(
    means: Means, networks: Sequence[PooledFeatures], space: LabelSpace | None, lpips: Lpips | None
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "diversity": means.whole(PIXELS),
        "diversity_features": {network.name: means.whole(network.name) for network in networks},
    }
    if lpips is not None:
        found["lpips"] = {lpips.name: means.whole(_title(lpips))}
    if space is not None:
        pooled = {network.name for network in networks if not network.spatial}
        found["diversity_regions"] = {m: means.inside(m) for m in means.measures if m not in pooled}
    return found
