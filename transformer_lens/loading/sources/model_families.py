"""Which class the models of a listed name are of. Data: starts of names, the longest that fits counts."""

from __future__ import annotations

from transformer_lens.loading.sources.model_names import OFFICIAL_MODEL_NAMES

# What upstream lists and what is of none of the families of decoders.
NO_DECODERS: tuple[str, ...] = ("google-bert/", "google-t5/", "facebook/hubert-", "facebook/wav2vec2-")
_CLASS_OF: dict[str, str] = {
    start: class_name
    for class_name, starts in {
        "ApertusForCausalLM": "swiss-ai/Apertus-",
        "BloomForCausalLM": "bigscience/bloom-",
        "GPT2LMHeadCustomModel": "bigcode/santacoder",
        "GPT2LMHeadModel": "gpt2 distilgpt2 stanford-crfm/ ai-forever/mGPT",
        "GPTJForCausalLM": "EleutherAI/gpt-j-",
        "GPTNeoForCausalLM": "EleutherAI/gpt-neo- roneneldan/TinyStories-",
        "GPTNeoXForCausalLM": "EleutherAI/gpt-neox- EleutherAI/pythia- stabilityai/stablelm-",
        "Gemma2ForCausalLM": "google/gemma-2-",
        "Gemma3ForCausalLM": "google/gemma-3-270m google/gemma-3-1b google/medgemma-27b-text",
        "Gemma3ForConditionalGeneration": "google/gemma-3- google/medgemma-",
        "GemmaForCausalLM": "google/gemma-2b google/gemma-7b",
        "GptOssForCausalLM": "openai/gpt-oss-",
        "LlamaForCausalLM": "llama- meta-llama/ codellama/ 01-ai/Yi-",
        "MistralForCausalLM": "mistralai/Mistral-",
        "MixtralForCausalLM": "mistralai/Mixtral-",
        "Olmo2ForCausalLM": "allenai/OLMo-2-",
        "Olmo3ForCausalLM": "allenai/Olmo-3",
        "OlmoForCausalLM": "allenai/OLMo-1B allenai/OLMo-7B",
        "OlmoeForCausalLM": "allenai/OLMoE-",
        "OPTForCausalLM": "facebook/opt-",
        "Phi3ForCausalLM": "microsoft/Phi-3 microsoft/phi-4",
        "PhiForCausalLM": "microsoft/phi-1 microsoft/phi-2",
        "QWenLMHeadModel": "Qwen/Qwen-",
        "Qwen2ForCausalLM": "Qwen/Qwen1.5- Qwen/Qwen2 Qwen/QwQ-",
        "Qwen3ForCausalLM": "Qwen/Qwen3-",
        "mingpt": "Baidicoot/Othello-GPT-",
        "neel": "NeelNanda/ ArthurConmy/redwood_attn_2l",
        "neel-solu-old": "NeelNanda/SoLU_1L_v9 NeelNanda/SoLU_2L_v10 NeelNanda/SoLU_4L_v11 NeelNanda/SoLU_6L_v13 "
        "NeelNanda/SoLU_8L_v21 NeelNanda/SoLU_10L_v22 NeelNanda/SoLU_12L_v23",
    }.items()
    for start in starts.split()
}


def class_of(official_name: str) -> str | None:
    """Returns the class that the models of a listed name are of; None where it is no decoder, or not known."""
    starts = [start for start in _CLASS_OF if official_name.startswith(start)]
    return _CLASS_OF[max(starts, key=len)] if starts else None


def names_of(class_name: str) -> tuple[str, ...]:
    """Returns the listed names whose models are of a class, in the order of the list."""
    return tuple(name for name in OFFICIAL_MODEL_NAMES if class_of(name) == class_name)
