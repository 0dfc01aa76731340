"""What can be loaded is told by the tables, and the page of it is what the command prints."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.tiny_models import FAMILIES
from transformer_lens.cli.app import app
from transformer_lens.loading import OFFICIAL_MODEL_NAMES, supported_architectures
from transformer_lens.loading.architectures import SUPPORTED, UPSTREAM_FORMATS
from transformer_lens.loading.sources.model_families import NO_DECODERS, class_of, names_of
from transformer_lens.loading.supported import markdown

ROOT = Path(__file__).parents[3]
RECORDS = {record.name: record for record in supported_architectures()}


def test_the_page_is_what_the_command_prints():
    page = (ROOT / "docs/models.md").read_text()
    assert page == markdown(supported_architectures()), "transformer-lens models --markdown > docs/models.md"


def test_every_table_has_a_record():
    assert set(RECORDS) == {*SUPPORTED, *UPSTREAM_FORMATS}
    assert {record.model_type for record in RECORDS.values()} >= set(FAMILIES)
    for record in RECORDS.values():
        assert record.block and (ROOT / "transformer_lens/loading" / record.table).is_file()
        assert not set(record.steps) & {step for step, _ in record.left_out}
        assert all(reason for _, reason in record.left_out)


@pytest.mark.parametrize(
    ("name", "block", "step", "reason"),
    [
        ("GPT2LMHeadModel", "LN before each branch; attention, learned positions; MLP (gelu_new)", None, None),
        ("LlamaForCausalLM", "RMS before each branch; attention, rotary; gated MLP (silu)", "center_writing_weights",
         "RMS norms do not take the mean away"),
        ("Gemma2ForCausalLM", "RMS before and after each branch; attention with shared keys, rotary, window on some "
         "layers, capped scores; gated MLP (gelu_pytorch_tanh); multiplies embedding; capped logits", "center_unembed",
         "cap of the logits"),
        ("GptOssForCausalLM", "sinks; 4 of 128 experts (silu)", "fold_value_biases", "sum to less than one"),
    ],
)  # fmt: skip
def test_records_say_what_a_block_is(name, block, step, reason):
    record = RECORDS[name]
    assert block in record.block
    assert step is None or reason in dict(record.left_out)[step]


def test_every_listed_name_is_of_one_class():
    strange = [n for n in OFFICIAL_MODEL_NAMES if class_of(n) is None and not n.startswith(NO_DECODERS)]
    assert not strange
    listed = [name for one in {class_of(name) for name in OFFICIAL_MODEL_NAMES} - {None} for name in names_of(one)]
    assert sorted(listed) == sorted(name for name in OFFICIAL_MODEL_NAMES if not name.startswith(NO_DECODERS))
    assert class_of("google/gemma-3-1b-it") != class_of("google/gemma-3-4b-it")


def test_the_command_lists_them():
    found = json.loads(CliRunner().invoke(app, ["models", "--json"]).output)
    assert found == [json.loads(json.dumps(record.as_dict())) for record in RECORDS.values()]
    plain = CliRunner().invoke(app, ["models"]).output
    assert all(name in plain for name in SUPPORTED) and "without center_writing_weights: RMS" in plain
