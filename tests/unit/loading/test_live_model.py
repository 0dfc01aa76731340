"""A live transformers model is borrowed as it is, or refused with the argument that helps."""

import pytest
import torch
from torch import nn

from tests.tiny_models import VARIANTS, make_model
from transformer_lens.loading.checkpoint import from_live_model
from transformer_lens.loading.errors import LoadingError, QuantizedTensorError
from transformer_lens.loading.weights import Held


@pytest.fixture
def model():
    return make_model(VARIANTS["llama-tied"])


def test_every_parameter_is_borrowed_under_its_name(model):
    checkpoint = from_live_model(model)
    assert checkpoint.config["architectures"] == ["LlamaForCausalLM"] and checkpoint.kind == "live model"
    assert set(checkpoint.weights) == set(model.state_dict())
    for key, tensor in model.state_dict().items():
        promise = checkpoint.weights[key]
        assert promise.held is Held.BORROWED and promise.make().data_ptr() == tensor.data_ptr()
        assert promise.cost == 0 and not promise.make().requires_grad


class Subclass(torch.Tensor):
    """As packed weights come: a tensor that says it is bfloat16 and is not."""


class Int8Params(nn.Parameter):
    """As bitsandbytes has them."""


def blocks(rows: int = 7) -> nn.Parameter:
    return nn.Parameter(torch.zeros(rows, 34, dtype=torch.uint8), requires_grad=False)


PACKED = {
    "gguf-blocks": (blocks, "uint8.*GgufConfig.dequantize=True"),
    "int8": (lambda: Int8Params(torch.zeros(7, 5, dtype=torch.int8), requires_grad=False), "Int8Params, int8"),
    "float8": (lambda: nn.Parameter(torch.zeros(7, 5).to(torch.float8_e4m3fn), requires_grad=False), "float8"),
    "complex": (lambda: nn.Parameter(torch.zeros(7, 5, dtype=torch.complex64)), "complex64"),
    "subclass": (lambda: nn.Parameter(torch.zeros(7, 5).as_subclass(Subclass)), "Subclass, float32"),
}


@pytest.mark.parametrize("case", PACKED)
def test_a_packed_weight_is_refused(model, case):
    make, words = PACKED[case]
    if case == "float8" and "float8_e4m3fn" not in torch.__dict__:
        pytest.skip("this torch has no float8")
    model.model.layers[0].mlp.down_proj.weight = make()
    with pytest.raises(QuantizedTensorError, match=f"(?s)model.layers.0.mlp.down_proj.weight .*packed .*{words}"):
        from_live_model(model)


def test_a_weight_packed_into_a_buffer_is_refused(model):
    layer = model.model.layers[1].mlp.up_proj
    del layer.weight
    layer.register_buffer("qweight", torch.zeros(9, 5, dtype=torch.int32))
    with pytest.raises(QuantizedTensorError, match="model.layers.1.mlp.up_proj.qweight"):
        from_live_model(model)


def test_a_weight_that_is_elsewhere_is_refused(model):
    model.model.norm.to("meta")
    with pytest.raises(LoadingError, match="(?s)model.norm.weight .*not in memory.*give the checkpoint's path"):
        from_live_model(model)


def test_what_is_no_transformers_model_is_refused():
    with pytest.raises(LoadingError, match="not torch.nn.modules.linear.Linear"):
        from_live_model(nn.Linear(3, 2))
