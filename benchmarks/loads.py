"""What the benchmarks measure: each function does its imports and returns the load itself.

It is run by the Python of the environment that the library lives in, so nothing is imported at the top. Imports and
what a library imports lazily inside its first load are left out of every measurement alike.
"""


def _files(folder):
    from pathlib import Path

    return sorted(str(file) for file in Path(folder).glob("*.safetensors"))


def read_file(folder):
    """The limit of reading: each file from front to back, into one buffer."""
    files = _files(folder)
    buffer = bytearray(1 << 24)

    def read():
        for path in files:
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
        return {}

    return read


def map_file(folder):
    """The limit of doing nothing: the files are mapped, nothing is read."""
    from safetensors.torch import load_file

    return lambda: {name: value for file in _files(folder) for name, value in load_file(file).items()}


def clone(folder):
    """The limit of having a copy: the files are mapped and every tensor cloned."""
    mapped = map_file(folder)
    return lambda: {name: value.clone() for name, value in mapped().items()}


def convert(folder, dtype):
    """The limit of having a copy in another dtype."""
    import torch

    mapped = map_file(folder)
    wanted = getattr(torch, dtype)
    return lambda: {name: value.to(wanted) for name, value in mapped().items()}


def transformers(folder, dtype):
    """A plain transformers model, without hooks, nothing folded."""
    from transformers import GPT2LMHeadModel, LlamaForCausalLM

    class_ = {"gpt2": GPT2LMHeadModel, "llama": LlamaForCausalLM}[_model_type(folder)]
    return lambda: class_.from_pretrained(folder, dtype=dtype)


def ours(folder, processed, arguments, live=False):
    """This project, from the files, or from a live transformers model of them."""
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


def transformer_lens_3(name, processed):
    """transformer-lens 3, which finds the checkpoint under its official name in the hub cache made for it."""
    import transformers.models.gpt2.modeling_gpt2
    import transformers.models.llama.modeling_llama  # noqa: F401  # lazily imported inside the load

    from transformer_lens import HookedTransformer

    load = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    return lambda: load(name, dtype="float32", device="cpu")


def transformer_lens_4(name, compatible):
    """transformer-lens 4: a bridge around a transformers model, on request in compatibility mode."""
    import torch
    import transformers.models.gpt2.modeling_gpt2
    import transformers.models.llama.modeling_llama  # noqa: F401  # lazily imported inside the load

    from transformer_lens.model_bridge import TransformerBridge

    def load():
        bridge = TransformerBridge.boot_transformers(name, device="cpu", dtype=torch.float32)
        if compatible:
            bridge.enable_compatibility_mode(disable_warnings=True)
        return bridge

    return load


def nnsight(folder):
    """The nnsight model around a transformers model, dispatched at once; it insists on a tokenizer in the folder."""
    import transformers.models.gpt2.modeling_gpt2
    import transformers.models.llama.modeling_llama  # noqa: F401  # lazily imported inside the load
    from nnsight import LanguageModel

    return lambda: LanguageModel(folder, device_map="cpu", dispatch=True, dtype="auto")


def _model_type(folder):
    import json
    from pathlib import Path

    return json.loads((Path(folder) / "config.json").read_text())["model_type"]


def describe(result):
    """Says what is checked of each result: the bytes it has, how many lie in the files' mappings, what made it."""
    import torch
    from machine import versions
    from memory import mapped_spans

    tensors = list(result.values() if isinstance(result, dict) else result.parameters())
    sizes = {t.data_ptr(): t.numel() * t.element_size() for t in tensors}
    spans = sorted(mapped_spans())
    return {
        "held": sum(sizes.values()),
        "mapped": sum(size for at, size in sizes.items() if _lies_in(at, spans)),
        "largest": max(sizes.values(), default=0),
        "tensors": len(tensors),
        "threads": torch.get_num_threads(),
        "versions": versions(("torch", "transformers", "safetensors", "transformer-lens", "nnsight")),
    }


def _lies_in(address, spans):
    from bisect import bisect_right

    at = bisect_right(spans, (address, float("inf"))) - 1
    return at >= 0 and spans[at][0] <= address < spans[at][1]


def describe_bytes(result):
    """Says the same, and the digest of every parameter's bytes in the order of their names."""
    from hashlib import sha256

    import torch

    digest = sha256()
    for name, parameter in sorted(result.named_parameters()):
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(memoryview(parameter.detach().contiguous().view(torch.uint8).numpy()).cast("B"))
    return {**describe(result), "digest": digest.hexdigest()}


def ours_to_logits(folder, tokens, threads):
    """This project, unprocessed, until the first logits."""
    import torch

    from transformer_lens import HookedTransformer

    torch.set_num_threads(threads)
    load = HookedTransformer.from_pretrained_no_processing
    return _to_logits(lambda: load(folder, dtype="auto", device="cpu", progress=False), lambda out: out, tokens)


def transformers_to_logits(folder, tokens, threads):
    """A plain transformers model until its first logits."""
    import torch

    torch.set_num_threads(threads)
    return _to_logits(transformers(folder, "auto"), lambda out: out.logits, tokens)


def _to_logits(load, logits_of, tokens):
    import time

    import torch

    def run():
        start = time.perf_counter()
        model = load()
        loaded = time.perf_counter()
        with torch.inference_mode():
            logits = logits_of(model(torch.arange(1, tokens + 1)[None]))
        return {"logits": logits, "load": loaded - start, "forward": time.perf_counter() - loaded}

    return run


def describe_logits(result):
    """Says how long load and forward pass took, on how many threads, and what the last position predicts."""
    import torch
    from machine import versions

    predicted = result["logits"][0, -1].float().log_softmax(-1)
    return {
        "load": result["load"],
        "forward": result["forward"],
        "threads": torch.get_num_threads(),
        "predicted": predicted[:: max(1, predicted.numel() // 16)][:16].tolist(),
        "versions": versions(("torch", "transformers", "safetensors", "transformer-lens")),
    }


def packed(folder, tokenizer, arguments, processed=False):
    """This project, on a packed checkpoint or packing on load."""
    import bitsandbytes  # noqa: F401  # lazily imported inside the load

    from transformer_lens import HookedTransformer

    if tokenizer is not None:
        from transformers import AutoTokenizer

        # A tokenizer's tables are no weights.
        arguments = {**arguments, "tokenizer": AutoTokenizer.from_pretrained(tokenizer)}
    load = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    return lambda: load(folder, device="cpu", progress=False, **arguments)


def packed_by_transformers(folder):
    """A plain transformers model, on a packed checkpoint."""
    import bitsandbytes  # noqa: F401
    from transformers import AutoModelForCausalLM

    return lambda: AutoModelForCausalLM.from_pretrained(folder)


def packed_by_transformer_lens_3(name, folder):
    """transformer-lens 3, which takes packed weights from a live model, under an official name."""
    from transformers import AutoModelForCausalLM

    from transformer_lens import HookedTransformer

    hf_model = AutoModelForCausalLM.from_pretrained(folder)
    return lambda: HookedTransformer.from_pretrained_no_processing(name, hf_model=hf_model, device="cpu")


def describe_packed(result):
    """Says what a load has packed, whoever did: bytes of matrices and of their scales."""
    from machine import versions

    def scales(parameter):
        state = vars(parameter).get("quant_state")
        if state is None:
            return [] if vars(parameter).get("SCB") is None else [parameter.SCB]
        return [state.absmax, *([state.state2.absmax] if state.nested else [])]

    found = {id(p): p for p in result.parameters() if type(p).__name__ in ("Params4bit", "Int8Params")}
    tensors = [tensor for p in found.values() for tensor in (p.data, *scales(p))]
    return {
        "packed": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        "matrices": len(found),
        "versions": versions(("torch", "transformers", "bitsandbytes", "transformer-lens")),
    }
