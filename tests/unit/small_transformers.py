"""Small random models of every shape that a config can ask for, and a tokenizer made in memory."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.HookedTransformer import HookedTransformer

BASE = {
    "n_layers": 3,
    "d_model": 14,
    "n_ctx": 23,
    "d_head": 8,
    "n_heads": 6,
    "d_mlp": 40,
    "d_vocab": 29,
    "act_fn": "gelu",
    "device": "cpu",
    "seed": 0,
}
LLAMA = {
    "normalization_type": "RMS",
    "positional_embedding_type": "rotary",
    "rotary_dim": 8,
    "gated_mlp": True,
    "act_fn": "silu",
    "final_rms": True,
}
KINDS = {
    "gpt2": {},
    "square": {"d_mlp": 14, "d_vocab": 14},
    "folded": {"normalization_type": "LNPre"},
    "no_norm": {"normalization_type": None},
    "llama_mha": LLAMA,
    "llama_gqa": {**LLAMA, "n_key_value_heads": 3},
    "llama_ungrouped": {**LLAMA, "n_key_value_heads": 3, "ungroup_grouped_query_attention": True},
    "parallel_rotary": {"parallel_attn_mlp": True, "positional_embedding_type": "rotary", "rotary_dim": 4},
    "adjacent_rotary": {
        "positional_embedding_type": "rotary",
        "rotary_dim": 4,
        "rotary_adjacent_pairs": True,
    },
    "attn_only": {"attn_only": True, "act_fn": None, "d_mlp": None},
    "shortformer": {"positional_embedding_type": "shortformer"},
    "alibi": {"positional_embedding_type": "alibi", "post_embedding_ln": True},
    "local": {"use_local_attn": True, "window_size": 3, "attn_types": ["global", "local", "global"]},
    "solu": {"act_fn": "solu_ln"},
    "sandwich": {**LLAMA, "n_key_value_heads": 3, "use_normalization_before_and_after": True, "use_qk_norm": True},
    "soft_caps": {"output_logits_soft_cap": 2.0, "attn_scores_soft_cap": 3.0},
    "hook_tokens": {"use_hook_tokens": True},
    "split_qkv": {"use_split_qkv_input": True, "use_attn_result": True, "use_hook_mlp_in": True},
}
VOCABULARY = ["<pad>", "<bos>", "<eos>", "<unk>", *"abcdefghijklmnopqrstuvwxy"]


def randomize(model, std=0.4):
    """Draws every parameter, biases included, so that nothing is at a value that hides a mistake."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator) * std
            parameter.copy_(drawn + 1 if name.endswith(".w") else drawn)
    return model


def make_model(kind="gpt2", tokenizer=None, cls=HookedTransformer, std=None, **changes):
    if std is None:
        # Without a norm numbers grow from layer to layer, and the rounding of their sums with them.
        std = 0.2 if kind == "no_norm" else 0.4
    return randomize(cls(HookedTransformerConfig(**{**BASE, **KINDS[kind], **changes}), tokenizer), std)


def make_tokenizer(*, prepends_bos=False, appends_eos=False, special=True, **kwargs):
    """A tokenizer with a token a word: the letters a to y, and four special tokens."""
    vocabulary = {word: index for index, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.Fuse()
    template = ["<bos>"] * prepends_bos + ["$A"] + ["<eos>"] * appends_eos
    if len(template) > 1:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=" ".join(template), special_tokens=[("<bos>", 1), ("<eos>", 2)]
        )
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"} if special else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{**names, **kwargs})


def make_tokens(batch=4, length=7, d_vocab=14, seed=3):
    return torch.randint(0, d_vocab, (batch, length), generator=torch.Generator().manual_seed(seed))
