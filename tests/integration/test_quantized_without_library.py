"""Without bitsandbytes, and with one too old for a CPU: child processes whose import path really is so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from tests.integration.quantized_models import load_packed, packing_library, save_unpacked
from transformer_lens import HookedTransformer

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import json, sys
import torch
from transformer_lens import HookedTransformer
from transformer_lens.loading import QuantizedTensorError

plain, packed, out = sys.argv[1:]
tokens, told = torch.tensor([[1, 5, 9, 70, 3]]), {}

def refused(**options):
    try:
        HookedTransformer.from_pretrained(device="cpu", **options)
    except QuantizedTensorError as error:
        return str(error)

told["packed"] = refused(model_name=packed)
told["on load"] = refused(model_name=plain, load_in_4bit=True)
with torch.no_grad():
    numbers = HookedTransformer.from_pretrained(packed, device="cpu", dequantize=True)
    floats = HookedTransformer.from_pretrained(plain, device="cpu")
    torch.save({"W_Q": numbers.W_Q, "W_out": numbers.W_out, "logits": numbers(tokens), "float": floats(tokens)}, out)
told["imported"] = "bitsandbytes" in sys.modules
print(json.dumps(told))
"""


@pytest.fixture(scope="module", autouse=True)
def _library() -> None:
    packing_library()


def packages_without_bitsandbytes(folder: Path) -> Path:
    """Fills a folder with links to everything that is installed, but bitsandbytes."""
    folder.mkdir()
    for name in ("purelib", "platlib"):
        for entry in Path(sysconfig.get_path(name)).iterdir():
            if not entry.name.startswith("bitsandbytes") and not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)
    return folder


@pytest.mark.parametrize("installed", [None, "0.45.5"])
@pytest.mark.parametrize("way", ["nf4-nested", "int8"])
def test_numbers_are_read_and_products_refused(way: str, installed: str | None, tmp_path: Path) -> None:
    plain = save_unpacked("gpt2", tmp_path / "plain")
    load_packed(plain, way).save_pretrained(tmp_path / "packed")
    packages = packages_without_bitsandbytes(tmp_path / "packages")
    if installed is not None:
        # As old as this one is, importing it would not help either.
        (packages / "bitsandbytes").mkdir()
        (packages / "bitsandbytes" / "__init__.py").write_text("raise RuntimeError('no CPU here')\n")
        (packages / f"bitsandbytes-{installed}.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: bitsandbytes\nVersion: {installed}\n"
        (packages / f"bitsandbytes-{installed}.dist-info" / "METADATA").write_text(metadata)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(packages)])}
    command = [sys.executable, "-S", "-c", CHILD, str(plain), str(tmp_path / "packed"), str(tmp_path / "numbers.pt")]
    child = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert child.returncode == 0, child.stderr[-3000:]
    told = json.loads(child.stdout.splitlines()[-1])
    for which in ("packed", "on load"):
        if installed is None:
            assert "not installed: pip install 'transformer-lens[bitsandbytes]'" in told[which]
        else:
            assert f"{installed} cannot multiply on a CPU" in told[which]
        assert "dequantize=True" in told[which]
    assert not told["imported"]
    found = torch.load(tmp_path / "numbers.pt")
    # Here, bitsandbytes is what unpacks them.
    with torch.no_grad():
        theirs = load_packed(tmp_path / "packed", None)
        for module in theirs.modules():
            if type(module).__name__ in ("Linear4bit", "Linear8bitLt"):
                _unpack_by_bitsandbytes(module)
        expected = HookedTransformer.from_pretrained(hf_model=theirs, device="cpu")
    for name in ("W_Q", "W_out"):
        assert torch.allclose(found[name], getattr(expected, name), rtol=0, atol=1e-6), name
    assert found["float"].isfinite().all() and found["logits"].isfinite().all()


def _unpack_by_bitsandbytes(module: torch.nn.Module) -> None:
    """Puts what bitsandbytes makes of a packed weight into its module, as a plain parameter in the order of Conv1D."""
    from bitsandbytes import functional

    weight = module.weight
    if type(module).__name__ == "Linear4bit":
        numbers = functional.dequantize_4bit(weight.data, weight.quant_state)
    else:
        numbers = functional.int8_vectorwise_dequant(weight.data, weight.SCB)
    module._parameters["weight"] = torch.nn.Parameter(numbers.float().t().contiguous(), requires_grad=False)
