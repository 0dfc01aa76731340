"""The model of transformers, filled with the tensors of a checkpoint one block at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from transformer_lens.loading.checkpoint import Checkpoint
from transformer_lens.loading.checkpoint.live_model import skeleton
from transformer_lens.loading.conversion import Architecture, Choose, Derived, OneOf, Recipe, Take
from transformer_lens.loading.processing import cast
from transformer_lens.loading.weights import LazyTensor, Weights
from transformer_lens.verification.streamed import Streamed


class NotStreamedError(Exception):
    """The bare reason why the model must be loaded as a whole."""


def streamed_transformers(checkpoint: Checkpoint, architecture: Architecture, n_layers: int) -> Streamed:
    """Builds the transformers model of a checkpoint's config, in float32, with the checkpoint's tensors.

    Args:
        checkpoint: Its config, scrubbed of all that names code, says what is built.
        architecture: Its table: it knows which names mean the same, and what is tied.
        n_layers: Layers to build.

    Raises:
        NotStreamedError: Some parameter of that model is not in the checkpoint under a name that is known here.
    """
    if any(promise.packed for promise in checkpoint.weights.values()):
        raise NotStreamedError("its weights are packed")
    model = skeleton(checkpoint.config, n_layers)
    found: dict[str, LazyTensor] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        key = next((key for key in _keys(name, checkpoint, architecture) if key in checkpoint.weights), None)
        if key is None:
            raise NotStreamedError(f"the checkpoint has no tensor for transformers' {name}")
        if checkpoint.weights[key].shape != tuple(parameter.shape):
            raise NotStreamedError(f"transformers holds {name} in another shape than the file")
        found[name] = checkpoint.weights[key]
    return Streamed(model, list(blocks_of(model, n_layers)), cast(Weights(found), torch.float32, torch.device("cpu")))


def blocks_of(hf_model: nn.Module, n_layers: int) -> nn.ModuleList:
    """Returns the list of blocks of a transformers model: of its lists of modules that are long enough, the outermost.

    Experts are a list inside each block, and the blocks of a vision tower are further inside than the decoder's.

    Args:
        hf_model: The model.
        n_layers: Blocks that it has at least.
    """
    lists = [
        (name.count("."), module)
        for name, module in hf_model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) >= n_layers
    ]
    return min(lists, key=lambda found: found[0])[1]


def _takes(recipe: Recipe) -> Iterator[Take]:
    """Yields what a recipe may read of a file."""
    if isinstance(recipe, Take):
        yield recipe
    elif isinstance(recipe, Choose):
        yield from (*_takes(recipe.then), *_takes(recipe.otherwise))
    elif isinstance(recipe, (Derived, OneOf)):
        for one in recipe.of if isinstance(recipe, Derived) else recipe.alternatives:
            yield from _takes(one)


def _keys(name: str, checkpoint: Checkpoint, architecture: Architecture) -> Iterator[str]:
    """Yields the names that a parameter may have in the file, its own first, what it is tied to last."""
    own = [name]
    tied: list[str] = []
    for recipe in architecture.once.values():
        for take in _takes(recipe):
            names = (take.key,) if isinstance(take.key, str) else take.key
            if name in names:
                own += [other for other in names if other != name]
                tied += [take.tied_to] if take.tied_to and architecture.ties(checkpoint.config) else []
    for template in (*own, *tied):
        bare = template.removeprefix("{p}").removeprefix(architecture.prefix)
        yield from (prefix + bare for prefix in architecture.prefixes)
