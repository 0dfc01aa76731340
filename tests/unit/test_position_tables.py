"""Upstream's functions of positions: what attention adds to scores, and what it turns queries by."""

import pytest
import torch

from tests.unit.small_transformers import make_model
from transformer_lens.components import AbstractAttention


def test_alibi_is_slope_times_distance():
    slopes = AbstractAttention.create_alibi_multipliers(8)
    assert slopes.tolist() == [2.0**-k for k in range(1, 9)]
    assert AbstractAttention.create_alibi_slope(3).tolist() == [[0, 0, 0], [-1, 0, 0], [-2, -1, 0]]
    bias = AbstractAttention.create_alibi_bias(8, 3)
    assert bias.shape == (8, 3, 3) and bias[1, 2].tolist() == [-0.5, -0.25, 0.0]


@pytest.mark.parametrize("adjacent", [True, False])
def test_tables_turn_what_attention_turns(adjacent):
    model = make_model(positional_embedding_type="rotary", rotary_dim=4, rotary_adjacent_pairs=adjacent)
    attn = model.blocks[0].attn
    torch.manual_seed(0)
    x = torch.randn(2, 5, model.cfg.n_heads, model.cfg.d_head)
    sin, cos = attn.calculate_sin_cos_rotary(4, 5, base=model.cfg.rotary_base)
    turned = x[..., :4] * cos[:, None] + attn.rotate_every_two(x[..., :4]) * sin[:, None]
    expected = torch.cat([turned, x[..., 4:]], dim=-1)
    torch.testing.assert_close(attn.apply_rotary(x), expected)
