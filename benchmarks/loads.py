"""What `benchmarks.load` measures: each function does its imports and returns the load itself.

It is run by the Python of the environment that the library lives in, so nothing is imported at the top.
"""


def map_file(folder):
    """The limit of doing nothing: the file is mapped, nothing is read."""
    from safetensors.torch import load_file

    return lambda: load_file(f"{folder}/model.safetensors")


def clone(folder):
    """The limit of having a copy: the file is mapped and every tensor cloned."""
    from safetensors.torch import load_file

    return lambda: {name: value.clone() for name, value in load_file(f"{folder}/model.safetensors").items()}


def transformers(folder):
    """A plain transformers model, without hooks, nothing folded."""
    from transformers import GPT2LMHeadModel

    return lambda: GPT2LMHeadModel.from_pretrained(folder, dtype="float32")


def ours(folder, processed, load_mode):
    """This project."""
    from transformer_lens import HookedTransformer

    load = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    return lambda: load(folder, load_mode=load_mode, dtype="float32", device="cpu", progress=False)


def planned(folder, processed, live, arguments):
    """This project, with any arguments, from the files or from a live model: for `benchmarks.plan`."""
    from transformer_lens import HookedTransformer

    load = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    given = {"model_name": folder}
    if live:
        from transformers import AutoModelForCausalLM

        given = {"hf_model": AutoModelForCausalLM.from_pretrained(folder)}
    return lambda: load(**given, device="cpu", progress=False, **arguments)


def larger_than_memory(folder, live):
    """This project, on a checkpoint that memory cannot hold."""
    import torch

    from transformer_lens import HookedTransformer

    torch.manual_seed(0)
    load = HookedTransformer.from_pretrained_no_processing

    def call():
        model = load(folder, dtype="auto", load_mode="assign", device="cpu", progress=False)
        return model, torch.randn(1, 3, model.cfg.d_model).to(torch.bfloat16), live

    return call


def run_range(loaded):
    """Runs the two layers that end with the live one; says what went in, what was added, and what that cost."""
    import time

    import torch
    from memory import private_memory

    model, residual, live = loaded
    start = time.perf_counter()
    with torch.no_grad():
        out = model(residual, start_at_layer=live - 1, stop_at_layer=live + 1)
    seconds = time.perf_counter() - start
    report = model.load_report
    return {
        "seconds": seconds,
        "private": private_memory(),
        "before": residual[0].tolist(),
        "added": (out - residual)[0].tolist(),
        "mode": report.load_mode,
        "mapped": report.bytes_mapped,
    }


def cached(folder, wanted):
    """This project, processed; where wanted, weights are kept for the next load, or mapped from the last."""
    from transformer_lens import HookedTransformer

    return lambda: HookedTransformer.from_pretrained(folder, device="cpu", progress=False, cache_processed=wanted)


def upstream(name, processed):
    """transformer-lens 3.9.0, which finds the checkpoint under its official name in the hub cache made for it."""
    import transformers.models.gpt2.modeling_gpt2  # noqa: F401  # lazily imported by upstream, inside the load

    from transformer_lens import HookedTransformer

    load = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    return lambda: load(name, dtype="float32", device="cpu")


def describe(result):
    """Says what is checked of each result: how many bytes it holds, how many of them lie in the file's mapping."""
    from memory import mapped_bytes

    tensors = list(result.values() if isinstance(result, dict) else result.parameters())
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return {"held": sum(storages.values()), "mapped": mapped_bytes(tensors)}
