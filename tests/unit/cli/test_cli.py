"""The command ``transformer-lens``: what each command says, on tiny checkpoints, and how it ends."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import transformer_lens
from tests.tiny_models import VARIANTS, make_model, save
from transformer_lens import HookedTransformer
from transformer_lens.cli.app import app
from transformer_lens.cli.options import FLAGS, OPTIONS
from transformer_lens.loading import LoadReport
from transformer_lens.loading.loaders import can_assign
from transformer_lens.loading.memory import available

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return str(save(VARIANTS["gpt2"], tmp_path_factory.mktemp("gpt2")))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return str(save(VARIANTS["llama-gqa"], tmp_path_factory.mktemp("llama"), torch.bfloat16))


def said(*words: str, code: int = 0) -> str:
    """Runs a command and returns what it printed."""
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def in_a_process(*words: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "transformer_lens", *words], capture_output=True, text=True, env=environment
    )


# -- options -----------------------------------------------------------------------------------------------------------

NOT_OF_A_TERMINAL = {
    "model_name": "the argument NAME",
    "hf_model": "an object",
    "quantization_config": "an object",
    "tokenizer": "an object",
    "move_to_device": "--device cpu",
    "checkpoint_label": "another name of --checkpoint-value",
    "default_prepend_bos": "changes how text becomes tokens, not what is loaded",
    "default_padding_side": "the same",
    "progress": "a terminal has a bar, anything else has none",
    "from_pretrained_kwargs": "other names",
}


def test_the_options_are_the_arguments_of_from_pretrained():
    arguments = set(inspect.signature(HookedTransformer.from_pretrained).parameters)
    options = {option.name for option in OPTIONS} - {"processing"}
    assert options <= arguments
    assert arguments - options == set(NOT_OF_A_TERMINAL)
    assert set(FLAGS) <= options


@pytest.mark.parametrize("command", ["plan", "load", "inspect", "verify"])
def test_every_command_has_them(command):
    text = said(command, "--help")
    for option in OPTIONS:
        assert "--" + option.name.replace("_", "-") in text, option.name


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        ((), ["fold_ln", "fold_value_biases", "center_writing_weights", "center_unembed"]),
        (("--no-processing",), []),
        (("--no-processing", "--center-unembed"), ["center_unembed"]),
        (("--no-fold-ln", "--no-fold-value-biases"), ["center_writing_weights", "center_unembed"]),
        (("--processing", "--no-center-unembed"), ["fold_ln", "fold_value_biases", "center_writing_weights"]),
    ],
)
def test_steps_of_processing(gpt2, words, steps):
    found = json.loads(said("plan", gpt2, "--device", "cpu", "--json", *words))
    assert found["report"]["steps"] == steps


def test_arguments_arrive(llama):
    found = json.loads(
        said("plan", llama, "--device", "cpu", "--json", "--dtype", "auto", "--load-mode", "copy", "--io", "read",
             "--first-n-layers", "1", "--n-ctx", "32")
    )  # fmt: skip
    report = found["report"]
    assert (report["dtype"], report["load_mode"], report["io"]) == ("bfloat16", "copy", "read: asked for")
    assert not any("layers.1." in key for key in report["read"])


# -- plan and load -----------------------------------------------------------------------------------------------------


def test_plan_says_whether_it_fits(llama, monkeypatch):
    text = said("plan", llama, "--device", "cpu")
    assert "LlamaForCausalLM" in text and "main memory: mapped" in text and ": fits" in text
    monkeypatch.setattr(available, "available_memory", lambda: 1000)
    text = said("plan", llama, "--device", "cpu", code=1)
    assert "DOES NOT FIT" in text
    # What is mapped takes a few zero biases, which 1000 bytes may hold or not; the processed model they do not.
    assert "--no-processing" in text and "does not fit: --dtype auto" in text
    assert "from_pretrained" not in text


def test_load_prints_its_report(llama):
    report = LoadReport.from_json(
        said("load", llama, "--device", "cpu", "--dtype", "auto", "--no-processing", "--json")
    )
    assert report.load_mode == ("assign" if can_assign() else "copy")
    assert (report.bytes_mapped > 0) == can_assign() and report.seconds["load"] > 0
    text = said("load", llama, "--device", "cpu")
    assert "done: fold_ln" in text and "allocated" in text


def test_plan_is_told_what_a_machine_has(llama):
    assert "1.0 KiB can be had" in said("plan", llama, "--device", "cpu", "--memory", "1KiB", code=1)
    found = json.loads(
        said("plan", llama, "--device", "cuda:3", "--memory", "16GiB", "--memory", "cuda=24GiB", "--json")
    )
    devices = found["modes"]["copy"]["devices"]
    assert devices["cpu"]["available"] == 16 << 30 and devices["cuda:3"]["available"] == 24 << 30
    for words in (("lots",), ("gpu=16GiB",), ("1GiB", "--memory", "2GiB")):
        assert "Traceback" not in said("plan", llama, "--memory", *words, code=2)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", "xpu"])
def test_plan_needs_no_device_that_it_plans_for(llama, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert f"{torch.device(device).type}:" in said("plan", llama, "--device", device)
    assert "cuda:1" in said("plan", llama, "--device", "cuda", "--n-devices", "2")


def test_warnings_are_a_line_in_flags(llama):
    done = in_a_process("plan", llama, "--device", "cpu", "--n-ctx", "5000")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("warning: --n-ctx 5000 is more than") and len(done.stderr.splitlines()) == 1


# -- inspect -----------------------------------------------------------------------------------------------------------


def test_inspect_says_what_becomes_of_every_tensor(gpt2):
    text = said("inspect", gpt2)
    (fused,) = (line for line in text.splitlines() if "c_attn.weight" in line)
    assert fused.startswith("transformer.h.{0…1}.attn.c_attn.weight ")
    for words in ("(48, 144)", "float32", "54.0 KiB", "blocks.{0…1}.attn.W_K [kv_head d_model d_head]"):
        assert words in fused
    assert "zero-filled, the file has nothing for: unembed.b_U" in text
    assert "architectures/gpt2.py" in text
    found = json.loads(said("inspect", gpt2, "--json"))
    entries = {entry["key"]: entry for entry in found["entries"]}
    assert entries["transformer.wte.weight"]["taken_by"] == [
        "embed.W_E [d_vocab d_model]",
        "unembed.W_U [d_model d_vocab_out]",
    ]
    assert all(entry["taken_by"] for entry in entries.values())
    assert found["nbytes"] == sum(entry["nbytes"] for entry in entries.values())


def test_inspect_says_what_is_dropped_and_why(gpt2):
    entries = {
        entry["key"]: entry for entry in json.loads(said("inspect", gpt2, "--first-n-layers", "1", "--json"))["entries"]
    }
    assert all(".h.1." not in key for key in entries)
    folder = Path(gpt2).with_name("gpt2-with-mask")
    model = make_model(VARIANTS["gpt2"])
    state = {**model.state_dict(), "transformer.h.0.attn.bias": torch.ones(1, 1, 64, 64)}
    state.pop("lm_head.weight")
    folder.mkdir()
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "config.json").write_text((Path(gpt2) / "config.json").read_text())
    text = said("inspect", str(folder))
    (mask,) = (line for line in text.splitlines() if line.startswith("transformer.h.0.attn.bias"))
    assert "dropped: a causal mask, computed here" in mask


def test_inspect_lists_what_no_table_takes(llama, tmp_path):
    config = json.loads((Path(llama) / "config.json").read_text())
    config |= {"architectures": ["StrangeForCausalLM"], "model_type": "strange"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((Path(llama) / "model.safetensors").read_bytes())
    text = said("inspect", str(tmp_path))
    assert "no table of ours takes it" in text and "StrangeForCausalLM" in text
    (row,) = (line for line in text.splitlines() if "q_proj" in line)
    assert row.split()[0] == "model.layers.{0…1}.self_attn.q_proj.weight" and "bfloat16" in row and "->" not in row


def test_inspect_lists_an_adapter(tmp_path):
    from safetensors.torch import save_file

    name = "base_model.model.transformer.h.{}.attn.c_attn.lora_{}.weight"
    tensors = {name.format(layer, part): torch.zeros(4, 48) for layer in range(3) for part in "AB"}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "some/base"})
    )
    text = said("inspect", str(tmp_path))
    assert "(adapter): 6 tensors" in text and "it changes some/base" in text
    assert "transformer.h.{0…2}.attn.c_attn.lora_A.weight" in text


def test_inspect_lists_a_gguf_file_of_any_architecture(tmp_path):
    gguf = pytest.importorskip("gguf")
    import numpy

    for kind in ("llama", "mamba"):
        writer = gguf.GGUFWriter(tmp_path / f"{kind}.gguf", kind)
        for layer in range(2):
            writer.add_tensor(f"blk.{layer}.ssm_in.weight", numpy.zeros((6, 32), dtype=numpy.float32))
        writer.add_tensor(
            "packed.weight", numpy.zeros((2, 34), dtype=numpy.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0
        )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    found = json.loads(said("inspect", str(tmp_path / "mamba.gguf"), "--json"))
    assert "mamba" in found["problem"] and found["architecture"] == ""
    entries = {entry["key"]: entry for entry in found["entries"]}
    assert entries["blk.1.ssm_in.weight"]["nbytes"] == 6 * 32 * 4
    assert (entries["packed.weight"]["dtype"], entries["packed.weight"]["nbytes"]) == ("Q8_0", 68)


# -- verify ------------------------------------------------------------------------------------------------------------


def test_verify_agrees(llama):
    assert "all agree" in said("verify", llama)
    assert "all agree" in said("verify", llama, "--device", "cpu", "--no-fold-ln")


def test_verify_writes_json(llama):
    found = json.loads(said("verify", llama, "--json"))
    assert found["holds"] and found["first_disagreement"] is None and found["label"] == llama
    assert [row["name"] for row in found["rows"]][-1] == "log-probs" and all(row["holds"] for row in found["rows"])


def test_what_is_no_number_is_none_in_json():
    from transformer_lens.verification import Row, Verification

    table = Verification("m", (Row("embed", float("nan"), False), Row("logits", 0.5, False)), ("a note",))
    assert json.loads(table.to_json(2)) == {
        "label": "m", "holds": False, "first_disagreement": "embed", "notes": ["a note"],
        "rows": [{"name": "embed", "error": None, "holds": False}, {"name": "logits", "error": 0.5, "holds": False}],
    }  # fmt: skip


def test_verify_ends_with_one_where_numbers_differ(llama, monkeypatch):
    from transformer_lens import loading

    class Disagreement:
        holds = False

        def __str__(self) -> str:
            return "blocks.1 DIFFERS"

    monkeypatch.setattr(loading, "verify", lambda given, show: Disagreement())
    assert "blocks.1 DIFFERS" in said("verify", llama, code=1)


# -- doctor ------------------------------------------------------------------------------------------------------------


def test_doctor_says_what_is_here():
    found = json.loads(said("doctor", "--json", "--mib", "8"))
    assert found["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    abilities = {ability["name"]: ability for ability in found["abilities"]}
    assert next(one for name, one in abilities.items() if "assign" in name)["there"] == can_assign()
    assert found["memory"]["available"] == pytest.approx(available.available_memory(), rel=0.5)
    rates = found["rates"]
    assert rates["nbytes"] == 8 << 20
    assert all(rates[name] > 1 << 20 for name in ("first_touch", "copy", "clone", "map_file"))
    assert found["hub_cache"]["io"] in ("map", "read") and found["hub_cache"]["offline"]
    text = said("doctor", "--mib", "1")
    for words in ("GiB/s", "first touch", "can be had", "transformers' generation"):
        assert words in text


# -- help --------------------------------------------------------------------------------------------------------------

COMMANDS = ["plan", "load", "inspect", "verify", "doctor", "cache", "cache list", "cache verify", "cache clear"]


def test_version():
    assert said("--version") == f"transformer-lens {transformer_lens.__version__}\n"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_h_is_help(command):
    assert said(*command.split(), "-h") == said(*command.split(), "--help") != ""


@pytest.mark.parametrize("command", [*COMMANDS[:5], "cache list", "cache verify", "cache clear"])
def test_every_command_writes_json(command):
    assert "--json" in said(*command.split(), "--help")


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("pl", ["plan"]), ("plan --load-mode ", ["auto", "assign", "copy"]), ("load --dtype b", ["bfloat16"]),
        ("verify --device c", ["cpu", "cuda"]), ("plan gpt2-x", ["gpt2-xl"]), ("plan ./gpt2-x", []),
        ("plan --no-fold-l", ["--no-fold-ln"]), ("cache v", ["verify"]),
    ],
)  # fmt: skip
def test_a_shell_completes(words, completed):
    environment = {"_TRANSFORMER_LENS_COMPLETE": "complete_bash", "COMP_WORDS": f"transformer-lens {words}"}
    environment["COMP_CWORD"] = str(len(words.split(" ")))
    result = CliRunner().invoke(app, [], prog_name="transformer-lens", env=environment)
    assert result.exit_code == 0, result.output
    assert [word for word in completed if word not in result.output.split()] == []
    assert result.output.split() or not completed
    if not completed:
        assert result.output.strip() == ""


# -- how it ends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["plan", "load", "inspect", "verify"])
def test_what_cannot_be_loaded_ends_with_two(command, tmp_path):
    text = said(command, str(tmp_path / "nowhere"), code=2)
    assert "UnknownModelError" in text and "docs/errors.md" in text and "Traceback" not in text


@pytest.mark.parametrize("words", [("--dtype", "int8"), ("--first-n-layers", "0"), ("--load-mode", "both")])
def test_arguments_that_cannot_be_end_with_two(gpt2, words):
    assert "Traceback" not in said("plan", gpt2, "--device", "cpu", *words, code=2)


def test_it_is_a_module(llama, tmp_path):
    done = in_a_process("plan", llama, "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["report"]["architecture"] == "LlamaForCausalLM"
    done = in_a_process("load", str(tmp_path))
    assert done.returncode == 2 and done.stdout == ""
    assert "CorruptCheckpointError" in done.stderr and "Traceback" not in done.stderr


def test_the_library_does_not_import_the_command():
    code = "import sys, transformer_lens; print([name for name in ('typer', 'click', 'rich') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("command", ["load", "verify"])
@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there_ends_with_two(llama, command, device):
    assert f"--device {device}" in said(command, llama, "--device", device, code=2)


def test_a_narrow_terminal_gets_two_lines_a_tensor(llama, capsys, monkeypatch):
    from transformer_lens.cli import inspect as command
    from transformer_lens.loading import Request, inspect_checkpoint

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    command._show(inspect_checkpoint(Request(llama)))
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("model.norm.weight")
    assert "-> ln_final.w [d_model]" in lines[at + 1]
