"""Every random number comes from here, as a function of a run's seed and of what it is drawn for."""

import hashlib
import random

import numpy as np
import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed in [0, 2**63) that depends on the run's seed and on a purpose such as ("view", epoch, index).

    Different purposes give independent streams, whatever the order in which they are asked for.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def python_generator(seed: int, *purpose: str | int) -> random.Random:
    """A generator of single numbers for one purpose of a run: each costs a fiftieth of one of PyTorch's."""
    return random.Random(derive_seed(seed, *purpose))


def torch_generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose of a run."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and PyTorch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
