"""The least that config.json of each family says, and what tests do with it."""

import json

from tests.tiny_models import FAMILIES
from transformer_lens.loading.architectures import SUPPORTED, find
from transformer_lens.loading.conversion import ConfigView, read_config

CLASSES = {architecture.model_type: name for name, architecture in SUPPORTED.items()}


def hf(family, **fields):
    """The least config of a family, with fields of the decoder changed; ``...`` takes one away."""
    said = {**FAMILIES[family].least, **FAMILIES[family].beside, **fields}
    return whole(family, {name: value for name, value in said.items() if value is not ...})


def whole(family, fields):
    """What the decoder says, as the config of a family has it."""
    architecture = SUPPORTED[CLASSES[family]]
    inner = {architecture.text_config: fields} if architecture.text_config else fields
    return {**inner, "model_type": family, "architectures": [architecture.name]}


def theirs(family, **fields):
    """A config of transformers' class, None where this release has none."""
    import transformers

    name = FAMILIES[family].config_class
    return getattr(transformers, name)(**fields) if hasattr(transformers, name) else None


def read(config):
    return read_config(find(config, "it"), config, "it")


def fields_read(config):
    """The names of the fields that the reader of a family has asked for."""
    architecture = find(config, "it")
    view = ConfigView(architecture.text_fields(config), "it")
    architecture.read_config(view)
    return view.read


ROTARY = [family for family in FAMILIES if "rope_parameters" in fields_read(hf(family))]


def saved(variant, spelling=None):
    """What transformers writes to config.json."""
    config = variant.config()
    config.architectures = [CLASSES[config.model_type]]
    return json.loads(config.to_json_string(use_diff=spelling != "all"))
