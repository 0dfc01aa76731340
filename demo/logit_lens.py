"""Draws what a model would say if each layer were its last."""

from __future__ import annotations

from pathlib import Path

import torch

from transformer_lens import HookedTransformer


@torch.no_grad()
def draw_logit_lens(model: HookedTransformer, prompt: str, path: Path) -> Path:
    """Writes a picture: layers upwards, positions to the right, the likeliest next token and its probability.

    Every residual stream goes through the model's own last norm and unembedding.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tokens = model.to_tokens(prompt, prepend_bos=False)
    words = model.to_str_tokens(tokens[0])
    n_layers = model.cfg.n_layers
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: name.endswith(("resid_pre", "resid_post")))
    streams = [cache["resid_pre", 0], *(cache["resid_post", layer] for layer in range(n_layers))]
    chances = torch.stack([model.unembed(model.ln_final(stream))[0].float().softmax(-1) for stream in streams])
    best = chances.max(-1)

    figure, axes = pyplot.subplots(figsize=(1.6 + 1.15 * len(words), 1.2 + 0.27 * len(streams)))
    image = axes.imshow(best.values, aspect="auto", origin="lower", cmap="viridis", vmin=0, vmax=1)
    for layer, row in enumerate(best.indices.tolist()):
        for position, token in enumerate(row):
            shade = "white" if best.values[layer, position] < 0.6 else "black"
            word = _shown(model.to_string(torch.tensor([token])))
            axes.text(position, layer, word[:12], ha="center", va="center", fontsize=7, color=shade, parse_math=False)
    axes.set_xticks(range(len(words)), [_shown(word) for word in words], fontsize=8)
    axes.set_yticks(range(0, len(streams), 2), ["embed", *(str(layer) for layer in range(1, n_layers, 2))], fontsize=7)
    axes.set_xlabel("token read")
    axes.set_ylabel("after layer")
    axes.set_title(f"logit lens, {model.cfg.model_name}", fontsize=9)
    figure.colorbar(image, label="probability of the likeliest next token", pad=0.02)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
    pyplot.close(figure)
    return path


def _shown(word: str) -> str:
    """Returns a token for people: one that is only a space is not nothing."""
    return repr(word.strip(" ") or "␣")[1:-1]
