"""Gives memory back between two models in one process. Knows nothing about what the models are or do."""

from __future__ import annotations


def free_memory() -> None:
    """Gives back what models that are gone have held, on a GPU too: torch keeps its blocks there for itself, where
    another program (llama.cpp) in this process could not take them."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
