"""A load's numbers depend on its arguments alone, and a load leaves torch as it was."""

from contextlib import ExitStack, contextmanager

import pytest
import torch

from tests.tiny_models import VARIANTS, make_model
from transformer_lens import HookedTransformer

FLAGS = {
    "as it is": dict.fromkeys(
        ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases", "refactor_factored_attn_matrices"),
        False,
    ),
    "default": {},
    "refactored": {"refactor_factored_attn_matrices": True},
    "bfloat16": {"dtype": torch.bfloat16},
    "4 bits": {"load_in_4bit": True},
}


@contextmanager
def set_for_the_process(setter, value, before):
    setter(value)
    try:
        yield
    finally:
        setter(before)


def default_device(device):
    return set_for_the_process(torch.set_default_device, device, None)


AMBIENT = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "medium": lambda: set_for_the_process(torch.set_float32_matmul_precision, "medium", "highest"),
    "float64": lambda: set_for_the_process(torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16": lambda: set_for_the_process(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "meta": lambda: torch.device("meta"),
    "default meta": lambda: default_device("meta"),
    "inference": torch.inference_mode,
    "no grad": torch.no_grad,
    "deterministic": lambda: set_for_the_process(torch.use_deterministic_algorithms, True, False),
    "two threads": lambda: set_for_the_process(torch.set_num_threads, 2, torch.get_num_threads()),
    "denormals": lambda: set_for_the_process(torch.set_flush_denormal, True, False),
}


@contextmanager
def all_of_them():
    with ExitStack() as stack:
        for name, enter in AMBIENT.items():
            if name not in ("bfloat16", "default meta"):
                stack.enter_context(enter())
        yield


AMBIENT["all of them"] = all_of_them


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    for name in ("gpt2", "gpt-neox", "llama-gqa"):
        model = make_model(VARIANTS[name])
        with torch.no_grad():
            # Numbers that are flushed where denormals are.
            next(p for n, p in model.named_parameters() if p.ndim == 2)[0].fill_(1e-40)
        model.save_pretrained(root / name)
    return root


def facts(model):
    """Everything that a load has made, parameters and buffers."""
    found = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        name: (tensor.detach().clone(), tensor.dtype, tensor.device, tensor.requires_grad, tensor.is_inference())
        for name, tensor in found.items()
    }


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, (tensor, *rest) in found.items():
        assert rest == list(expected[name][1:]), name
        assert torch.equal(tensor, expected[name][0]), name


def state_of_torch():
    return (
        torch.get_float32_matmul_precision(),
        torch.get_default_dtype(),
        torch.empty(0).device,
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
        torch.is_autocast_cpu_enabled() if torch.__version__ < "2.4" else torch.is_autocast_enabled("cpu"),
    )


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("ambient", AMBIENT)
@pytest.mark.parametrize("variant", ["gpt2", "gpt-neox", "llama-gqa"])
def test_a_load_gives_what_it_gives_in_a_new_process(folders, variant, ambient, flags):
    if flags == "4 bits":
        pytest.importorskip("bitsandbytes")
    arguments = {"device": "cpu", "progress": False, **FLAGS[flags]}
    expected = facts(HookedTransformer.from_pretrained(folders / variant, **arguments))
    with AMBIENT[ambient]():
        before = state_of_torch()
        model = HookedTransformer.from_pretrained(folders / variant, **arguments)
        assert state_of_torch() == before
    assert_same(facts(model), expected)
