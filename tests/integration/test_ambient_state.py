"""A load's numbers depend on its arguments alone, and a load leaves torch as it was."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
import torch
from packaging.version import Version

from tests.tiny_models import VARIANTS, make_model
from tests.unit.small_transformers import make_model as make_small_model
from transformer_lens import HookedTransformer
from transformer_lens.loading import LoadingError
from transformer_lens.loading.memory.ambient import plain_torch
from transformer_lens.loading.memory.threads import one_thread_each

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
            if name not in ("bfloat16", "default meta", "all of them"):
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


def cases():
    """Each state with the default flags, all flags with all states, other families under what they can tell."""
    yield from (("gpt2", ambient, "default") for ambient in AMBIENT)
    yield from (("gpt2", "all of them", flags) for flags in FLAGS if flags != "default")
    yield from (
        (variant, ambient, "refactored")
        for variant in ("gpt-neox", "llama-gqa")
        for ambient in ("autocast", "all of them")
    )


@pytest.mark.parametrize(("variant", "ambient", "flags"), list(cases()))
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


def test_a_load_leaves_torch_as_it_was_when_it_fails(folders, tmp_path):
    with all_of_them():
        before = state_of_torch()
        with pytest.raises(LoadingError):
            HookedTransformer.from_pretrained(tmp_path / "nothing")
        assert state_of_torch() == before


@pytest.mark.parametrize("ambient", AMBIENT)
def test_what_is_done_to_a_model_that_exists_does_not_depend_on_it_either(ambient):
    flags = {"refactor_factored_attn_matrices": True}
    expected, loaded = make_small_model("gpt2"), make_small_model("gpt2", seed=1)
    state = {name: tensor.clone() for name, tensor in expected.state_dict().items()}
    model, steps = make_small_model("gpt2"), make_small_model("gpt2")
    folded = expected.fold_layer_norm(state)
    expected.process_weights_(**flags)
    with AMBIENT[ambient]():
        before = state_of_torch()
        model.process_weights_(**flags)
        loaded.load_and_process_state_dict(state, **flags)
        found = steps.fold_layer_norm(state)
        steps.load_state_dict(state)
        assert state_of_torch() == before
    assert_same(facts(model), facts(expected))
    assert_same(facts(loaded), facts(expected))
    assert all(torch.equal(found[name], folded[name]) for name in folded)
    assert all(torch.equal(one, state[name]) for name, one in steps.named_parameters())


@pytest.mark.parametrize("ambient", ["autocast", "all of them"])
def test_an_entry_of_the_cache_is_as_right_as_any(folders, tmp_path, monkeypatch, ambient):
    monkeypatch.setenv("TRANSFORMER_LENS_CACHE", str(tmp_path))
    arguments = {"device": "cpu", "progress": False, "refactor_factored_attn_matrices": True}
    expected = facts(HookedTransformer.from_pretrained(folders / "gpt2", **arguments))
    with AMBIENT[ambient]():
        HookedTransformer.from_pretrained(folders / "gpt2", cache_processed=True, **arguments)
        taken = HookedTransformer.from_pretrained(folders / "gpt2", cache_processed=True, **arguments)
    assert taken.load_report.processed_cache == "taken"
    assert_same(facts(taken), expected)


def test_precision_is_held_while_a_load_computes_and_given_back():
    with AMBIENT["medium"]():
        with plain_torch(), plain_torch():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"


@pytest.mark.skipif(Version(torch.__version__) < Version("2.9"), reason="each backend has its own since torch 2.9")
def test_precision_of_one_backend_alone_is_held_too():
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        with plain_torch():
            assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


def by_new_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def test_threads_that_begin_during_and_after_loads_have_the_number_that_was_set(folders):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_thread_each() as side_by_side:
            assert torch.get_num_threads() == 1 and side_by_side >= 1
            assert by_new_thread(torch.get_num_threads) == 3
        assert torch.get_num_threads() == 3

        def load():
            HookedTransformer.from_pretrained(folders / "gpt2", device="cpu", progress=False)
            return torch.get_num_threads()

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda number: load(), range(12))) == [3] * 12
        assert torch.get_num_threads() == 3 and by_new_thread(torch.get_num_threads) == 3
    finally:
        torch.set_num_threads(before)


def test_loads_in_threads_hold_what_belongs_to_the_process_together(folders):
    arguments = {"device": "cpu", "progress": False, "refactor_factored_attn_matrices": True}
    expected = facts(HookedTransformer.from_pretrained(folders / "gpt2", **arguments))
    with AMBIENT["medium"](), AMBIENT["float64"]():
        with ThreadPoolExecutor(4) as pool:
            loads = pool.map(lambda number: HookedTransformer.from_pretrained(folders / "gpt2", **arguments), range(8))
            for model in loads:
                assert_same(facts(model), expected)
        assert torch.get_float32_matmul_precision() == "medium" and torch.get_default_dtype() == torch.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_default_device_and_autocast_of_a_gpu_change_nothing(folders):
    arguments = {"device": "cpu", "progress": False}
    expected = facts(HookedTransformer.from_pretrained(folders / "gpt2", **arguments))
    with torch.device("cuda"), torch.autocast("cuda", torch.float16):
        assert_same(facts(HookedTransformer.from_pretrained(folders / "gpt2", **arguments)), expected)
