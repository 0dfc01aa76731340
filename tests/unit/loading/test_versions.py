"""What a release of transformers decides is read from the release that is installed."""

import pytest
import torch

from tests.tiny_models import VARIANTS, make_model
from transformer_lens.loading.versions import cache_argument

# One variant of each class: arguments belong to classes.
ONE_EACH = {variant.config_class: variant for variant in VARIANTS.values()}


@pytest.mark.parametrize("variant", ONE_EACH.values(), ids=ONE_EACH.keys())
@torch.no_grad()
def test_decoding_with_the_key_value_cache_of_this_release(variant):
    """Neither name of the cache may warn, as an argument or as a field, and a cached step sees what came before it."""
    if (reason := variant.why_no_reference()) is not None:
        pytest.skip(reason)
    model = make_model(variant)
    tokens = torch.tensor([[5, 7, 2, 9, 4]])
    name = cache_argument(model.forward)
    cache = model(tokens[:, :-1], use_cache=True)[name]
    step = model(tokens[:, -1:], use_cache=True, **{name: cache}).logits[:, -1]
    whole, alone = (model(seen, use_cache=False).logits[:, -1] for seen in (tokens, tokens[:, -1:]))
    assert (step - whole).abs().max() < 1e-4 < (step - alone).abs().max()


def test_the_name_is_read_from_the_signature():
    def old(input_ids, past_key_values=None): ...

    def new(input_ids, cache=None, **kwargs): ...

    def between(input_ids, past_key_values=None, cache=None): ...

    def without(input_ids, use_cache=None): ...

    assert [cache_argument(forward) for forward in (old, new, between)] == ["past_key_values", "cache", "cache"]
    with pytest.raises(ValueError, match="that takes input_ids, use_cache has no key-value cache"):
        cache_argument(without)
