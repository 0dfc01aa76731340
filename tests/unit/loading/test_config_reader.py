"""Configs as data: both spellings, the meaning of absent and null, and everything that must not pass in silence."""

import copy

import pytest

from tests.tiny_models import VARIANTS
from tests.unit.loading.configs import BASE, CLASSES, hf, read, saved
from transformer_lens.config import HookedTransformerConfig
from transformer_lens.loading.architectures import SUPPORTED, find
from transformer_lens.loading.conversion.config_reader import IGNORED
from transformer_lens.loading.errors import (
    CorruptCheckpointError,
    UnhandledConfigError,
    UnsupportedArchitectureError,
)

# --- against transformers' own config objects


@pytest.mark.parametrize("spelling", ["diff", "all"])
@pytest.mark.parametrize("name", VARIANTS)
def test_sizes_and_traits_of_every_variant(name, spelling):
    theirs = VARIANTS[name].config()
    cfg = HookedTransformerConfig(**read(saved(VARIANTS[name], spelling)), init_weights=False, device="cpu")
    assert (cfg.d_model, cfg.n_layers, cfg.n_heads) == (
        theirs.hidden_size, theirs.num_hidden_layers, theirs.num_attention_heads,
    )  # fmt: skip
    assert (cfg.n_ctx, cfg.d_vocab, cfg.d_vocab_out) == (
        theirs.max_position_embeddings, theirs.vocab_size, theirs.vocab_size,
    )  # fmt: skip
    assert cfg.tie_word_embeddings == theirs.tie_word_embeddings
    assert cfg.original_architecture == CLASSES[theirs.model_type]
    settings = VARIANTS[name].settings
    assert cfg.d_head == settings.get("head_dim", cfg.d_model // cfg.n_heads)
    assert cfg.n_kv_heads == settings.get("num_key_value_heads", cfg.n_heads)
    assert cfg.d_mlp == settings.get("intermediate_size", settings.get("n_inner", 4 * cfg.d_model))
    assert cfg.parallel_attn_mlp == (theirs.model_type == "gpt_neox" and theirs.use_parallel_residual)
    assert cfg.normalization_type == ("LN" if theirs.model_type in ("gpt2", "gpt_neox") else "RMS")
    assert cfg.default_prepend_bos == (theirs.model_type != "qwen2")


@pytest.mark.parametrize("name", VARIANTS)
def test_a_live_config_reads_the_same(name):
    """`config.to_dict()` of a model in memory has every field, the nulls and the defaults too."""
    live = {**VARIANTS[name].config().to_dict(), "architectures": [CLASSES[VARIANTS[name].config().model_type]]}
    assert read(live) == read(saved(VARIANTS[name]))


# --- absent and null are two things


@pytest.mark.parametrize(
    ("family", "fields", "expected"),
    [
        ("llama", {"num_key_value_heads": 6}, None),
        ("llama", {"num_key_value_heads": None}, None),
        ("llama", {"num_key_value_heads": 1}, 1),
        ("mistral", {"num_key_value_heads": 6}, 6),
        ("mistral", {"num_key_value_heads": None}, 6),
        ("qwen2", {"num_key_value_heads": None}, 6),
        ("phi3", {"num_key_value_heads": None}, None),
    ],
)
def test_key_value_heads(family, fields, expected):
    """Which families have `_W_K` where there are as many key heads as query heads is upstream's API."""
    assert read(hf(family, **fields))["n_key_value_heads"] == expected


def test_absent_key_value_heads():
    def without(family, heads):
        config = hf(family, num_attention_heads=heads, hidden_size=8 * heads)
        del config["num_key_value_heads"]
        return read(config)["n_key_value_heads"]

    assert without("llama", 6) is None and without("phi3", 6) is None
    assert without("mistral", 16) == 8 and without("qwen2", 64) == 32


@pytest.mark.parametrize(
    ("family", "fields", "windows"),
    [
        ("mistral", {}, [4096] * 4),
        ("mistral", {"sliding_window": None}, [None] * 4),
        ("mistral", {"sliding_window": 5}, [5] * 4),
        ("phi3", {}, [None] * 4),
        ("phi3", {"sliding_window": None}, [None] * 4),
        ("phi3", {"sliding_window": 5}, [5] * 4),
        ("qwen2", {"sliding_window": 5, "max_window_layers": 1}, [None] * 4),
        ("qwen2", {"sliding_window": 5, "max_window_layers": 1, "use_sliding_window": True}, [None, 5, 5, 5]),
        ("qwen2", {"sliding_window": 5, "max_window_layers": 0, "use_sliding_window": True}, [5] * 4),
        ("qwen2", {"sliding_window": 5, "use_sliding_window": True}, [None] * 4),
        ("qwen2", {"max_window_layers": 3, "use_sliding_window": True}, [None, None, None, 4096]),
        ("qwen2", {"sliding_window": None, "max_window_layers": 1, "use_sliding_window": True}, [None] * 4),
        ("qwen2", {"sliding_window": 5, "max_window_layers": 4, "use_sliding_window": True,
                   "layer_types": ["sliding_attention", "full_attention"] * 2}, [5, None, 5, None]),
        ("qwen2", {"layer_types": ["full_attention"] * 4}, [None] * 4),
        ("llama", {}, [None] * 4),
    ],
)  # fmt: skip
def test_windows_by_layer(family, fields, windows):
    cfg = HookedTransformerConfig(**read(hf(family, **fields)), device="cpu")
    kinds = cfg.attn_types or ["global"] * 4
    assert [cfg.window_size if cfg.use_local_attn and kind == "local" else None for kind in kinds] == windows


@pytest.mark.parametrize(
    ("family", "fields", "error", "says"),
    [
        ("qwen2", {"layer_types": ["sliding_attention"] * 4, "sliding_window": 5}, UnhandledConfigError, "denies"),
        ("qwen2", {"layer_types": ["chunked_attention"] * 4}, UnhandledConfigError, "chunked_attention"),
        ("qwen2", {"layer_types": ["full_attention"] * 3}, CorruptCheckpointError, "not a list of 4"),
        ("qwen2", {"layer_types": "full_attention"}, CorruptCheckpointError, "not a list of 4"),
        ("qwen2", {"max_window_layers": -1}, CorruptCheckpointError, "max_window_layers"),
        ("mistral", {"sliding_window": 0}, CorruptCheckpointError, "sliding_window"),
        ("mistral", {"sliding_window": "5"}, CorruptCheckpointError, "sliding_window"),
        ("mistral", {"layer_types": ["full_attention"] * 4}, UnhandledConfigError, "layer_types"),
    ],
)
def test_windows_that_are_not_understood(family, fields, error, says):
    with pytest.raises(error, match=says):
        read(hf(family, **fields))


@pytest.mark.parametrize("family", CLASSES)
def test_defaults_are_those_of_transformers_classes(family):
    """A config that says nothing beyond what it is means the class's defaults."""
    import transformers

    theirs = getattr(transformers, CLASSES[family].replace("LMHeadModel", "").replace("ForCausalLM", "") + "Config")()
    fields = read({"model_type": family, "architectures": [CLASSES[family]]})
    assert fields == read({**theirs.to_dict(), "architectures": [CLASSES[family]]})


@pytest.mark.parametrize("family", CLASSES)
def test_tied_by_default(family):
    assert read(hf(family))["tie_word_embeddings"] == (family == "gpt2")
    for value in (True, False):
        assert read(hf(family, tie_word_embeddings=value))["tie_word_embeddings"] is value


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"n_inner": None}, {"d_mlp": 192}),
        ({"n_inner": 80}, {"d_mlp": 80}),
        ({"scale_attn_weights": False}, {"use_attn_scale": False}),
        ({"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_by_inverse_layer_idx": True}),
        ({"n_ctx": 12, "reorder_and_upcast_attn": True}, {"n_ctx": 64}),
    ],
)
def test_gpt2(fields, expected):
    found = read(hf("gpt2", **fields))
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("name", ["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "silu", "relu"])
def test_activations(name):
    assert read(hf("llama", hidden_act=name))["act_fn"] == name


def test_an_activation_by_its_other_name():
    assert read(hf("llama", hidden_act="swish"))["act_fn"] == "silu"


# --- nothing passes in silence


@pytest.mark.parametrize("family", CLASSES)
def test_unknown_fields_are_gathered(family):
    config = hf(family, logit_scale=0.5, _remove_final_layer_norm=True, use_novel_attention="often")
    with pytest.raises(UnhandledConfigError) as caught:
        read(config)
    message = str(caught.value)
    for expected in ("config.json of it", "logit_scale = 0.5", "_remove_final_layer_norm = True",
                     "use_novel_attention = 'often'", f"architectures/{family}.py"):  # fmt: skip
        assert expected in message
    assert isinstance(caught.value, NotImplementedError)


@pytest.mark.parametrize("family", CLASSES)
def test_a_null_says_nothing(family):
    assert read(hf(family, use_novel_attention=None)) == read(hf(family))


@pytest.mark.parametrize("family", CLASSES)
def test_what_is_ignored_changes_nothing_and_is_not_also_read(family):
    """Ignored by name: whatever it says, the fields are the same. No family's reader takes such a field."""
    architecture = SUPPORTED[CLASSES[family]]
    ignored = (IGNORED | set(architecture.ignored)) - {"architectures", "model_type"}
    for value in (True, 0.25, "text", [1], 7):
        assert read(hf(family, **dict.fromkeys(ignored, value))) == read(hf(family))
    assert all(architecture.ignored.values())
    assert not ignored & set(architecture.required)
    assert not ignored & set(BASE[family])


@pytest.mark.parametrize("family", CLASSES)
def test_every_setting_that_is_read_matters(family):
    """The opposite: no size or switch is taken and forgotten."""
    whole = {"rotary_pct": 1.0} if family == "gpt_neox" else {}
    for name, value in BASE[family].items():
        assert read(hf(family, **whole, **{name: 2 * value})) != read(hf(family, **whole)), name


@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize("name", ["add_cross_attention", "is_encoder_decoder", "use_bidirectional_attention"])
def test_what_must_be_false(family, name):
    assert read(hf(family, **{name: False})) == read(hf(family))
    with pytest.raises(UnhandledConfigError, match=f"{name} = True"):
        read(hf(family, **{name: True}))


@pytest.mark.parametrize("family", CLASSES)
def test_required_values(family):
    for name, value in SUPPORTED[CLASSES[family]].required.items():
        assert read(hf(family, **{name: value})) == read(hf(family))
        with pytest.raises(UnhandledConfigError, match=f"{name} = .*only {value!r} is implemented"):
            read(hf(family, **{name: value + 1}))


@pytest.mark.parametrize("value", [10**12, 0, -48, 48.0, "48", [48], True, float("inf"), 10**400])
@pytest.mark.parametrize("family", CLASSES)
def test_sizes_that_make_no_sense(family, value):
    """Nothing is tried with them: the error names the field."""
    for name in BASE[family]:
        with pytest.raises(CorruptCheckpointError, match=name):
            read(hf(family, **{name: value}))


@pytest.mark.parametrize(
    ("family", "fields", "says"),
    [
        ("llama", {"num_key_value_heads": 4}, "not a multiple of num_key_value_heads"),
        ("gpt2", {"n_head": 5}, "not a multiple of n_head"),
        ("gpt_neox", {"num_attention_heads": 5}, "not a multiple of num_attention_heads"),
        ("llama", {"attention_bias": "no"}, "not true or false"),
        ("llama", {"tie_word_embeddings": "no"}, "not true or false"),
        ("llama", {"rms_norm_eps": "1e-5"}, "not a number"),
        ("llama", {"rms_norm_eps": -1e-5}, "not above 0"),
        ("gpt_neox", {"use_parallel_residual": 1}, "not true or false"),
    ],
)
def test_values_that_make_no_sense(family, fields, says):
    with pytest.raises(CorruptCheckpointError, match=says):
        read(hf(family, **fields))


@pytest.mark.parametrize("value", ["quick_gelu", "solu", ["silu"], 3, {}])
def test_an_unknown_activation(value):
    with pytest.raises(UnhandledConfigError, match="hidden_act"):
        read(hf("llama", hidden_act=value))


@pytest.mark.parametrize("name", VARIANTS)
def test_reading_leaves_the_config_as_it_was(name):
    config = saved(VARIANTS[name])
    before = copy.deepcopy(config)
    read(config)
    assert config == before


# --- the fields that published checkpoints carry

PUBLISHED = {
    "gpt2-medium": hf("gpt2", activation_function="gelu_new", attn_pdrop=0.1, bos_token_id=50256, embd_pdrop=0.1,
                      eos_token_id=50256, initializer_range=0.02, layer_norm_epsilon=1e-05, n_ctx=1024, n_special=0,
                      predict_special_tokens=True, output_past=True, resid_pdrop=0.1, summary_activation=None,
                      summary_first_dropout=0.1, summary_proj_to_labels=True, summary_type="cls_index",
                      summary_use_proj=True, task_specific_params={"text-generation": {"max_length": 50}}),
    "distilgpt2": hf("gpt2", _num_labels=1, id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0}),
    "pythia": hf("gpt_neox", bos_token_id=0, eos_token_id=0, hidden_act="gelu", initializer_range=0.02,
                 layer_norm_eps=1e-05, rotary_emb_base=10000, rotary_pct=0.5, tie_word_embeddings=False,
                 torch_dtype="float16", transformers_version="4.24.0", use_cache=True, use_parallel_residual=True),
    "gpt-neox-20b": hf("gpt_neox", attention_probs_dropout_prob=0, hidden_act="gelu_fast", hidden_dropout_prob=0,
                       layer_norm_eps=1e-05, rotary_emb_base=10000, rotary_pct=0.5),
    "SmolLM2": hf("llama", attention_bias=False, attention_dropout=0.0, is_llama_config=True, mlp_bias=False,
                  pretraining_tp=1, rms_norm_eps=1e-05, rope_interleaved=False, rope_scaling=None, rope_theta=100000,
                  tie_word_embeddings=True, **{"transformers.js_config": {"dtype": "q4"}}),
    "Llama-3.2": hf("llama", attention_bias=False, head_dim=8, mlp_bias=False, pretraining_tp=1, rope_theta=500000.0,
                    rope_scaling={"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                                  "original_max_position_embeddings": 8192, "rope_type": "llama3"},
                    tie_word_embeddings=True, torch_dtype="bfloat16", use_cache=True),
    "an early llama": hf("llama", max_sequence_length=2048, pad_token_id=0, transformers_version="4.28.0.dev0"),
    "Qwen2.5": hf("qwen2", attention_dropout=0.0, max_window_layers=24, rope_theta=1000000.0, sliding_window=32768,
                  tie_word_embeddings=True, torch_dtype="bfloat16", use_mrope=False, use_sliding_window=False),
    "Phi-4-mini": hf("phi3", attention_bias=False, auto_map={"AutoConfig": "configuration_phi3.Phi3Config"},
                     embd_pdrop=0.0, full_attn_mod=1, interpolate_factor=1, lm_head_bias=False, mlp_bias=False,
                     original_max_position_embeddings=16, partial_rotary_factor=0.75, resid_pdrop=0.0,
                     rope_scaling={"type": "longrope", "short_factor": [1.0] * 3, "long_factor": [1, 1.1, 1.2]},
                     rope_theta=10000.0, sliding_window=262144, tie_word_embeddings=True),
    "Mistral": hf("mistral", rope_theta=10000.0, sliding_window=4096, tie_word_embeddings=False, use_cache=True),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs(name):
    HookedTransformerConfig(**read(PUBLISHED[name]), init_weights=False, device="cpu")


# --- which architecture it is


@pytest.mark.parametrize("family", CLASSES)
def test_find(family):
    architecture = SUPPORTED[CLASSES[family]]
    assert find(hf(family), "it") is architecture
    for names in ([], None):
        assert find({**hf(family), "architectures": names}, "it") is architecture
    assert find({**hf(family), "model_type": None}, "it") is architecture
    assert find({**hf(family), "architectures": [architecture.headless]}, "it") is architecture


def test_headless_classes():
    import transformers

    for architecture in SUPPORTED.values():
        assert isinstance(getattr(transformers, architecture.headless), type)


@pytest.mark.parametrize(
    ("names", "model_type"),
    [
        (["GPT2LMHeadCustomModel"], "gpt2"),
        (["GPT2DoubleHeadsModel"], "gpt2"),
        (["LlamaForSequenceClassification"], "llama"),
        (["Gemma3ForCausalLM"], "gemma3_text"),
        ([], "gemma"),
    ],
)
def test_architectures_without_a_table(names, model_type):
    with pytest.raises(UnsupportedArchitectureError, match="the nearest name is") as caught:
        find({"architectures": names, "model_type": model_type}, "it")
    assert isinstance(caught.value, NotImplementedError)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"architectures": [], "model_type": None},
        {"architectures": [], "model_type": 3},
        {"architectures": "LlamaForCausalLM"},
        {"architectures": [3]},
        {"architectures": ["LlamaForCausalLM"], "model_type": "mistral"},
    ],
)
def test_configs_that_name_nothing_or_two_things(config):
    with pytest.raises(CorruptCheckpointError):
        find(config, "it")


def test_the_nearest_name():
    with pytest.raises(UnsupportedArchitectureError, match="the nearest name is Phi3ForCausalLM"):
        find({"architectures": ["PhiForCausalLM"], "model_type": "phi"}, "it")
