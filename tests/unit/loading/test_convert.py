"""Conversions of every variant against the same reshapes written by hand, and what a wrong checkpoint says."""

import functools
import random
import re

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_models import FAMILIES, VARIANTS, family_of, make_model, save
from tests.unit.loading.by_hand import by_hand
from tests.unit.loading.configs import CLASSES
from transformer_lens.anatomy import replace_fields, schema
from transformer_lens.config import HookedTransformerConfig
from transformer_lens.loading.architectures import SUPPORTED, find
from transformer_lens.loading.checkpoint import from_live_model, open_checkpoint, read_config_json
from transformer_lens.loading.conversion import Choose, Derived, OneOf, Stack, Take, convert, read_config
from transformer_lens.loading.conversion.convert import collapse
from transformer_lens.loading.errors import (
    LayoutMismatchError,
    MissingTensorError,
    QuantizedTensorError,
    UnexpectedTensorError,
)
from transformer_lens.loading.sources import resolve
from transformer_lens.loading.weights import Held, Weights

SQUARE = [name for name in VARIANTS if name.endswith("-square")]


def there(name):
    if (reason := VARIANTS[name].why_no_reference()) is not None and "wrongly" not in reason:
        pytest.skip(reason)
    return VARIANTS[name]


@functools.cache
def parts(hf_model):
    """The table, the config as parsed, and ours, of a live model."""
    checkpoint = from_live_model(hf_model)
    architecture = find(checkpoint.config, "it")
    fields = read_config(architecture, checkpoint.config, "it")
    cfg = HookedTransformerConfig(**fields, device="cpu", init_weights=False)
    return architecture, cfg, dict(checkpoint.config)


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    """The tensors that a file of a model has, by the names that files keep."""

    @functools.cache
    def written(hf_model):
        folder = tmp_path_factory.mktemp("model")
        hf_model.save_pretrained(folder, safe_serialization=True)
        return load_file(folder / "model.safetensors")

    return lambda hf_model: dict(written(hf_model))


@pytest.fixture(scope="module", params=sorted(VARIANTS))
def hf_model(request):
    return make_model(there(request.param))


@pytest.fixture(scope="module")
def tiny():
    """Small models by name, made once."""
    return functools.cache(lambda name: make_model(there(name)))


@pytest.fixture(scope="module")
def converted(on_disk):
    def convert_it(hf_model, file=None, **changes):
        architecture, cfg, config = parts(hf_model)
        weights = Weights.from_state_dict(on_disk(hf_model) if file is None else file, "model.safetensors")
        return convert(weights, architecture, cfg, {**config, **changes}, "it")

    return convert_it


def leaves(promise):
    """What a promise is made of in the end: views of the file."""
    return [leaf for source in promise.sources for leaf in leaves(source)] if promise.held is Held.FRESH else [promise]


@pytest.mark.parametrize("name", [name for name in VARIANTS if FAMILIES[family_of(VARIANTS[name])].by_hand])
def test_every_number_is_where_it_is_by_hand(name, tiny, converted):
    hf_model = tiny(name)
    result = converted(hf_model)
    keeps_groups = parts(hf_model)[1].n_key_value_heads is not None
    expected = dict(by_hand(FAMILIES[family_of(VARIANTS[name])].by_hand, hf_model, keeps_groups))
    for name, promise in result.weights.items():
        tensor = promise.make()
        assert tuple(tensor.shape) == promise.shape and tensor.dtype == promise.dtype
        if name in expected:
            assert torch.equal(tensor, expected[name]), name
        else:
            assert name in result.zero_filled and not tensor.any(), name
    assert set(expected) | set(result.zero_filled) == set(result.weights)
    assert not set(expected) & set(result.zero_filled)
    assert all(name.rpartition(".")[2].lstrip("_").startswith("b_") for name in result.zero_filled)


def test_names_order_and_axes_are_the_schemas(hf_model, converted):
    architecture, cfg, _ = parts(hf_model)
    result = converted(hf_model)
    assert {name: promise.layout for name, promise in result.weights.items()} == schema(cfg)
    assert list(result.weights) == list(schema(cfg))


def test_every_element_of_the_file_is_used_once(hf_model, on_disk, converted):
    """Seen from the file: no row is left out, none is in two parameters, except where a whole tensor is in two."""
    file = on_disk(hf_model)
    result = converted(hf_model, file)
    where = {tensor.untyped_storage().data_ptr(): key for key, tensor in file.items()}
    counts = {key: torch.zeros(tensor.numel(), dtype=torch.int64) for key, tensor in file.items()}
    whole = dict.fromkeys(file, 0)
    skipped = dict.fromkeys(file, 0)
    architecture = parts(hf_model)[0]
    for recipe in {**architecture.once, **architecture.block}.values():
        if isinstance(recipe, Take) and recipe.first_row:
            key = next(key for key in file if key.endswith(recipe.key.replace("{p}", "")))
            skipped[key] = recipe.first_row * file[key][0].numel()
    for promise in result.weights.values():
        for leaf in leaves(promise):
            out = leaf.make()
            key = where[out.untyped_storage().data_ptr()]
            places = torch.zeros(out.shape, dtype=torch.int64) + out.storage_offset()
            for axis, stride in enumerate(out.stride()):
                steps = torch.arange(out.shape[axis]) * stride
                places += steps.view([-1 if a == axis else 1 for a in range(out.ndim)])
            counts[key] += torch.bincount(places.flatten(), minlength=counts[key].numel())
            whole[key] += out.numel() == counts[key].numel() - skipped[key]
    for key in result.used:
        assert (counts[key][: skipped[key]] == 0).all()
        assert (counts[key][skipped[key] :] == max(whole[key], 1)).all(), key
    assert sorted([*result.used, *result.dropped]) == sorted(file)
    assert all(whole[result.weights[name].origin.key] == 2 for name, _ in result.tied if leaves(result.weights[name]))


def test_nothing_is_copied_and_nothing_changes(hf_model, on_disk, converted):
    """Parameters are views of the file, but for those that no file has or that are made of several tensors."""
    file = on_disk(hf_model)
    before = {key: tensor.clone() for key, tensor in file.items()}
    storages = {tensor.untyped_storage().data_ptr() for tensor in file.values()}
    result = converted(hf_model, file)
    for name, promise in result.weights.items():
        if promise.held is Held.FRESH:
            assert promise.cost == promise.nbytes
            assert (promise.origin.container == "zero-filled") == (name in result.zero_filled) == (not promise.sources)
            value = promise.make().clone()
            promise.make().fill_(1.0)
            assert torch.equal(promise.make(), value)
        else:
            assert promise.make().untyped_storage().data_ptr() in storages, name
            assert promise.cost == 0
    assert all(torch.equal(tensor, before[key]) for key, tensor in file.items())


def test_files_without_the_prefix(hf_model, on_disk, converted):
    """The hub's GPT-2 and BLOOM files lack it."""
    architecture, file = parts(hf_model)[0], on_disk(hf_model)
    prefix = next(prefix for prefix in architecture.prefixes if prefix + architecture.anchor in file)
    bare = {key.removeprefix(prefix): tensor for key, tensor in file.items()}
    assert set(bare) != set(file)
    expected = converted(hf_model).weights.state_dict()
    assert all(
        torch.equal(tensor, expected[name]) for name, tensor in converted(hf_model, bare).weights.state_dict().items()
    )


def test_a_live_model_converts_to_the_same(hf_model, converted):
    checkpoint = from_live_model(hf_model)
    architecture, cfg, config = parts(hf_model)
    live = convert(checkpoint.weights, architecture, cfg, config, "it")
    expected = converted(hf_model)
    assert all(torch.equal(tensor, expected.weights[name].make()) for name, tensor in live.weights.state_dict().items())
    assert live.tied == expected.tied and live.zero_filled == expected.zero_filled
    assert bool(live.tied) == hf_model.config.tie_word_embeddings


def test_a_file_on_disk_converts_to_the_same(hf_model, converted, tmp_path):
    """Names that this transformers writes, tensors mapped; each name of a tied matrix has memory of its own."""
    hf_model.save_pretrained(tmp_path, safe_serialization=True)
    source = resolve(str(tmp_path))
    config = read_config_json(source)
    architecture, cfg, _ = parts(hf_model)
    checkpoint = open_checkpoint(source, config, lambda key: False, "map")
    result = convert(checkpoint.weights, architecture, cfg, config, "it")
    expected = converted(hf_model)
    assert {leaf.held for promise in result.weights.values() for leaf in leaves(promise)} == {Held.MAPPED}
    for name, tensor in result.weights.state_dict().items():
        assert torch.equal(tensor, expected.weights[name].make()), name
    assert result.tied == expected.tied
    if result.tied and not any(result.weights[name].held is Held.FRESH for name in ("embed.W_E", "unembed.W_U")):
        W_E, W_U = (result.weights[name].make() for name in ("embed.W_E", "unembed.W_U"))
        W_U[0, 0] += 1.0
        assert W_E[0, 0] == expected.weights["embed.W_E"].make()[0, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_files_dtype_stays(tiny, dtype, on_disk, converted):
    file = {key: tensor.to(dtype) for key, tensor in on_disk(tiny("llama")).items()}
    result = converted(tiny("llama"), file)
    assert {promise.dtype for promise in result.weights.values()} == {dtype}
    assert {tensor.dtype for tensor in result.weights.state_dict().values()} == {dtype}


# --- ties


def test_a_tied_file_has_the_matrix_once(tiny, converted):
    result = converted(tiny("llama-tied"))
    assert result.tied == (("unembed.W_U", "embed.W_E"),)
    assert "lm_head.weight" not in result.used
    assert torch.equal(result.weights["unembed.W_U"].make(), result.weights["embed.W_E"].make().T)


def test_a_head_of_its_own_is_used_though_the_config_ties(tiny, on_disk, converted):
    """As transformers 5 does; hub files of tied models often carry the copy, and some carry another matrix."""
    file = on_disk(tiny("llama-tied"))
    for head in (file["model.embed_tokens.weight"].clone(), torch.randn(113, 48)):
        result = converted(tiny("llama-tied"), {**file, "lm_head.weight": head})
        assert torch.equal(result.weights["unembed.W_U"].make(), head.T)
        assert not result.tied and "lm_head.weight" in result.used


def test_an_untied_file_without_a_head(tiny, on_disk, converted):
    file = on_disk(tiny("llama"))
    del file["lm_head.weight"]
    with pytest.raises(MissingTensorError, match=r"lm_head\.weight"):
        converted(tiny("llama"), file)


# --- what is not read


def test_buffers_of_old_files_are_dropped_by_name(hf_model, on_disk, converted):
    architecture, cfg, _ = parts(hf_model)
    file = on_disk(hf_model)
    known = set(converted(hf_model, file).dropped)
    prefix = next(prefix for prefix in architecture.prefixes if prefix + architecture.anchor in file)
    for template in architecture.dropped:
        for layer in range(cfg.n_layers):
            file[template.replace("{p}", prefix).replace("{i}", str(layer))] = torch.zeros(3)
    result = converted(hf_model, file)
    found = {key: reason for key, reason in result.dropped.items() if key not in known}
    assert len(found) == cfg.n_layers * len(architecture.dropped)
    assert set(found.values()) == set(architecture.dropped.values()) and all(found.values())
    assert not set(result.dropped) & set(result.used)


def test_first_layers_only(tiny, on_disk):
    architecture, cfg, config = parts(tiny("qwen2-windows"))
    assert cfg.n_layers == 4
    few = replace_fields(cfg, n_layers=2)
    file = on_disk(tiny("qwen2-windows"))
    left_out = architecture.left_out(2, cfg.n_layers)
    kept = {key: tensor for key, tensor in file.items() if not left_out(key)}
    assert {key for key in file if ".layers.2." in key or ".layers.3." in key} == set(file) - set(kept)
    result = convert(Weights.from_state_dict(kept), architecture, few, config, "it")
    assert set(result.weights) == set(schema(few)) and not result.dropped


@pytest.mark.parametrize("first", [None, 1, 2])
def test_layers_that_the_config_does_not_have_are_never_left_out(tiny, on_disk, first):
    architecture, cfg, config = parts(tiny("qwen2-windows"))
    file = on_disk(tiny("qwen2-windows"))
    left_out = architecture.left_out(first, 3)
    kept = Weights.from_state_dict({key: tensor for key, tensor in file.items() if not left_out(key)})
    with pytest.raises(UnexpectedTensorError, match=r"(?s)more layers than.*model\.layers\.3\.") as error:
        convert(kept, architecture, replace_fields(cfg, n_layers=first or 3), config, "it")
    assert first is None or f"model.layers.{first}." not in str(error.value)


def test_a_number_of_a_layer_may_have_any_length(tiny, on_disk, converted):
    """Python makes no number of thousands of digits; a name with them is of a layer beyond all the same."""
    for digits in ("9" * 10, "9" * 5000):
        file = {**on_disk(tiny("llama-gqa")), f"model.layers.{digits}.mlp.up_proj.weight": torch.zeros(3)}
        with pytest.raises(UnexpectedTensorError, match="more layers than"):
            converted(tiny("llama-gqa"), file)


NO_FLOATS = [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool, torch.complex64] + [
    vars(torch)[name] for name in ("float8_e4m3fn", "float8_e5m2", "uint16") if name in vars(torch)
]


@pytest.mark.parametrize("dtype", NO_FLOATS, ids=str)
def test_a_weight_that_is_no_float_is_named(tiny, on_disk, converted, dtype):
    file = on_disk(tiny("gpt2"))
    for key in ("transformer.wte.weight", "transformer.h.1.attn.c_attn.bias", "transformer.ln_f.weight"):
        with pytest.raises(QuantizedTensorError, match=f"(?s){re.escape(key)}  {str(dtype)[6:]}\n"):
            converted(tiny("gpt2"), {**file, key: torch.zeros(file[key].shape).to(dtype)})


def test_every_weight_that_is_no_float_is_named_at_once(hf_model, on_disk, converted):
    """Of every family: whatever a parameter reads, one message has it, layers together."""
    used = converted(hf_model).used
    bad = {key: torch.zeros(tensor.shape, dtype=torch.int32) for key, tensor in on_disk(hf_model).items()}
    with pytest.raises(QuantizedTensorError) as error:
        converted(hf_model, bad)
    for line in collapse(used):
        assert f"  {line}  int32\n" in str(error.value) or "… and" in str(error.value), line


# --- what a wrong checkpoint says


def test_missing_tensors_are_named_at_once(tiny, on_disk, converted):
    file = {key: tensor for key, tensor in on_disk(tiny("gpt2")).items() if "c_attn" not in key and "ln_f" not in key}
    with pytest.raises(MissingTensorError) as caught:
        converted(tiny("gpt2"), file)
    lines = caught.value.args[0].splitlines()
    assert lines[0] == "it lacks tensors that its config.json asks for:"
    assert sorted(line.strip() for line in lines[1:-1]) == [
        "transformer.h.{0…1}.attn.c_attn.bias",
        "transformer.h.{0…1}.attn.c_attn.weight",
        "transformer.ln_f.bias",
        "transformer.ln_f.weight",
    ]
    assert lines[-1] == "  the table is architectures/gpt2.py; is the download complete?"
    assert isinstance(caught.value, KeyError)


def test_unexpected_tensors_are_named_at_once(tiny, on_disk, converted):
    extra = {f"model.layers.{layer}.self_attn.q_norm.weight": torch.ones(8) for layer in range(2)}
    with pytest.raises(UnexpectedTensorError) as caught:
        converted(tiny("llama"), {**on_disk(tiny("llama")), **extra, "score.weight": torch.ones(2)})
    message = caught.value.args[0]
    assert "model.layers.{0…1}.self_attn.q_norm.weight" in message and "score.weight" in message


@pytest.mark.parametrize("name", ["llama-bias", "gpt-neox"])
def test_a_bias_that_the_config_switches_off(tiny, name, converted):
    with pytest.raises(UnexpectedTensorError, match=r"a bias that it switches off"):
        converted(tiny(name), attention_bias=False)


def test_a_bias_that_the_config_asks_for(tiny, converted):
    with pytest.raises(MissingTensorError, match=r"model\.layers\.\{0…1\}\.self_attn\.o_proj\.bias"):
        converted(tiny("llama"), attention_bias=True)


def test_a_mismatch_says_where_both_sides_and_the_cause(tiny, on_disk, converted):
    file = on_disk(tiny("gpt-neox"))
    fused = "gpt_neox.layers.{}.attention.query_key_value.weight"
    for layer in range(2):
        file[fused.format(layer)] = torch.zeros(144, 47)
    file["embed_out.weight"] = torch.zeros(112, 48)
    with pytest.raises(LayoutMismatchError) as caught:
        converted(tiny("gpt-neox"), file)
    assert caught.value.args[0].splitlines() == [
        "blocks.0.attn.W_Q of it",
        f"  on disk:   {fused.format(0)}  (144, 47) float32   in model.safetensors",
        "  declared:  (head qkv d_head) d_model = (144, 48)   architectures/gpt_neox.py",
        "  head is 3, qkv is 3, d_head is 16, d_model is 48 by config.json; are these files of one checkpoint?",
        f"  alike:     {fused.format('{0…1}')}",
        "unembed.W_U of it",
        "  on disk:   embed_out.weight  (112, 48) float32   in model.safetensors",
        "  declared:  d_vocab_out d_model = (113, 48)   architectures/gpt_neox.py",
        "  d_vocab_out is 113, d_model is 48 by config.json; are these files of one checkpoint?",
    ]


def some(keys, name, count=8):
    """A few of many, the same in every run."""
    keys = sorted(keys)
    return keys if len(keys) <= count else random.Random(name).sample(keys, count)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_tensor_must_have_its_shape(tiny, name, on_disk, converted):
    """A row more, or a dimension more, of any one tensor is an error that names it; before anything is read."""
    file = on_disk(tiny(name))
    for key in some(converted(tiny(name), file).used, name):
        tensor = file[key]
        for other in (torch.zeros(tensor.shape[0] + 1, *tensor.shape[1:]), tensor.unsqueeze(0)):
            with pytest.raises(LayoutMismatchError, match=re.escape(key)):
                converted(tiny(name), {**file, key: other})


@pytest.mark.parametrize("name", SQUARE)
def test_every_tensor_is_needed(tiny, name, on_disk, converted):
    file = on_disk(tiny(name))
    for key in some(converted(tiny(name), file).used, name, 16):
        with pytest.raises(MissingTensorError, match=re.escape(key)):
            converted(tiny(name), {other: tensor for other, tensor in file.items() if other != key})


def test_two_names_of_one_matrix(tiny, on_disk, converted):
    file = on_disk(tiny("gpt-neox"))
    renamed = {"lm_head.weight" if key == "embed_out.weight" else key: tensor for key, tensor in file.items()}
    assert torch.equal(converted(tiny("gpt-neox"), renamed).weights["unembed.W_U"].make(), file["embed_out.weight"].T)
    with pytest.raises(UnexpectedTensorError, match="which mean the same"):
        converted(tiny("gpt-neox"), {**file, **renamed})


# --- the tables themselves


def decisions(recipe, config):
    """Yields what the config decides in a recipe: (what is decided, which way)."""
    if isinstance(recipe, Choose):
        holds = recipe.when.holds(config)
        yield recipe.when, holds
        yield from decisions(recipe.then if holds else recipe.otherwise, config)
    elif isinstance(recipe, OneOf):
        for one in recipe.alternatives:
            yield from decisions(one, config)
    elif isinstance(recipe, Derived):
        for one in recipe.of:
            yield from decisions(one, config)
    elif isinstance(recipe, (Take, Stack)) and recipe.when is not None:
        yield recipe.when, recipe.when.holds(config)


@pytest.mark.parametrize("name", SUPPORTED)
def test_each_entry_of_a_table_is_asked_for_by_some_variant(name):
    """A name of ours that no schema has would never be read; neither would a branch that no config takes."""
    architecture = SUPPORTED[name]
    asked, decided = set(), set()
    for variant in VARIANTS.values():
        # Two tables of one family, alone and inside a larger model, have their reader and their recipes in common.
        table = SUPPORTED[CLASSES[family_of(variant)]]
        if table.read_config is not architecture.read_config or not variant.has_config():
            continue
        config = {**variant.config().to_dict(), "architectures": [table.name]}
        fields = read_config(table, config, "it")
        for parameter in schema(HookedTransformerConfig(**fields, device="cpu", init_weights=False)):
            stem = re.sub(r"(?<=experts\.)\d+(?=\.)", "{e}", parameter)
            asked.add(re.sub(r"^blocks\.\d+\.", "", stem).replace("._", "."))
        for recipe in {**table.once, **table.block}.values():
            decided |= set(decisions(recipe, table.text_fields(config)))
    if not asked:
        pytest.skip("transformers has no class for it in this release")
    assert set(architecture.once) | set(architecture.block) <= asked
    assert all((when, not holds) in decided for when, holds in decided)


def test_collapse():
    names = [f"h.{layer}.attn.{kind}" for layer in (0, 1, 2, 3) for kind in ("bias", "weight")]
    assert collapse(names) == ["h.{0…3}.attn.bias", "h.{0…3}.attn.weight"]
    assert collapse(["h.0.w", "h.2.w", "h.2.w", "wte", "wte"]) == ["h.{0,2}.w", "wte"]
    assert collapse(["h.7.w"]) == ["h.7.w"]
    assert collapse([f"t{i}" for i in range(15)], limit=2) == ["t0", "t1", "… and 13 more"]


def test_saved_variants_open(tmp_path):
    """The helper that other tests use writes what can be read."""
    folder = save(VARIANTS["llama"], tmp_path)
    source = resolve(str(folder))
    assert open_checkpoint(source, read_config_json(source), lambda key: False, "map").weights
