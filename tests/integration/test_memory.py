"""What a load may cost in private memory, on a checkpoint of 1.3 GiB, each in a process of its own."""

import pytest

from benchmarks.checkpoint import make_gpt2
from benchmarks.memory import can_measure, mapped_bytes, measure, private_memory
from transformer_lens.loading.loaders import can_assign

pytestmark = pytest.mark.skipif(not can_measure(), reason="this system does not say how much memory is private")

ASSIGNS = pytest.mark.skipif(not can_assign(), reason="asserts what assign does, which this torch cannot")
FLOAT32_EMBEDDING = 50257 * 1024 * 4


@pytest.fixture(scope="module")
def checkpoint():
    return make_gpt2()


@pytest.fixture(scope="module")
def size(checkpoint):
    return (checkpoint / "model.safetensors").stat().st_size


# The functions that run in the child.


def load(folder, processed, **arguments):
    from transformer_lens import HookedTransformer

    method = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    return lambda: method(folder, device="cpu", progress=False, **arguments)


def unprocessed(folder):
    return load(folder, False)


def unprocessed_copy(folder):
    return load(folder, False, load_mode="copy")


def unprocessed_assign(folder):
    """Asks for assign, and keeps what is warned of."""
    import warnings

    method = load(folder, False, load_mode="assign")

    def call():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            return method(), [type_of.category.__name__ for type_of in caught]

    return call


def unprocessed_bfloat16(folder):
    return load(folder, False, dtype="bfloat16")


def processed(folder):
    return load(folder, True)


def processed_copy(folder):
    return load(folder, True, load_mode="copy")


def processed_bfloat16(folder):
    return load(folder, True, dtype="bfloat16")


def borrowed(folder):
    from transformers import GPT2LMHeadModel

    from transformer_lens import HookedTransformer

    hf_model = GPT2LMHeadModel.from_pretrained(folder)
    return lambda: HookedTransformer.from_pretrained_no_processing(hf_model=hf_model, device="cpu", progress=False)


def load_and_drop(folder, with_processing, times):
    import gc

    method = load(folder, with_processing)

    def repeat():
        gc.disable()
        after = []
        for _ in range(times):
            model = method()
            del model
            after.append(private_memory())
        return after

    return repeat


def as_it_is(result):
    return result


def facts(model):
    """What the test wants to know of the model."""
    parameters = list(model.parameters())
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in parameters}
    return {
        "held": sum(storages.values()),
        "mapped": mapped_bytes(parameters),
        "largest": max(storages.values()),
        "report": model.load_report.to_dict(),
    }


def fallback(result):
    """The facts of a model, what was warned of, and which of its weights are not those of the file."""
    from safetensors.torch import load_file

    model, warned = result
    on_disk = load_file(f"{model.load_report.label}/model.safetensors")
    same = {
        "embed.W_E": on_disk["transformer.wte.weight"],
        "pos_embed.W_pos": on_disk["transformer.wpe.weight"],
        "blocks.7.mlp.W_in": on_disk["transformer.h.7.mlp.c_fc.weight"],
        "unembed.W_U": on_disk["transformer.wte.weight"].T,
    }
    wrong = [name for name, tensor in same.items() if not tensor.equal(model.get_parameter(name))]
    return {**facts(model), "warned": warned, "wrong": wrong}


def edit(model):
    """Writes to a parameter, and says what became of the file and of the tied partner."""
    import torch
    from safetensors import safe_open

    with torch.no_grad():
        partner = model.unembed.W_U.detach()[:, :7].clone()
        model.embed.W_E[:7] += 1.0
        edited = model.embed.W_E.detach()[:7].clone()
    with safe_open(f"{model.load_report.label}/model.safetensors", "pt") as file:
        on_disk = file.get_slice("transformer.wte.weight")[:7]
    return {
        "file_as_before": torch.equal(edited, on_disk + 1.0),
        "partner_as_before": torch.equal(partner, model.unembed.W_U.detach()[:, :7]),
    }


def cost_of(function, checkpoint, *args, after="facts"):
    return measure(f"{__file__}:{function}", str(checkpoint), *args, after=after)


@ASSIGNS
@pytest.mark.parametrize("function", ["unprocessed", "borrowed"])
def test_nothing_to_process_costs_nothing(checkpoint, size, function):
    found = cost_of(function, checkpoint)
    assert found.peak < 0.02 * size
    assert found.facts["held"] - found.facts["mapped"] < 0.005 * size  # a few zero biases are made up
    assert found.facts["report"]["load_mode"] == "assign"


@pytest.mark.skipif(can_assign(), reason="this torch can assign")
def test_an_old_torch_copies_tensor_by_tensor(checkpoint):
    found = cost_of("unprocessed_assign", checkpoint, after="fallback")
    assert found.facts["warned"] == ["LoadModeFallbackWarning"] and not found.facts["wrong"]
    report = found.facts["report"]
    assert (report["load_mode"], report["requested_mode"]) == ("copy", "assign")
    assert "no load_state_dict(assign=True)" in report["reason"]
    assert report["io"].startswith("map")
    assert found.peak <= found.facts["held"] + FLOAT32_EMBEDDING
    assert found.facts["mapped"] == 0


def test_an_edit_stays_in_the_process(checkpoint):
    assert cost_of("unprocessed", checkpoint, after="edit").facts == {"file_as_before": True, "partner_as_before": True}


@pytest.mark.parametrize(
    "function", ["unprocessed_copy", "unprocessed_bfloat16", "processed", "processed_copy", "processed_bfloat16"]
)
def test_the_peak_is_the_result_and_one_tensor(checkpoint, function):
    found = cost_of(function, checkpoint)
    result = found.facts["held"] - found.facts["mapped"]
    assert found.peak <= 1.05 * result + FLOAT32_EMBEDDING
    assert found.kept <= 1.05 * result
    if "copy" in function:
        assert found.facts["mapped"] == 0


@pytest.mark.parametrize("function", ["unprocessed", "processed"])
def test_memory_comes_back(checkpoint, size, function):
    assert cost_of(function, checkpoint).returned < 0.02 * size


@pytest.mark.parametrize("with_processing", [False, True], ids=["unprocessed", "processed"])
def test_loads_in_a_row_do_not_grow(checkpoint, size, with_processing):
    after = cost_of("load_and_drop", checkpoint, with_processing, 10, after="as_it_is").facts
    assert max(after) - after[0] < 0.01 * size
