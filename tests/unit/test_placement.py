"""Moving and casting: every way torch has, by the model itself or by a module around it; what the config says after."""

import copy

import pytest
import torch
from torch import nn

from tests.unit.small_transformers import BASE, make_model, make_tokens
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.hooked_transformer.input_error import InputError
from transformer_lens.utilities.devices import device_from, move_to_and_update_config, numbered, why_not_here
from transformer_lens.utilities.dtypes import COMPUTES, dtype_from

BF16, F16, F64 = torch.bfloat16, torch.float16, torch.float64
CASTS = {
    "half": (lambda m: m.half(), F16),
    "bfloat16": (lambda m: m.bfloat16(), BF16),
    "double": (lambda m: m.double(), F64),
    "half-float": (lambda m: m.half().float(), torch.float32),
    "type": (lambda m: m.type(BF16), BF16),
    "type-by-name": (lambda m: m.type("torch.HalfTensor"), F16),
    "to-dtype": (lambda m: m.to(BF16), BF16),
    "to-dtype-non-blocking": (lambda m: m.to(BF16, True), BF16),
    "to-dtype-unprinted": (lambda m: m.to(BF16, False), BF16),
    "to-device-dtype": (lambda m: m.to("cpu", BF16), BF16),
    "to-device-dtype-non-blocking": (lambda m: m.to(torch.device("cpu"), BF16, True), BF16),
    "to-none-dtype": (lambda m: m.to(None, BF16), BF16),
    "to-tensor": (lambda m: m.to(torch.zeros(1, dtype=F64)), F64),
    "to-named-dtype": (lambda m: m.to(dtype=BF16), BF16),
    "to-named-both": (lambda m: m.to(device="cpu", dtype=F16, non_blocking=True), F16),
    "to-named-tensor": (lambda m: m.to(tensor=torch.zeros(1, dtype=F16)), F16),
    "to-name-of-dtype": (lambda m: m.to(dtype="bf16"), BF16),
    "to-memory-format": (lambda m: m.to(dtype=BF16, memory_format=torch.preserve_format), BF16),
    "to-earlier-name": (lambda m: m.to(device_or_dtype=BF16), BF16),
    "parent-to": (lambda m: nn.Sequential(m).to(BF16)[0], BF16),
    "parent-half": (lambda m: nn.ModuleDict({"lm": nn.ModuleList([m])}).half()["lm"][0], F16),
    "parent-type": (lambda m: nn.Sequential(m).type(F64)[0], F64),
    "function": (lambda m: move_to_and_update_config(m, BF16, False), BF16),
    "on-the-spot": (lambda m: m._apply(lambda t: t.to(BF16) if t.is_floating_point() else t), BF16),
}


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("kind", ["gpt2", "sandwich"])
def test_whoever_casts_it_the_model_knows_and_runs(kind, cast):
    model, tokens = make_model(kind), make_tokens()
    before = model(tokens)
    do, dtype = CASTS[cast]
    assert do(model) is model
    assert model.cfg.dtype == dtype and {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert all(module.cfg is model.cfg for module in model.modules() if isinstance(module, type(model.blocks[0])))
    logits = model(tokens)
    assert logits.dtype == dtype
    torch.testing.assert_close(logits.float(), before, atol=1.0, rtol=0.2)
    model.generate(tokens, max_new_tokens=2, do_sample=False, verbose=False, stop_at_eos=False)


def test_a_model_of_the_same_config_is_not_told():
    cfg = HookedTransformerConfig(**BASE)
    one, other = HookedTransformer(cfg), HookedTransformer(cfg)
    one.to(BF16)
    assert other.cfg.dtype == cfg.dtype == torch.float32
    other(make_tokens())


def test_a_copy_is_cast_alone():
    model = make_model()
    copied = copy.deepcopy(model).half()
    assert model.cfg.dtype == torch.float32 and copied.cfg.dtype == F16


@pytest.mark.parametrize(
    "move",
    [
        lambda m: m.to_empty(device="meta"),
        lambda m: m.to("meta"),
        lambda m: m.to(torch.zeros(1, device="meta")),
        lambda m: nn.Sequential(m).to("meta")[0],
        lambda m: nn.Sequential(m).to_empty(device="meta")[0],
    ],
)
def test_whoever_moves_it_the_config_says_where(move):
    model = make_model()
    model.cfg.n_devices = 2
    assert torch.device(move(model).cfg.device).type == "meta"
    assert model.cfg.n_devices == 1


def test_what_moves_nothing_changes_nothing():
    model = make_model()
    model.cfg.device = "cpu"
    model.to(BF16).cpu().share_memory()
    assert model.cfg.device == "cpu"


WRONG = {
    "integers": lambda m: m.to(torch.int8),
    "eight-bits": lambda m: m.to(dtype="float8_e4m3fn"),
    "complex": lambda m: m.to(torch.complex64),
    "no-device": lambda m: m.to("gpu"),
    "not-here": lambda m: m.to("xpu:7"),
    "two-devices": lambda m: m.to("cpu", "cpu:0"),
    "two-dtypes": lambda m: m.to(BF16, dtype=F16),
    "tensor-and-dtype": lambda m: m.to(torch.zeros(1), dtype=F16),
    "a-model": lambda m: m.to(m),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_changes_nothing(wrong, capsys):
    model = make_model()
    before, cfg = {name: value.clone() for name, value in model.state_dict().items()}, repr(model.cfg)
    with pytest.raises((InputError, TypeError), match="dtype|device"):
        WRONG[wrong](model)
    assert repr(model.cfg) == cfg and capsys.readouterr().out == ""
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_says_what_it_does_unless_told_not_to(capsys):
    model = make_model()
    model.to("cpu", False)
    model.to("cpu", print_details=False)
    assert capsys.readouterr().out == ""
    model.to("cpu", BF16)
    assert capsys.readouterr().out == "Moving model to device:  cpu\nChanging model dtype to torch.bfloat16\n"


# -- names of dtypes and devices ---------------------------------------------------------------------------------------

NAMES = [name for name, value in vars(torch).items() if isinstance(value, torch.dtype)]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_that_torch_has_is_taken_or_refused_with_what_is_taken(name):
    dtype = vars(torch)[name]
    for given in (dtype, name, f"torch.{name}", name.upper()):
        if dtype in COMPUTES:
            assert dtype_from(given) is dtype
        else:
            with pytest.raises(ValueError, match="models compute in float16, bfloat16, float32 or float64"):
                dtype_from(given)


@pytest.mark.parametrize("given", [None, 32, float, "flaot32", "", "torch"])
def test_what_is_no_dtype_is_refused_with_what_is(given):
    with pytest.raises(ValueError, match="models compute in"):
        dtype_from(given)


def test_none_is_told_of_auto():
    with pytest.raises(ValueError, match="'auto'"):
        dtype_from(None)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("gpu", "'cuda'"),
        ("GPU:1", "'cuda:1'"),
        ("Cuda", "'cuda'"),
        ("CPU", "'cpu'"),
        ("metal", "'mps'"),
        ("rocm", "'cuda'"),
    ],
)
def test_a_device_that_is_meant_is_named(given, meant):
    with pytest.raises(ValueError, match=f"{meant} is"):
        device_from(given)


@pytest.mark.parametrize("given", ["", "cuda:x", "gpu:x", "cpu0", None, True, 1.0, "vulcan?", -1])
def test_what_is_no_device_is_refused_with_what_is(given):
    with pytest.raises(ValueError, match="'cpu', 'cuda', 'cuda:1' or 'mps'"):
        device_from(given)


@pytest.mark.parametrize("given", ["cpu", "cuda", "cuda:3", "mps", "xpu", torch.device("cpu"), 0])
def test_what_is_a_device_is_one_here_or_not(given):
    device = device_from(given)
    reason = why_not_here(device)
    assert reason is None or (str(device) in reason and "device='cpu'" in reason or "this machine has" in reason)
    assert numbered(device).type == device.type and (device.type == "cpu" or numbered(device).index is not None)


def test_a_model_is_not_built_for_a_device_that_is_not_here():
    with pytest.raises(InputError, match="(?s)'xpu:9' cannot be used here.*device='cpu'"):
        HookedTransformer(HookedTransformerConfig(**{**BASE, "device": "xpu:9"}))
