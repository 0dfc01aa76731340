"""An operation on a model that exists is done whole, or leaves the model as it was, wherever it is interrupted."""

import random
import sys
from pathlib import Path

import pytest
import torch

import transformer_lens
from tests.unit.small_transformers import make_model, make_tokenizer, make_tokens
from transformer_lens.loading.errors import LayoutMismatchError

PACKAGE = Path(transformer_lens.__file__).parent
# Where an interrupt is tried: what works on the model, of ours and of torch. What restores torch's own state is not.
TRACED = (
    *(str(PACKAGE / part) for part in ("hooked_transformer", "loading/loaders", "loading/processing")),
    *(str(PACKAGE / part) for part in ("loading/state_dicts.py", "utilities/devices.py", "HookedRootModule.py")),
    *(str(PACKAGE / part) for part in ("components", "hook_points.py", "config")),
    torch.nn.modules.module.__file__,
)
TRIES = 6


class Interrupted(KeyboardInterrupt):
    pass


def run_and_count(operation, at=-1, error=Interrupted):
    """Runs an operation, raises at the given line of those that are traced, and returns how many there were."""
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        if event == "call":
            return trace if frame.f_code.co_filename.startswith(TRACED) else None
        if event == "line":
            lines += 1
            if lines - 1 == at:
                raise error
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        operation()
    finally:
        sys.settrace(before)
    return lines


def facts(model):
    tokenizer = model.tokenizer
    with torch.no_grad():
        numbers = model(make_tokens(d_vocab=model.cfg.d_vocab), return_type="logits").double()
    return {
        "cfg": {name: str(value) for name, value in vars(model.cfg).items()},
        "modules": [
            (name, id(module), type(module), vars(module).get("name")) for name, module in model.named_modules()
        ],
        "lists": [(name, id(module)) for name, module in (*model.mod_dict.items(), *model.hook_dict.items())],
        "parameters": [
            (name, id(one), one.data_ptr(), one.dtype, one.device, one.requires_grad, id(one.grad))
            for name, one in model.named_parameters()
        ],
        "gradients": [(one.grad.dtype, one.grad.data_ptr()) for one in model.parameters() if one.grad is not None],
        "buffers": [(name, id(one), one.data_ptr()) for name, one in model.named_buffers()],
        "values": [one.detach().clone() for one in model.parameters()] + [numbers],
        "tokenizer": None if tokenizer is None else (id(tokenizer), tokenizer.padding_side, tokenizer.pad_token),
    }


def assert_unchanged(model, before, after=None):
    after = facts(model) if after is None else after
    values, expected = after.pop("values"), before["values"]
    assert all(torch.equal(one, other) for one, other in zip(values, expected, strict=True))
    for name, value in after.items():
        assert value == before[name], name


def with_gradients(model):
    model(make_tokens(d_vocab=model.cfg.d_vocab), return_type="logits").square().mean().backward()
    return model


def other_state_dict(kind):
    return {name: tensor.clone() * 0.5 for name, tensor in make_model(kind).state_dict().items()}


def set_tokenizer(model):
    tokenizer = make_tokenizer(special=False, eos_token="<eos>", padding_side="left")
    return lambda: model.set_tokenizer(tokenizer, default_padding_side="right")


OPERATIONS = {
    "process": lambda model, kind: lambda: model.process_weights_(refactor_factored_attn_matrices=True),
    "load and process": lambda model, kind: (
        lambda: model.load_and_process_state_dict(other_state_dict(kind), load_mode="assign")
    ),
    "load": lambda model, kind: lambda: model.load_state_dict(other_state_dict(kind)),
    "to a dtype": lambda model, kind: lambda: model.to(torch.float64, print_details=False),
    "half": lambda model, kind: model.bfloat16,
    "tokenizer": lambda model, kind: set_tokenizer(model),
}


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "gpt2") for name in OPERATIONS), ("process", "llama_gqa"), ("half", "llama_gqa")]
)
def test_an_interrupt_at_any_line_changes_nothing_or_all(name, kind):
    model = with_gradients(make_model(kind, tokenizer=make_tokenizer()))
    before = facts(model)
    operation = OPERATIONS[name](model, kind)
    twin = make_model(kind, tokenizer=make_tokenizer())
    lines = run_and_count(OPERATIONS[name](twin, kind))
    done = 0
    chance = random.Random(f"{name} {kind}")
    # The last lines of an operation are where it changes what is there.
    places = {*chance.sample(range(lines), min(lines, TRIES)), *range(max(0, lines - 6), lines)}
    for at in sorted(places):
        with pytest.raises((Interrupted, MemoryError, RuntimeError)):
            run_and_count(operation, at, Interrupted if at % 2 else MemoryError)
        after = facts(model)
        if any(after[name] != before[name] for name in ("cfg", "parameters", "tokenizer")):
            # It came when all was done: then all must be.
            assert_same_function(model, twin)
            done += 1
            model = with_gradients(make_model(kind, tokenizer=make_tokenizer()))
            before, operation = facts(model), OPERATIONS[name](model, kind)
            continue
        assert_unchanged(model, before, after)
    assert done < len(places)
    run_and_count(operation)
    assert_same_function(model, twin)


def assert_same_function(model, twin):
    assert vars(model.cfg).keys() == vars(twin.cfg).keys()
    assert {str(v) for v in vars(model.cfg).values()} == {str(v) for v in vars(twin.cfg).values()}
    assert [type(one) for one in model.modules()] == [type(one) for one in twin.modules()]
    for (name, one), (other_name, other) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        assert name == other_name and one.dtype == other.dtype
        torch.testing.assert_close(one, other)
    assert all(model.mod_dict[name] is module for name, module in model.named_modules() if name)


@pytest.mark.parametrize("shape", ["transposed", "one", "row", "more"])
@pytest.mark.parametrize("kind", ["llama_gqa", "alibi"])
def test_a_state_dict_of_another_shape_is_refused_before_anything_is_computed(kind, shape):
    model = make_model(kind)
    before = facts(model)
    good = other_state_dict(kind)
    for name in dict(model.named_parameters()):
        old = good[name]
        wrong = {
            "transposed": torch.zeros(*old.shape[::-1]),
            "one": torch.zeros([1] * old.ndim),
            "row": torch.zeros(1, *old.shape[1:]),
            "more": torch.zeros(*old.shape[:-1], old.shape[-1] + 1),
        }[shape]
        if wrong.shape == old.shape:
            continue
        with pytest.raises(LayoutMismatchError, match=name.replace(".", r"\.")):
            model.load_and_process_state_dict({**good, name: wrong})
        with pytest.raises(RuntimeError):
            model.load_state_dict({**good, name: wrong})
    assert_unchanged(model, before)


def test_a_load_that_lacks_names_or_has_others_changes_nothing():
    model = make_model()
    before = facts(model)
    good = other_state_dict("gpt2")
    for wrong in ({**good, "strange": torch.zeros(2)}, {k: v for k, v in good.items() if k != "unembed.b_U"}):
        with pytest.raises(RuntimeError, match="strange|unembed.b_U"):
            model.load_state_dict(wrong)
    assert_unchanged(model, before)
    result = model.load_state_dict({"embed.W_E": good["embed.W_E"], "strange": torch.zeros(2)}, strict=False)
    assert result.unexpected_keys == ["strange"] and torch.equal(model.W_E, good["embed.W_E"])
    assert all(
        torch.equal(one, value)
        for (name, one), value in zip(model.named_parameters(), before["values"])
        if name != "embed.W_E"
    )


def test_a_loaded_state_dict_is_not_written_into_borrowed_memory():
    lender, model = make_model(), make_model()
    good = other_state_dict("gpt2")
    lent = {name: tensor.clone() for name, tensor in lender.state_dict().items()}
    flags = dict.fromkeys(("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"), False)
    model.load_and_process_state_dict(lent, **flags, load_mode="assign")
    assert model.W_E.data_ptr() == lent["embed.W_E"].data_ptr()
    model.load_state_dict(good)
    assert all(torch.equal(tensor, lent[name]) for name, tensor in lender.state_dict().items())
    assert all(torch.equal(parameter, good[name]) for name, parameter in model.named_parameters())


def test_a_tokenizer_that_fails_is_not_taken():
    class Failing(type(make_tokenizer())):
        def get_vocab(self):
            raise RuntimeError("no vocabulary")

    model = make_model(tokenizer=make_tokenizer())
    before = facts(model)
    wrong = make_tokenizer(special=False, padding_side="left")
    wrong.__class__ = Failing
    with pytest.raises(RuntimeError, match="no vocabulary"):
        model.set_tokenizer(wrong)
    assert_unchanged(model, before)
    assert wrong.padding_side == "left" and wrong.pad_token is None and wrong.bos_token is None
