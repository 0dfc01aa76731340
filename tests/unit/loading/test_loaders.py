"""Promises become parameters: what is shared, what is not, and that nothing is half done."""

import gc
import weakref

import pytest
import torch
from torch import nn

from tests.unit.loading.laid_out import laid_out, order_in_memory, promise, size_of, storages, unreadable
from transformer_lens.loading.errors import (
    LayoutMismatchError,
    LoadingError,
    MissingTensorError,
    UnexpectedTensorError,
)
from transformer_lens.loading.loaders import AssigningLoader, CopyingLoader, replace_parameters
from transformer_lens.loading.weights import Held, Weights

BOTH = pytest.mark.parametrize("loader", [AssigningLoader(), CopyingLoader()], ids=["assign", "copy"])
SHAPES = {"embed.W_E": (29, 14), "blocks.0.attn.W_Q": (6, 14, 8), "blocks.0.attn.b_O": (14,)}


def make_module(device="meta", extra=False):
    """A tree of modules whose leaves have the parameters of `SHAPES`."""
    model = nn.Module()
    for name, shape in SHAPES.items():
        *path, leaf = name.split(".")
        owner = model
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner._modules[part]
        owner.register_parameter(leaf, nn.Parameter(torch.empty(shape, device=device)))
    if extra:
        model.register_parameter("probe", nn.Parameter(torch.ones(3)))
        model.register_buffer("mask", torch.ones(2, dtype=torch.bool))
    return model


def make_tensors(dtype=torch.float32):
    drawn = {name: torch.randn(shape).to(dtype) for name, shape in SHAPES.items()}
    return {name: laid_out(t, list(range(t.ndim))[::-1]) for name, t in drawn.items()}


def weights_of(tensors, **fields):
    return Weights({name: promise(tensor, key=name, **fields) for name, tensor in tensors.items()})


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_placeholders_become_the_tensors(loader, dtype):
    module, tensors = make_module(extra=True), make_tensors(dtype)
    values = {name: tensor.clone() for name, tensor in tensors.items()}
    told = []
    loader.load(module, weights_of(tensors), told.append)
    assert told == [size_of(tensor) for tensor in tensors.values()]
    for name, tensor in tensors.items():
        parameter = module.get_parameter(name)
        assert type(parameter) is nn.Parameter and parameter.requires_grad and parameter.is_leaf
        assert torch.equal(parameter, values[name]) and parameter.dtype == dtype
        assert order_in_memory(parameter) == order_in_memory(tensor)
        assert (storages([parameter]) == storages([tensor])) == isinstance(loader, AssigningLoader)
    assert torch.equal(module.probe, torch.ones(3)) and module.mask.all()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    writes = isinstance(loader, AssigningLoader)
    assert all(torch.equal(tensors[name], values[name]) != writes for name in tensors)


@BOTH
def test_borrowed_parameters_keep_what_they_are(loader):
    module = make_module()
    theirs = {name: nn.Parameter(t, requires_grad=name != "embed.W_E") for name, t in make_tensors().items()}
    loader.load(module, weights_of(theirs))
    assert [p.requires_grad for p in theirs.values()] == [False, True, True]
    assert all(parameter.requires_grad for parameter in module.parameters())
    sum(parameter.sum() for parameter in module.parameters()).backward()
    assert all(p.grad is None for p in theirs.values())
    assert all(p.grad is not None for p in module.parameters())


@BOTH
def test_what_was_frozen_stays_frozen(loader):
    """A subclass may freeze parts of the model in its constructor."""
    module = make_module()
    module.get_parameter("embed.W_E").requires_grad_(False)
    loader.load(module, weights_of(make_tensors()))
    assert [p.requires_grad for _, p in module.named_parameters()] == [False, True, True]


@BOTH
def test_fresh_results_are_not_copied(loader):
    module, tensors = make_module(), make_tensors()
    loader.load(module, weights_of(tensors, held=Held.FRESH))
    assert storages(module.parameters()) == storages(tensors.values())


@BOTH
def test_a_slice_of_a_fresh_result_does_not_keep_the_whole(loader):
    """As one third of a fused matrix that was unpacked."""
    whole = torch.randn(6, 14, 3 * 8)
    module, tensors = make_module(), make_tensors()
    weights = weights_of(tensors).updated(
        {"blocks.0.attn.W_Q": promise(whole[..., 8:16].transpose(1, 2).transpose(1, 2), held=Held.FRESH)}
    )
    loader.load(module, weights)
    parameter = module.get_parameter("blocks.0.attn.W_Q")
    assert torch.equal(parameter, whole[..., 8:16])
    assert parameter.untyped_storage().nbytes() == size_of(parameter)


def test_copies_let_each_source_go_before_the_next():
    alive = weakref.WeakSet()
    most = []

    def making(shape):
        def make():
            most.append(len(alive))
            tensor = torch.randn(shape)
            alive.add(tensor)
            return tensor

        return make

    gc.disable()
    try:
        weights = Weights(
            {name: promise(torch.empty(shape), make=making(shape), held=Held.MAPPED) for name, shape in SHAPES.items()}
        )
        CopyingLoader().load(make_module(), weights)
    finally:
        gc.enable()
    assert most == [0, 0, 0] and not alive


@BOTH
def test_real_parameters_stay_the_objects_they_are(loader):
    module, tensors = make_module("cpu"), make_tensors()
    before = dict(module.named_parameters())
    old = {name: parameter.detach() for name, parameter in before.items()}
    values = {name: tensor.clone() for name, tensor in old.items()}
    loader.load(module, weights_of(tensors))
    for name, parameter in module.named_parameters():
        assert parameter is before[name] and torch.equal(parameter, tensors[name])
        assert torch.equal(old[name], values[name])


def unkeepable():
    def make():
        raise OSError("the disk is gone")

    shape = SHAPES["blocks.0.attn.b_O"]
    return weights_of(make_tensors()).updated({"blocks.0.attn.b_O": promise(torch.empty(shape), make=make)})


def under_inference_mode():
    with torch.inference_mode():
        return weights_of(make_tensors())


BROKEN = {
    "missing": (lambda: weights_of({"embed.W_E": torch.zeros(29, 14)}), MissingTensorError, r"blocks.0.attn.W_Q"),
    "unexpected": (
        lambda: weights_of({**make_tensors(), "blocks.0.attn.W_X": torch.zeros(2)}),
        UnexpectedTensorError,
        r"blocks.0.attn.W_X",
    ),
    "shape": (
        lambda: weights_of({**make_tensors(), "embed.W_E": torch.zeros(14, 29)}),
        LayoutMismatchError,
        r"embed.W_E: model \(29, 14\), weights \(14, 29\)",
    ),
    "meta": (
        lambda: weights_of({**make_tensors(), "embed.W_E": torch.empty(29, 14, device="meta")}),
        MissingTensorError,
        r"no memory, only shapes: embed.W_E",
    ),
    "promise": (unkeepable, OSError, "the disk is gone"),
}


@BOTH
@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("case", sorted(BROKEN))
def test_nothing_is_half_done(loader, device, case):
    if case == "missing" and device == "cpu":
        pytest.skip("a real parameter without a promise is what a subclass added")
    make, error, message = BROKEN[case]
    module = make_module(device)
    before = {name: (parameter, parameter.data_ptr()) for name, parameter in module.named_parameters()}
    with pytest.raises(error, match=message):
        loader.load(module, make())
    for name, parameter in module.named_parameters():
        assert parameter is before[name][0] and parameter.data_ptr() == before[name][1]


@BOTH
def test_names_and_shapes_are_checked_before_anything_is_read(loader):
    weights = Weights({name: unreadable(shape) for name, shape in SHAPES.items()})
    with pytest.raises(UnexpectedTensorError):
        loader.load(make_module(), weights.updated({"strange": unreadable((2,))}))
    with pytest.raises(LayoutMismatchError):
        loader.load(make_module(), weights.updated({"embed.W_E": unreadable((2,))}))
    with pytest.raises(MissingTensorError):
        loader.load(make_module(), weights.without(["embed.W_E"]))


def test_layers_are_named_together():
    model = nn.Module()
    model.blocks = nn.ModuleList([make_module() for _ in range(12)])
    with pytest.raises(MissingTensorError, match=r"blocks\.\{0…11\}\.embed\.W_E"):
        AssigningLoader().load(model, Weights())


def test_tensors_of_inference_mode_are_refused_by_assign_and_copied_by_copy():
    weights = under_inference_mode()
    module = make_module()
    with pytest.raises(LoadingError, match="load_mode='copy'"):
        AssigningLoader().load(module, weights)
    assert all(parameter.device.type == "meta" for parameter in module.parameters())
    CopyingLoader().load(module, weights)
    sum(parameter.sum() for parameter in module.parameters()).backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_replacing_keeps_the_parameters(dtype):
    module, tensors = make_module("cpu", extra=True), make_tensors(dtype)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    before = dict(module.named_parameters())
    replace_parameters(module, tensors)
    assert dict(module.named_parameters()) == before
    assert all(torch.equal(module.get_parameter(name), tensor) for name, tensor in tensors.items())
    sum(parameter.sum() for parameter in module.parameters()).backward()
    optimizer.step()
    assert module.get_parameter("embed.W_E").grad is not None


@pytest.mark.parametrize(
    ("name", "shape", "error"), [("strange", (3,), UnexpectedTensorError), ("embed.W_E", (3,), LayoutMismatchError)]
)
def test_replacing_checks_first(name, shape, error):
    module = make_module("cpu")
    before = {key: parameter.data_ptr() for key, parameter in module.named_parameters()}
    with pytest.raises(error, match=name):
        replace_parameters(module, {**make_tensors(), name: torch.zeros(shape)})
    assert {key: parameter.data_ptr() for key, parameter in module.named_parameters()} == before
