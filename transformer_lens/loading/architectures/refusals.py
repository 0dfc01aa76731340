"""What cannot be a HookedTransformer, by kind: why, and what loads it. Data.

A kind is found by the name of the class, by ``model_type``, by how the class's name ends, or by fields of the config.
It is only asked for a config that has no table: a table always wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PUNCTUATION = re.compile(r"[^a-z0-9]")
# Where the name of the family ends in the name of a class.
_HEAD = re.compile(r"(?<=.)(?:For[A-Z]|With|LMHead|ModelLM|MTModel|Model).*")


def stem(name: str) -> str:
    """Returns the family that a class name or a ``model_type`` names, alike for FalconH1ForCausalLM and falcon_h1."""
    return _PUNCTUATION.sub("", _HEAD.sub("", name).lower())


@dataclass(frozen=True)
class Kind:
    """A kind of model that is refused.

    Attributes:
        name: With its article: "a state space model".
        why: The reason, as a sentence.
        instead: What loads it, as a sentence.
        families: Model types, or class names without their head, separated by spaces.
        heads: Ends of class names that are of this kind, whatever the family.
        fields: Config fields that only this kind has, where they are neither null, 0 nor empty.
    """

    name: str
    why: str
    instead: str
    families: str = ""
    heads: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()


KINDS: tuple[Kind, ...] = (
    Kind(
        "a state space model or linear recurrence",
        "its layers carry a state along the sequence: there are no queries, keys and attention patterns to hook.",
        "transformers loads it (AutoModelForCausalLM); transformer-lens 4 hooks Mamba, Mamba 2, Falcon Mamba, RWKV and "
        "HyenaDNA with its TransformerBridge.",
        "mamba mamba2 falcon_mamba rwkv rwkv6 rwkv7 hyenadna xlstm",
    ),
    Kind(
        "a hybrid of attention and recurrent layers",
        "some of its layers mix positions by a state space, a linear recurrence or a convolution instead of attention: "
        "they have no pattern to hook.",
        "transformers loads it (AutoModelForCausalLM); transformer-lens 4 hooks many of them with its "
        "TransformerBridge.",
        "nemotron_h lfm2 lfm2_moe lfm3 granitemoehybrid falcon_h1 zamba zamba2 bamba recurrent_gemma jamba "
        "bailing_hybrid inkling_text inkling2_text inkling2_loop_text inkling inkling2 inkling2_loop kimi_linear "
        "lara_mini minimax zaya olmo_hybrid qwen3_next qwen3_5 qwen3_5_text qwen3_5_moe qwen3_5_moe_text qwen4_exp "
        "qwen4_exp_text",
        fields=("mamba_d_state", "ssm_cfg", "linear_key_head_dim", "linear_conv_kernel_dim", "conv_L_cache"),
    ),
    Kind(
        "a model with multi-head latent attention (MLA)",
        "its keys and values are made of one low-rank latent a token, and one rotated key is shared by all heads: no "
        "W_K and W_V of a head say what it computes.",
        "transformers loads it (AutoModelForCausalLM); transformer-lens 4 hooks DeepSeek V2 and V3, GLM-4 MoE Lite and "
        "Youtu with its TransformerBridge.",
        "deepseek_v2 deepseek_v3 deepseek_v32 sarvam_mla glm_moe_dsa glm4_moe_lite youtu longcat_flash minicpm3 "
        "kimi_k2",
        fields=("kv_lora_rank",),
    ),
    Kind(
        "a model with several residual streams (hyper-connections)",
        "its layers read from and write to several streams that are mixed between them; there is one resid_pre here.",
        "transformers loads it (AutoModelForCausalLM).",
        "deepseek_v4 hy_v4",
    ),
    Kind(
        "an encoder-decoder",
        "it is two stacks joined by cross-attention, and the second continues what the first has read.",
        "transformers loads it (AutoModelForSeq2SeqLM); transformer-lens 3.9 hooks T5 with its HookedEncoderDecoder, "
        "transformer-lens 4 many more with its TransformerBridge.",
        "t5 mt5 umt5 longt5 switch_transformers t5gemma t5gemma2 encoder-decoder bart mbart plbart mvp led marian "
        "m2m_100 nllb-moe pegasus pegasus_x bigbird_pegasus blenderbot blenderbot-small fsmt prophetnet florence2 "
        "trocr whisper musicgen musicgen_melody",
        fields=("is_encoder_decoder",),
    ),
    Kind(
        "an encoder that reads in both directions",
        "every position sees those after it: the model fills gaps in a text, and its logits are not of the next token.",
        "transformers loads it (AutoModelForMaskedLM, AutoModel); transformer-lens 3.9 hooks BERT with its "
        "HookedEncoder.",
        "bert bert-generation BertGenerationDecoder albert big_bird camembert convbert data2vec-text deberta "
        "deberta-v2 distilbert electra ernie esm eurobert flaubert fnet funnel ibert longformer luke megatron-bert "
        "mobilebert modernbert mpnet nomic_bert nystromformer rembert roberta roberta-prelayernorm roc_bert roformer "
        "squeezebert xlm xlm-roberta xlm-roberta-xl xmod yoso",
        heads=("ForMaskedLM",),
    ),
    Kind(
        "a diffusion language model",
        "it reads in both directions and fills a noised text in several passes: its logits are not of the next token.",
        "transformers loads it with the code of its repository, which transformer-lens 4's TransformerBridge hooks.",
        "bd3lm dream gidd llada llada2moe diffusion_gemma",
        heads=("ForDiffusionLM", "ForBlockDiffusion"),
    ),
    Kind(
        "a model of sound",
        "what it reads or writes is sound, through layers that are no decoder of tokens.",
        "transformers loads it (AutoModel, AutoModelForCTC, AutoModelForSpeechSeq2Seq); transformer-lens 3.9 hooks "
        "HuBERT and wav2vec 2 with its HookedAudioEncoder.",
        "hubert wav2vec2 wav2vec2-bert wav2vec2-conformer wavlm unispeech unispeech-sat sew sew-d data2vec-audio "
        "audio-spectrogram-transformer ast moshi musicflamingo audioflamingo3 qwen2_audio glmasr "
        "moss_transcribe_diarize bark csm dia encodec speecht5 vits voxtral",
        heads=(
            "ForCTC", "ForAudioClassification", "ForAudioFrameClassification", "ForXVector", "ForTextToSpeech",
            "ForSpeechToText",
        ),
        fields=("audio_config", "num_mel_bins"),
    ),
    Kind(
        "a model of images and text",
        "images enter its text decoder through a tower, a projector or cross-attention, which have no place here, and "
        "no table says which tensors are the decoder's.",
        "transformers loads it (AutoModelForImageTextToText); a text-only checkpoint of the same family, where there "
        "is one, may load here.",
        "glm4v glm4v_moe idefics idefics2 idefics3 smolvlm fuyu git got_ocr2 emu3 phi4_multimodal minimax_m3_vl "
        "minimax_m3_vl_text cohere_compass cohere_compass_text mllama mllama_text_model muse_glimmer chameleon llava "
        "llava_next llava_onevision paligemma blip blip-2 instructblip kosmos-2 janus pix2struct",
        fields=("vision_config", "visual", "vision_tower", "mm_vision_tower"),
    ),
    Kind(
        "a model of images",
        "what it reads or writes is an image, not a text.",
        "transformers loads it (AutoModel, AutoModelForImageClassification).",
        "vit deit beit swin swinv2 convnext convnextv2 resnet dinov2 dinov3_vit clip siglip siglip2 clip_vision_model "
        "siglip_vision_model segformer detr sam",
        heads=(
            "ForImageClassification", "ForMaskedImageModeling", "ForSemanticSegmentation", "ForUniversalSegmentation",
            "ForObjectDetection", "ForDepthEstimation", "ForVideoClassification",
        ),
        fields=("image_size",),
    ),
    Kind(
        "of another kind of block",
        "it loops over its layers, reads patches of bytes, hashes its keys, permutes its text, drafts for another "
        "model or the like, and `anatomy/` has no record for that.",
        "transformers loads it (AutoModelForCausalLM).",
        "hrm_text raven huginn_raven axk1 axk2 blt cpmant dots3_note dots3_note_text gemma4_assistant "
        "gemma4_unified_assistant reformer xlnet",
    ),
    Kind(
        "a classifier",
        "in the place of the unembedding it has a head that gives no logits over the vocabulary.",
        "transformers loads it (AutoModelForSequenceClassification and the like); the language model that it was "
        "trained from may load here.",
        heads=(
            "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice",
            "ForRewardModel", "ForRewardModeling", "ForNextSentencePrediction", "DoubleHeadsModel",
        ),
    ),
)  # fmt: skip
_BY_FAMILY: Mapping[str, Kind] = {stem(name): kind for kind in KINDS for name in kind.families.split()}


def kind_of(config: Mapping[str, Any]) -> Kind | None:
    """Returns the kind of a model that no table is for; None where nothing says that it cannot have one.

    Args:
        config: A parsed config.json.
    """
    said = config.get("architectures")
    classes = [name for name in said if isinstance(name, str)] if isinstance(said, list) else []
    for kind in KINDS:
        if any(name.endswith(kind.heads) for name in classes if kind.heads):
            # A head that many families have says less than the family's own kind.
            return next((_BY_FAMILY[stem(name)] for name in classes if stem(name) in _BY_FAMILY), kind)
    model_type = config.get("model_type")
    names = [*classes, *([model_type] if isinstance(model_type, str) else [])]
    found = next((_BY_FAMILY[stem(name)] for name in names if stem(name) in _BY_FAMILY), None)
    return found or next((kind for kind in KINDS if any(config.get(field) for field in kind.fields)), None)
