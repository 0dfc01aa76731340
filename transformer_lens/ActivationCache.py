"""What happened inside a model on one input."""

from __future__ import annotations

from transformer_lens.activation_cache.logit_attribution import LogitAttributionMixin
from transformer_lens.activation_cache.neurons import NeuronsMixin
from transformer_lens.utilities.slice import Slice, SliceInput

__all__ = ["ActivationCache", "Slice", "SliceInput"]


class ActivationCache(LogitAttributionMixin, NeuronsMixin):
    """Activations of one run, by name, and what can be read off them.

    ``run_with_cache`` makes one. It is a mapping (``cache["pattern", 3]``) with decompositions of the residual stream:
    into layers (`decompose_resid`), heads (`stack_head_results`), neurons (`stack_neuron_results`) or all of these
    (`get_full_resid_decomposition`), and their parts in logits (`logit_attrs`).
    """
