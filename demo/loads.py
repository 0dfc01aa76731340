"""What the demo measures: each function does its imports and returns the load itself."""

import time


def transformers(folder):
    """A plain transformers model."""
    from transformers import AutoModelForCausalLM, LlamaForCausalLM  # noqa: F401  # the class is lazily imported

    from transformer_lens.loading.versions import dtype_argument

    settings = {dtype_argument(): "auto"}
    return lambda: AutoModelForCausalLM.from_pretrained(folder, **settings)


def hooked(folder, processed, load_mode):
    """A HookedTransformer; the tokenizer is made beforehand, so that weights alone are measured."""
    from transformers import AutoTokenizer

    from transformer_lens import HookedTransformer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    load = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    return lambda: load(folder, load_mode=load_mode, dtype="auto", device="cpu", tokenizer=tokenizer, progress=False)


def describe(model):
    """Says how many bytes of the parameters lie in the file's mapping, and how long the first forward pass takes."""
    import torch

    from benchmarks.memory import mapped_bytes

    mapped = mapped_bytes(list(model.parameters()))
    start = time.perf_counter()
    with torch.no_grad():
        model(torch.arange(8)[None])
    return {"mapped": mapped, "first_pass": time.perf_counter() - start}
