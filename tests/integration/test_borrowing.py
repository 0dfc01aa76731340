"""What a load may share, and what it must leave as it was."""

import hashlib

import pytest
import torch

from tests.fallback import may_fall_back
from tests.tiny_models import FAMILIES, VARIANTS, first_of, make_model, save
from transformer_lens import HookedTransformer
from transformer_lens.loading import LoadModeFallbackWarning
from transformer_lens.loading.loaders import can_assign
from transformer_lens.loading.weights import bytes_of


def digest(folder) -> dict:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def storage_of(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@pytest.fixture(params=FAMILIES)
def variant(request):
    found = VARIANTS[first_of(request.param)]
    if (reason := found.why_no_reference()) is not None:
        pytest.skip(reason)
    return found


ALL_FLAGS = {
    "fold_ln": True,
    "center_writing_weights": True,
    "center_unembed": True,
    "fold_value_biases": True,
    "refactor_factored_attn_matrices": True,
}


def test_live_model_is_left_as_it_was(variant):
    hf_model = make_model(variant)
    for index, parameter in enumerate(hf_model.parameters()):
        parameter.requires_grad_(index % 2 == 0)
    before = {
        name: (tensor.detach().clone(), tensor.data_ptr(), tensor.requires_grad)
        for name, tensor in hf_model.state_dict(keep_vars=True).items()
    }
    with may_fall_back("assign"):
        model = HookedTransformer.from_pretrained(hf_model=hf_model, load_mode="assign", device="cpu", **ALL_FLAGS)
    tokens = torch.arange(8).reshape(1, 8)
    theirs = hf_model(tokens).logits
    ours = model(tokens)
    assert (ours.log_softmax(-1) - theirs.log_softmax(-1)).abs().max() < 1e-4
    ours.sum().backward()
    for name, tensor in hf_model.state_dict(keep_vars=True).items():
        value, address, requires_grad = before[name]
        assert torch.equal(tensor, value), name
        assert tensor.data_ptr() == address, name
        assert tensor.requires_grad == requires_grad, name
        assert tensor.grad is None, name


@pytest.mark.skipif(not can_assign(), reason="this torch cannot assign: the test below says what it does instead")
def test_assign_shares_and_copy_does_not(variant):
    hf_model = make_model(variant)
    theirs = {storage_of(tensor) for tensor in hf_model.state_dict().values()}
    shared = HookedTransformer.from_pretrained_no_processing(hf_model=hf_model, load_mode="assign", device="cpu")
    # No file has it, or it is made of several tensors: the report counts what was allocated.
    new = [parameter for parameter in shared.parameters() if storage_of(parameter) not in theirs]
    assert set(shared.load_report.zero_filled) <= {
        name for name, parameter in shared.named_parameters() if storage_of(parameter) not in theirs
    }
    assert sum(bytes_of(parameter) for parameter in new) == shared.load_report.bytes_allocated
    assert shared.load_report.bytes_borrowed > 0
    copied = HookedTransformer.from_pretrained_no_processing(hf_model=hf_model, load_mode="copy", device="cpu")
    storages = [storage_of(parameter) for parameter in copied.parameters()]
    assert not set(storages) & theirs
    assert len(set(storages)) == len(storages)


@pytest.mark.skipif(can_assign(), reason="this torch can assign")
def test_old_torch_copies_and_warns_once(variant):
    hf_model = make_model(variant)
    with pytest.warns(LoadModeFallbackWarning) as caught:
        model = HookedTransformer.from_pretrained_no_processing(hf_model=hf_model, load_mode="assign", device="cpu")
    assert len([one for one in caught if one.category is LoadModeFallbackWarning]) == 1
    assert model.load_report.load_mode == "copy"
    assert "2.1" in model.load_report.reason
    theirs = {storage_of(tensor) for tensor in hf_model.state_dict().values()}
    assert not {storage_of(parameter) for parameter in model.parameters()} & theirs


def test_files_are_left_as_they_were_and_a_tied_partner_too(variant, tmp_path):
    save(variant, tmp_path)
    before = digest(tmp_path)
    with may_fall_back("assign"):
        model = HookedTransformer.from_pretrained_no_processing(tmp_path, load_mode="assign", device="cpu")
    with may_fall_back("assign"):
        again = HookedTransformer.from_pretrained_no_processing(tmp_path, load_mode="assign", device="cpu")
    values = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(1.0)
            others = [other for other in values if other != name]
            values[name] = values[name] + 1.0
            changed = [other for other in others if not torch.equal(model.get_parameter(other), values[other])]
            # Only entries of one fused matrix may share a mapping, and they must not overlap.
            assert not changed, (name, changed)
    assert digest(tmp_path) == before
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter + 1.0, values[name]), name
