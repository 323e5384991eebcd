"""The network that FID and KID are defined by: Inception-v3, its weights of 2015, through torch-fidelity."""

from __future__ import annotations

import hashlib
import io
import os
import re
from pathlib import Path

import torch
from filelock import FileLock
from jaxtyping import Float
from torch import Tensor, nn

from dpsims.data.download import download
from dpsims.evaluation.features import PooledFeatures
from dpsims.evaluation.report import to_bytes
from dpsims.evaluation.tensor_files import first_lines, read_bytes, torch_tensors

# torch-fidelity's, also pytorch-fid's under another name; several other projects list its size and SHA-256
URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
SIZE = 95_628_359
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
# the names it has where torch-fidelity, torchmetrics or pytorch-fid have fetched it
_NAMES = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")


class InceptionFeatures(PooledFeatures):
    """Picture -> Inception's 2048 pooled features, as torch-fidelity has them: from bytes, by its own resize.

    weights: a .pth file of tensors; None takes the published one, from the cache or fetched into it. `origin`
    names the program and the weights for a report. Only with the published weights is a Frechet distance of
    these features a FID, and the title says so.

    Raises ValueError where torch-fidelity is not installed, and for a file that is absent, damaged, or of
    another network.
    """

    spatial = False  # torch-fidelity gives pooled features

    def __init__(self, weights: str | Path | None = None, device: str | torch.device = "cpu") -> None:
        # before 95 MB are fetched for nothing
        version = _torch_fidelity_version()
        path = Path(weights) if weights is not None else standard_weights()
        state, digest = _read(path)
        super().__init__(_network(state, path).to(device), "inception")
        self.standard = digest == SHA256
        self.origin = {
            "network": f"inception-v3-compat (torch-fidelity {version})",
            "weights": path.name,
            "sha256": digest,
        }

    @property
    def title(self) -> str:
        if self.standard:
            return "FID (Inception, torch-fidelity)"
        return f"Frechet distance (Inception, weights {self.origin['weights']})"

    @torch.no_grad()
    def __call__(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 2048"]:
        """Pictures in [-1, 1], on any device, -> float32 vectors on the network's device.

        They are rounded to bytes first, as they are when they are saved: files and pictures in memory give
        the same figures. Raises ValueError for NaN or infinite values, which bytes would hide.
        """
        if not torch.isfinite(image).all():
            raise ValueError("images with NaN or infinite values; look at the model that they come from")
        device = self.device
        with torch.autocast(device.type, enabled=False):
            return self.backbone(to_bytes(image.to(device)))[0]


def standard_weights(url: str = URL, size: int = SIZE, sha256: str = SHA256) -> Path:
    """The published weights: from our cache or torch's, else fetched into ours ($XDG_CACHE_HOME/dpsims).

    Several processes wait for one another, and a download that broke off goes on. Raises ValueError, in a
    line that says where the file can be put by hand, where it cannot be fetched or is not the right one.
    """
    path = cache_folder() / url.rsplit("/", 1)[-1]
    mend = f"download {url} elsewhere and put it at {path}, or give it with --features inception=FILE"
    if not path.exists():
        for name in _NAMES:
            other = Path(torch.hub.get_dir()) / "checkpoints" / name
            if other.is_file() and other.stat().st_size == size and _sha256(other) == sha256:
                return other
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not path.exists():  # another process may have fetched it meanwhile
                    _fetch(url, size, sha256, path)
        except OSError as error:
            raise ValueError(f"{path}: cannot be written ({error.strerror or error}); {mend}") from error
        except ValueError as error:
            reason = str(error).removeprefix(f"{url}: ").partition("; ")[0]
            raise ValueError(f"FID's Inception weights cannot be fetched: {reason}; {mend}") from error
        return path
    if (found := _sha256(path)) != sha256:
        raise ValueError(f"{path}: has SHA-256 {found}, not {sha256}; delete it, it is fetched again")
    return path


def _fetch(url: str, size: int, sha256: str, path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    download(url, size, part, path)
    if (found := _sha256(part)) != sha256:
        part.unlink()
        raise ValueError(f"what {url} sends has SHA-256 {found}, not {sha256}")
    part.rename(path)


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a .pth file, read without running any code that may stand in it, and its SHA-256."""
    mend = "give FID's Inception weights as torch-fidelity or pytorch-fid publish them"
    content = read_bytes(path, mend)
    digest = hashlib.sha256(content).hexdigest()
    # by torch's custom, a published name ends in the first digits of the checksum
    named = re.search(r"-([0-9a-f]{8,64})\.pth$", path.name)
    if named and not digest.startswith(named[1]):
        raise ValueError(f"{path}: damaged, its SHA-256 {digest} does not begin with {named[1]}; {mend}")
    return torch_tensors(content, path, mend), digest


def _network(state: dict[str, Tensor], path: Path) -> nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # The constructor unpickles whatever it is given, a file of any origin too: it gets tensors that we have
    # read safely, in a pickle that we have written.
    safe = io.BytesIO()
    torch.save(state, safe)
    safe.seek(0)
    try:
        return FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=safe
        )
    except RuntimeError as error:  # of load_state_dict
        raise ValueError(
            f"{path}: weights of another network ({first_lines(error)}); "
            "give FID's Inception weights as torch-fidelity or pytorch-fid publish them"
        ) from error


def _torch_fidelity_version() -> str:
    try:
        import torch_fidelity
    except ImportError as error:
        raise ValueError(
            "the Inception features of FID need torch-fidelity: pip install 'dpsims[evaluation]'"
        ) from error
    return torch_fidelity.__version__


def cache_folder() -> Path:
    """Where fetched weights and trained segmenters are kept: $XDG_CACHE_HOME/dpsims, or ~/.cache/dpsims."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dpsims"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
