"""What cannot be a HookedTransformer is refused by its kind, with the reason and with what loads it."""

import pytest

from transformer_lens.loading.architectures import SUPPORTED, find
from transformer_lens.loading.architectures.refusals import KINDS, kind_of, stem
from transformer_lens.loading.errors import UnsupportedArchitectureError

CASES = {
    "state space": [
        {"architectures": ["MambaForCausalLM"]},
        {"model_type": "falcon_mamba"},
        {"architectures": ["RwkvForCausalLM"], "model_type": "rwkv"},
    ],
    "hybrid": [
        {"architectures": ["FalconH1ForCausalLM"]},
        {"model_type": "jamba"},
        {"architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5", "vision_config": {"depth": 1}},
        {"architectures": ["NewForCausalLM"], "model_type": "new", "mamba_d_state": 16},
    ],
    "latent attention": [
        {"architectures": ["DeepseekV3ForCausalLM"], "auto_map": {"AutoModelForCausalLM": "modeling_deepseek.X"}},
        {"architectures": ["NewForCausalLM"], "model_type": "new", "kv_lora_rank": 512},
    ],
    "several residual streams": [{"model_type": "deepseek_v4"}],
    "encoder-decoder": [
        {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
        {"architectures": ["MarianMTModel"]},
        {"architectures": ["NewForConditionalGeneration"], "model_type": "new", "is_encoder_decoder": True},
    ],
    "both directions": [
        {"architectures": ["BertForMaskedLM"]},
        {"architectures": ["RobertaForSequenceClassification"], "model_type": "roberta"},
        {"architectures": ["NewForMaskedLM"]},
    ],
    "diffusion": [{"architectures": ["LLaDAModelLM"]}, {"architectures": ["DreamModel"]}],
    "sound": [{"architectures": ["HubertForCTC"]}, {"model_type": "new", "audio_config": {"a": 1}}],
    "images and text": [
        {"architectures": ["Idefics3ForConditionalGeneration"]},
        {"architectures": ["NewForConditionalGeneration"], "vision_config": {"depth": 1}},
    ],
    "of images,": [{"architectures": ["ViTForImageClassification"]}, {"model_type": "vit"}],
    "another kind of block": [{"architectures": ["ReformerModelWithLMHead"]}],
    "a classifier": [{"architectures": ["LlamaForSequenceClassification"], "model_type": "llama"}],
}


@pytest.mark.parametrize("words", CASES)
def test_kinds_are_told(words):
    for config in CASES[words]:
        with pytest.raises(
            UnsupportedArchitectureError, match="(?s)cannot be a HookedTransformer.*why:.*instead:"
        ) as e:
            find(config, "it")
        assert words in str(e.value).partition("\n")[0], str(e.value)
        assert "slip" not in str(e.value) and not any(name in str(e.value) for name in SUPPORTED)


def test_every_kind_is_tried_and_is_of_one_family_once():
    assert {kind.name for kind in KINDS} == {kind_of(config).name for configs in CASES.values() for config in configs}
    names = [name for kind in KINDS for name in {stem(name) for name in kind.families.split()}]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("nothing", [None, False, 0, {}, ""])
def test_fields_that_say_nothing_refuse_nothing(nothing):
    fields = {field: nothing for kind in KINDS for field in kind.fields}
    assert kind_of({"architectures": ["NewForCausalLM"], "model_type": "new", **fields}) is None
