"""Singular vectors are those of the weight, unembedded."""

import pytest
import torch

from tests.unit.small_transformers import make_model
from transformer_lens import SVDInterpreter
from transformer_lens.SVDInterpreter import VECTOR_TYPES


def weight(model, vector_type, layer, head):
    block = model.blocks[layer]
    if vector_type == "OV":
        return block.attn.W_V[head] @ block.attn.W_O[head]
    if vector_type == "w_out":
        return block.mlp.W_out
    norm = dict(block.ln2.named_parameters()).get("w", torch.ones(14))
    return (block.mlp.W_in * norm[:, None]).T


@pytest.mark.parametrize("kind", ["gpt2", "folded", "llama_gqa"])
@pytest.mark.parametrize("vector_type", VECTOR_TYPES)
def test_vectors_are_those_of_the_weight(kind, vector_type):
    model = make_model(kind)
    vectors = SVDInterpreter(model).get_singular_vectors(vector_type, 1, num_vectors=5, head_index=3)
    assert vectors.shape == (29, 1, 5) and not vectors.requires_grad
    _, _, Vh = torch.linalg.svd(weight(model, vector_type, 1, 3))
    expected = (Vh[:5] @ model.W_U).T
    signs = (vectors[:, 0] * expected).sum(0).sign()
    torch.testing.assert_close(vectors[:, 0] * signs, expected.detach(), atol=1e-3, rtol=1e-3)


def test_half_precision():
    vectors = SVDInterpreter(make_model(dtype=torch.bfloat16)).get_singular_vectors("w_out", 0, num_vectors=3)
    assert vectors.dtype == torch.float32


def test_what_is_not_there():
    interpreter = SVDInterpreter(make_model())
    assert set(interpreter.params) == {name for name, _ in interpreter.model.named_parameters()}
    with pytest.raises(AssertionError, match="head_index must be given"):
        interpreter.get_singular_vectors("OV", 1)
    with pytest.raises(AssertionError, match="heads 0 to 5"):
        interpreter.get_singular_vectors("OV", 1, head_index=6)
    with pytest.raises(AssertionError, match="layers 0 to 2"):
        interpreter.get_singular_vectors("w_in", 3)
    with pytest.raises(IndexError, match="has 14 singular vectors"):
        interpreter.get_singular_vectors("w_in", 1, num_vectors=15)
