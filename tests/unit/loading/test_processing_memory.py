"""Private memory of processing one large mapped tensor: the result, and blocks."""

import pytest
import torch

from benchmarks.memory import can_measure, measure

pytestmark = pytest.mark.skipif(not can_measure(), reason="this system does not say how much memory is private")

MIB = 1 << 20
ROWS, COLUMNS = 4096, 16384  # 256 MiB in float32
SLACK = 12 * MIB


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("mapped") / "large.safetensors"
    save_file({"W": torch.full((ROWS, COLUMNS), 0.5)}, path)
    yield path
    path.unlink()


# The functions that run in the child.


def mapped(path, axes):
    from safetensors import safe_open

    from transformer_lens.loading.weights import Held, LazyTensor, Origin

    def make():
        with safe_open(path, "pt") as file:
            return file.get_tensor("W")

    return LazyTensor((ROWS, COLUMNS), torch.float32, Held.MAPPED, Origin("W", path), make, layout=axes)


def vector(length):
    from transformer_lens.loading.weights import LazyTensor

    return LazyTensor.of(torch.ones(length), "w")


def chain(path, axes, dtype):
    """Scales along d_model, centres along both axes, converts."""
    from transformer_lens.loading.processing.linear_chain import Center, Scale, recast, then

    lengths = dict(zip(axes.split(), (ROWS, COLUMNS)))
    tensor = then(mapped(path, axes), Scale("d_model", vector(lengths["d_model"])), "")
    for axis in ("d_model", "d_vocab"):
        tensor = then(tensor, Center(axis), "")
    return recast(tensor, getattr(torch, dtype), torch.device("cpu")).make


def conversion(path, axes, dtype):
    from transformer_lens.loading.processing import cast
    from transformer_lens.loading.weights import Weights

    weights = Weights({"W": mapped(path, axes)})
    return cast(weights, getattr(torch, dtype), torch.device("cpu"))["W"].make


def bias(path, axes, dtype):
    from transformer_lens.loading.processing.sums import added

    lengths = dict(zip(axes.split(), (ROWS, COLUMNS)))
    matrix = mapped(path, axes)
    return added(vector(lengths["d_vocab"]), matrix, vector(lengths["d_model"]), "d_model", "").make


def nbytes(tensor):
    return tensor.numel() * tensor.element_size()


AXES = pytest.mark.parametrize("axes", ["d_model d_vocab", "d_vocab d_model"], ids=["by_rows", "by_columns"])


@AXES
@pytest.mark.parametrize("function", ["chain", "conversion", "bias"])
def test_the_peak_is_the_result_and_blocks(file, function, axes):
    dtype = "float32" if function == "chain" else "bfloat16"
    found = measure(f"{__file__}:{function}", str(file), axes, dtype, after="nbytes")
    assert found.peak <= found.facts + SLACK
    assert found.kept <= found.facts + SLACK and found.returned <= SLACK


def test_the_peak_of_a_chain_into_a_short_dtype(file):
    found = measure(f"{__file__}:chain", str(file), "d_model d_vocab", "bfloat16", after="nbytes")
    assert found.facts == 128 * MIB and found.peak <= found.facts + SLACK
