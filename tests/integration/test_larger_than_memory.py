"""A checkpoint that no memory here holds: it loads, a range of its layers runs, and a copy of it is refused."""

import pytest
import torch

from benchmarks.larger_than_memory import default_bytes
from benchmarks.memory import ROOT, can_measure, measure
from benchmarks.sparse import has_holes, make_sparse_llama
from transformer_lens import HookedTransformer
from transformer_lens.loading import InsufficientMemoryError
from transformer_lens.loading.loaders import can_assign
from transformer_lens.loading.memory.available import available_memory


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sparse") / "llama"
    try:
        made = make_sparse_llama(folder, default_bytes())
    except OSError as error:
        pytest.skip(f"this file system holds no file of that size: {error}")
    file = folder / "model.safetensors"
    sparse = has_holes(file)
    if sparse:
        yield made
    file.unlink()
    if not sparse:
        pytest.skip("this file system has no sparse files")


@pytest.mark.skipif(not can_assign(), reason="asserts what assign does, which this torch cannot")
@pytest.mark.skipif(not can_measure(), reason="this system does not say how much memory is private")
def test_it_loads_and_a_range_of_layers_runs(checkpoint):
    target = f"{ROOT / 'benchmarks' / 'loads.py'}:larger_than_memory"
    found = measure(target, str(checkpoint.folder), checkpoint.live, after="run_range")
    assert checkpoint.nbytes > (available_memory() or 0)
    assert found.facts["mode"] == "assign"
    assert found.facts["mapped"] > 0.99 * checkpoint.nbytes
    assert found.peak < 100 << 20
    # The dead layer adds nothing; the live one what its neuron computes of the normed stream.
    before = torch.tensor(found.facts["before"])
    normed = before * (before.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt()
    neuron = normed @ torch.tensor(checkpoint.w_in)
    expected = torch.outer(torch.nn.functional.silu(neuron) * neuron, torch.tensor(checkpoint.w_out))
    added = torch.tensor(found.facts["added"])
    assert expected.abs().max() > 0.1
    # In bfloat16: the neuron has three digits, and so has the stream that it is added to.
    torch.testing.assert_close(added, expected, rtol=0.05, atol=0.03)


@pytest.mark.skipif(available_memory() is None, reason="this system does not say how much memory there is")
def test_a_copy_is_refused_by_the_plan(checkpoint):
    names = "fold_ln center_writing_weights center_unembed fold_value_biases".split()
    arguments = {"dtype": "auto", "device": "cpu", **dict.fromkeys(names, False)}
    plan = HookedTransformer.plan_load(checkpoint.folder, **arguments)
    assert not plan.modes["copy"].fits
    assert plan.modes["copy"].main.allocated > checkpoint.nbytes
    if can_assign():
        assert plan.fits and plan.modes["assign"].fits
        assert plan.modes["assign"].main.mapped > 0.99 * checkpoint.nbytes
    else:
        assert not plan.fits and set(plan.modes) == {"copy"}
    says = "(?s)nothing was read" + (".*  fits: load_mode='assign'" if can_assign() else "")
    with pytest.raises(InsufficientMemoryError, match=says):
        HookedTransformer.from_pretrained(checkpoint.folder, load_mode="copy", **arguments)
