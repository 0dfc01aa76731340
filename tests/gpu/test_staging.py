"""Loads onto a GPU, through the ring of pinned buffers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.checkpoint import make_gpt2
from benchmarks.memory import can_measure, measure
from tests.unit.loading.laid_out import laid_out
from transformer_lens import HookedTransformer
from transformer_lens.loading.memory.staging import SLOT_BYTES, SLOTS, CudaChannel, Ring

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")

MIB = 1 << 20


@given(st.permutations(range(3)), st.sampled_from([torch.float32, torch.bfloat16]), st.sampled_from([64, 999, 100_000]))
def test_every_number_arrives(order, dtype, nbytes):
    source = laid_out(torch.randn(17, 33, 9).to(dtype), order)
    device = torch.device("cuda:0")
    arrived = Ring(CudaChannel(device), 2, nbytes).to_device(source, device)
    assert arrived.device == device and torch.equal(arrived.cpu(), source)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    sizes = {"n_layer": 2, "n_embd": 256, "n_head": 4, "vocab_size": 997, "n_positions": 64}
    return make_gpt2(tmp_path_factory.mktemp("gpt2") / "small", **sizes)


@pytest.mark.parametrize("processed", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_load_onto_the_gpu_is_the_load_onto_the_cpu(small, processed, dtype):
    load = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    here = load(small, device="cpu", dtype=dtype, progress=False)
    there = load(small, device="cuda", dtype=dtype, progress=False)
    for name, parameter in here.named_parameters():
        other = there.get_parameter(name)
        assert other.device.type == "cuda"
        if processed:
            # Sums are taken in another order.
            close = 1e-5 if dtype == "float32" else 1e-2
            torch.testing.assert_close(other.cpu(), parameter, rtol=close, atol=close)
        else:
            assert torch.equal(other.cpu(), parameter)


def load_onto_the_gpu(folder, processed):
    torch.zeros(1, device="cuda")
    method = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    return lambda: method(folder, device="cuda", progress=False)


@pytest.mark.skipif(not can_measure(), reason="this system does not say how much memory is private")
@pytest.mark.parametrize("processed", [False, True])
def test_main_memory_holds_one_ring(processed):
    found = measure(f"{__file__}:load_onto_the_gpu", str(make_gpt2()), processed)
    assert found.peak <= SLOTS * SLOT_BYTES + 64 * MIB
