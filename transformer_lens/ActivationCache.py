"""What a run left behind, and what it says about the residual stream."""

from transformer_lens import utilities as utils
from transformer_lens.activation_cache.decomposition import DecompositionMixin
from transformer_lens.activation_cache.logit_attribution import LogitAttributionMixin
from transformer_lens.activation_cache.stacking import StackingMixin
from transformer_lens.activation_cache.typed_stacks import TypedStacks
from transformer_lens.utilities.devices import warn_if_mps
from transformer_lens.utilities.slice import Slice, SliceInput

__all__ = ["ActivationCache", "Slice", "SliceInput", "utils", "warn_if_mps"]


class ActivationCache(TypedStacks, DecompositionMixin, LogitAttributionMixin, StackingMixin):
    """Activations by name, as ``model.run_with_cache`` returns them.

    ``cache["blocks.0.attn.hook_k"]``, ``cache["k", 0]`` and ``cache["k0"]`` are the same tensor, and
    ``cache["resid_post", -1]`` is of the last layer.

    The residual stream is the sum of what embeddings, heads, neurons and biases wrote to it. The methods that take it
    apart stack these components along a new first axis, for the stream that a given layer reads: layer 0 to
    ``n_layers``, the last being the unembedding. Once the scale of a norm is held fixed it is linear, so that it may be
    applied to each component.
    """
