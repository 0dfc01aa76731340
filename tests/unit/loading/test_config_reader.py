"""Configs as data: both spellings, the meaning of absent and null, and everything that must not pass in silence."""

import copy
from pathlib import Path

import pytest

from tests.tiny_models import FAMILIES, VARIANTS, family_of
from tests.unit.loading.configs import CLASSES, ROTARY, fields_read, hf, read, saved, theirs, whole
from transformer_lens import anatomy, loading
from transformer_lens.config import HookedTransformerConfig
from transformer_lens.loading import errors
from transformer_lens.loading.architectures import SUPPORTED, find
from transformer_lens.loading.conversion import Choose, Derived, OneOf, Stack, Take
from transformer_lens.loading.conversion.config_reader import IGNORED, MUST_BE_FALSE
from transformer_lens.loading.errors import (
    CorruptCheckpointError,
    UnhandledConfigError,
    UnsupportedArchitectureError,
)


def ours(config):
    return HookedTransformerConfig(**read(config), init_weights=False, device="cpu")


def there(name):
    """A variant, where this release of transformers has its class."""
    if theirs(family_of(VARIANTS[name])) is None:
        pytest.skip(f"transformers has no {VARIANTS[name].config_class} in this release")
    return VARIANTS[name]


def test_every_table_stands_where_messages_say():
    for architecture in SUPPORTED.values():
        assert (Path(loading.__file__).parent / architecture.file).is_file()


def test_every_family_has_its_facts_and_a_variant():
    assert set(FAMILIES) == set(CLASSES) == {family_of(variant) for variant in VARIANTS.values()}


# --- against transformers' own config objects


@pytest.mark.parametrize("spelling", ["diff", "all"])
@pytest.mark.parametrize("name", VARIANTS)
def test_sizes_and_traits_of_every_variant(name, spelling):
    variant = there(name)
    family = family_of(variant)
    config = variant.config()
    decoder = config.get_text_config()
    cfg = ours(saved(variant, spelling))
    assert (cfg.d_model, cfg.n_layers, cfg.n_heads) == (
        decoder.hidden_size, decoder.num_hidden_layers, decoder.num_attention_heads,
    )  # fmt: skip
    assert (cfg.d_vocab, cfg.d_vocab_out) == (decoder.vocab_size, decoder.vocab_size)
    assert cfg.tie_word_embeddings == config.tie_word_embeddings
    assert cfg.original_architecture == CLASSES[family]
    settings = {**variant.settings, **variant.settings.get("text_config", {})}
    assert cfg.n_ctx == settings.get("max_position_embeddings", settings.get("n_positions", cfg.n_ctx))
    assert cfg.d_head == settings.get("head_dim", cfg.d_model // cfg.n_heads)
    assert cfg.n_kv_heads == settings.get("num_key_value_heads", cfg.n_heads)
    sizes = [settings.get(field) for field in ("intermediate_size", "ffn_dim", "n_inner")]
    assert cfg.d_mlp == next((size for size in sizes if size is not None), 4 * cfg.d_model)
    for trait, expected in {**FAMILIES[family].traits, **variant.traits}.items():
        assert vars(cfg)[trait] == expected, trait


@pytest.mark.parametrize("name", VARIANTS)
def test_a_live_config_reads_the_same(name):
    """`config.to_dict()` of a model in memory has every field, the nulls and the defaults too."""
    variant = there(name)
    live = {**variant.config().to_dict(), "architectures": [CLASSES[family_of(variant)]]}
    assert read(live) == read(saved(variant))


# --- absent and null are two things


MEANINGS = [(family, fields, expected) for family, facts in FAMILIES.items() for fields, expected in facts.means]
REFUSALS = [(family, *refusal) for family, facts in FAMILIES.items() for refusal in facts.refuses]


@pytest.mark.parametrize(("family", "fields", "expected"), MEANINGS, ids=str)
def test_what_a_config_means(family, fields, expected):
    cfg = ours(hf(family, **fields))
    for name, value in expected.items():
        if name == "windows":
            assert [layer.attends.window for layer in anatomy.layers(cfg)] == value
        else:
            assert vars(cfg)[name] == value, name


@pytest.mark.parametrize(("family", "fields", "error", "says"), REFUSALS, ids=str)
def test_what_a_config_must_not_say(family, fields, error, says):
    with pytest.raises(vars(errors)[error], match=says):
        read(hf(family, **fields))


@pytest.mark.parametrize("family", CLASSES)
def test_defaults_are_those_of_transformers_classes(family):
    """A config that says nothing beyond what it must means the class's defaults."""
    config = theirs(family)
    if config is None:
        pytest.skip("transformers does not have the class in this release")
    beside = FAMILIES[family].beside
    decoder = {**config.get_text_config().to_dict(), **beside}
    assert read(whole(family, beside)) == read(whole(family, decoder))


@pytest.mark.parametrize("family", CLASSES)
def test_tied_by_default(family):
    config = theirs(family)
    if config is not None:
        assert read(hf(family))["tie_word_embeddings"] == config.tie_word_embeddings
    for value in (True, False):
        assert read(hf(family, tie_word_embeddings=value))["tie_word_embeddings"] is value


# --- nothing passes in silence


@pytest.mark.parametrize("family", CLASSES)
def test_unknown_fields_are_gathered(family):
    config = hf(family, novel_scale=0.5, _remove_one_norm=True, use_novel_attention="often")
    with pytest.raises(UnhandledConfigError) as caught:
        read(config)
    message = str(caught.value)
    for expected in ("config.json of it", "novel_scale = 0.5", "_remove_one_norm = True",
                     "use_novel_attention = 'often'", SUPPORTED[CLASSES[family]].file):  # fmt: skip
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
    for config in contexts(family):
        assert not ignored & fields_read(config)


@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize("name", MUST_BE_FALSE)
def test_what_must_be_false(family, name):
    assert read(hf(family, **{name: False})) == read(hf(family))
    with pytest.raises(UnhandledConfigError, match=f"{name} = True"):
        read(hf(family, **{name: True}))


@pytest.mark.parametrize("family", CLASSES)
def test_required_values(family):
    for name, value in SUPPORTED[CLASSES[family]].required.items():
        assert read(hf(family, **{name: value})) == read(hf(family))
        with pytest.raises(UnhandledConfigError, match=f"{name} = .*only {value!r} is implemented"):
            other = f"not {value}" if isinstance(value, str) else not value if isinstance(value, bool) else value + 1
            read(hf(family, **{name: other}))


# --- nothing that is read is forgotten

STRETCHES = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32},
    "yarn": {"factor": 4.0},
}


def contexts(family):
    """Configs that a family's fields are read in: its examples, stretched in every way, and those of every variant."""
    out = [hf(family), *(hf(family, **fields) for fields, _ in FAMILIES[family].means)]
    if family in ROTARY:
        stretched = [{"rope_type": kind, **numbers} for kind, numbers in STRETCHES.items()]
        out += [hf(family, rope_parameters=..., rope_scaling=scaling) for scaling in stretched]
    if theirs(family) is not None:
        out += [saved(variant) for variant in VARIANTS.values() if family_of(variant) == family]
    # A family need not have every kind of rotation.
    return [config for config in out if isinstance(meaning(config), tuple)]


def table_of(config):
    """Which branches of a table a config chooses: what is read for each of our parameters."""

    def chosen(recipe):
        if isinstance(recipe, Choose):
            return chosen(recipe.then if recipe.when.holds(fields) else recipe.otherwise)
        if isinstance(recipe, OneOf):
            return [chosen(one) for one in recipe.alternatives]
        if isinstance(recipe, Derived):
            return [recipe.step, *(chosen(one) for one in recipe.of)]
        if isinstance(recipe, (Take, Stack)):
            return recipe.key if recipe.when is None or recipe.when.holds(fields) else None
        return "zeros"

    architecture = find(config, "it")
    fields = architecture.text_fields(config)
    return {name: chosen(recipe) for name, recipe in {**architecture.once, **architecture.block}.items()}


def meaning(config):
    """What a config means; None where it means nothing, an error's class where it is refused by name."""
    try:
        return read(config), table_of(config)
    except CorruptCheckpointError:
        return None
    except UnhandledConfigError:
        return UnhandledConfigError


def other_values(value, n_layers):
    """Values that a field of any kind may have instead."""
    yield from (True, False, 0, 1, 2, 3, 8, 24, 0.25, 0.5, 3.0, "relu", "silu")
    if isinstance(value, int) and not isinstance(value, bool):
        yield from (2 * value, 4 * value)
    yield from (["full_attention"] * n_layers, ["sliding_attention"] * n_layers, [0] * n_layers, [0])
    yield from ([[["global"], n_layers]], ["global"] * n_layers)
    yield from ({"rope_type": "linear", "factor": 3.0, "rope_theta": 77.0}, {"type": "linear", "factor": 3.0})


@pytest.mark.parametrize("family", CLASSES)
def test_every_setting_that_is_read_matters(family):
    """No field is taken and forgotten: in some config another value means another model, or is refused by name."""
    architecture = SUPPORTED[CLASSES[family]]
    left = {*architecture.required, "tie_word_embeddings"}
    configs = contexts(family)
    for config in configs:
        left |= fields_read(config)
    for config in configs:
        before, fields = meaning(config), dict(architecture.text_fields(config))
        for name in sorted(left):
            for value in other_values(fields.get(name), before[0]["n_layers"]):
                changed = {key: one for key, one in fields.items() if key not in ("model_type", "architectures")}
                after = meaning(whole(family, {**changed, name: value}))
                if after is not None and after != before:
                    left.discard(name)
                    break
    assert not left


@pytest.mark.parametrize("value", [10**12, 0, -48, 48.0, "48", [48], True, float("inf"), 10**400])
@pytest.mark.parametrize("family", CLASSES)
def test_sizes_that_make_no_sense(family, value):
    """Nothing is tried with them: the error names the field."""
    for name in FAMILIES[family].least:
        with pytest.raises(CorruptCheckpointError, match=name):
            read(hf(family, **{name: value}))


@pytest.mark.parametrize("name", VARIANTS)
def test_reading_leaves_the_config_as_it_was(name):
    config = saved(there(name))
    before = copy.deepcopy(config)
    read(config)
    assert config == before


# --- the fields that published checkpoints carry


@pytest.mark.parametrize(
    ("family", "name"), [(family, name) for family, facts in FAMILIES.items() for name in facts.published]
)
def test_published_configs(family, name):
    ours(hf(family, **FAMILIES[family].published[name]))


# --- which architecture it is


@pytest.mark.parametrize("family", CLASSES)
def test_find(family):
    architecture = SUPPORTED[CLASSES[family]]
    assert find(hf(family), "it") is architecture
    for names in ([], None):
        assert find({**hf(family), "architectures": names}, "it") is architecture
    assert find({**hf(family), "model_type": None}, "it") is architecture
    assert find({**hf(family), "architectures": [architecture.headless]}, "it") is architecture


@pytest.mark.parametrize("family", CLASSES)
def test_headless_classes(family):
    import transformers

    if theirs(family) is not None:
        assert isinstance(getattr(transformers, SUPPORTED[CLASSES[family]].headless), type)


@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize("head", ["CustomModel", "DoubleHeadsModel", "ForSequenceClassification"])
def test_another_head_is_another_architecture(family, head):
    stem = SUPPORTED[CLASSES[family]].headless.removesuffix("Model")
    with pytest.raises(UnsupportedArchitectureError, match="has one for that model_type|a classifier, which") as caught:
        find({"architectures": [stem + head], "model_type": family}, "it")
    assert isinstance(caught.value, NotImplementedError)


def test_what_has_no_table_and_is_of_no_kind_that_is_refused():
    with pytest.raises(UnsupportedArchitectureError, match="(?s)no table here.*CONTRIBUTING") as caught:
        find({"architectures": ["FooForCausalLM"], "model_type": "foo"}, "it")
    assert not any(name in str(caught.value) for name in SUPPORTED)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"architectures": [], "model_type": None},
        {"architectures": [], "model_type": 3},
        {"architectures": next(iter(SUPPORTED))},
        {"architectures": [3]},
    ],
)
def test_configs_that_name_nothing(config):
    with pytest.raises(CorruptCheckpointError):
        find(config, "it")


def test_configs_that_name_two_things():
    names = list(CLASSES.items())
    for (_, name), (model_type, _) in zip(names, names[1:] + names[:1]):
        with pytest.raises(CorruptCheckpointError, match="another architecture"):
            find({"architectures": [name], "model_type": model_type}, "it")


@pytest.mark.parametrize("slip", [lambda name: name[:-1] + "x", lambda name: name[0] + name, lambda name: name[1:]])
def test_a_slip_of_the_pen(slip):
    for name in SUPPORTED:
        with pytest.raises(UnsupportedArchitectureError, match=f"{name} has one: is {slip(name)} a slip of the pen"):
            find({"architectures": [slip(name)]}, "it")


def test_another_number_and_another_family_are_no_slips():
    for name in ("Llama7ForCausalLM", "PhooForCausalLM", "GPT7LMHeadModel"):
        with pytest.raises(UnsupportedArchitectureError) as caught:
            find({"architectures": [name]}, "it")
        assert "slip" not in str(caught.value)
    with pytest.raises(UnsupportedArchitectureError, match="llama has one: is lalma a slip"):
        find({"model_type": "lalma"}, "it")
