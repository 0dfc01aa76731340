"""The import path of upstream for the functions of `transformer_lens.utilities`."""

import json
from typing import Any

from transformer_lens import utilities
from transformer_lens.FactoredMatrix import FactoredMatrix
from transformer_lens.utilities import *  # noqa: F403
from transformer_lens.utilities import (  # noqa: F401  upstream 3 has its modules here
    activation_functions,
    addmm,
    architectures,
    attention,
    attribute_utils,
    cache,
    components_utils,
    defaults_utils,
    devices,
    exploratory_utils,
    gpu_utils,
    hf_utils,
    initialization_utils,
    library_utils,
    lm_utils,
    logits_utils,
    matrix,
    multi_gpu,
    parameter_swap,
    tensors,
    tokenize_utils,
    typed_module_list,
)
from transformer_lens.utilities.left_out import refusing

__all__ = [*utilities.__all__, "ACTIVATION_FN_DICT", "FactoredMatrix", "download_file_from_hf"]

ACTIVATION_FN_DICT = utilities.SUPPORTED_ACTIVATIONS


def get_corner(tensor: Any, n: int = 3) -> Any:  # type: ignore[no-redef]
    """Returns the first `n` indices along every axis; those of a `FactoredMatrix` are multiplied out."""
    corner = utilities.get_corner(tensor, n)
    return corner.AB if isinstance(corner, FactoredMatrix) else corner


def get_input_with_manually_prepended_bos(  # type: ignore[no-redef]
    tokenizer: Any = None, input: str | list[str] = "", *, bos_token: Any = None
) -> str | list[str]:
    """Writes the BOS token in front of a text, or of each of several.

    Args:
        tokenizer: One that has a BOS token, or that token as a string.
        input: The text or texts.
        bos_token: Another name of `tokenizer`, that of ``transformer_lens.utilities``.

    Raises:
        TypeError: Neither or both of the two are given.
    """
    if (tokenizer is None) == (bos_token is None):
        raise TypeError("give a tokenizer or a BOS token, one of them")
    return utilities.get_input_with_manually_prepended_bos(bos_token if tokenizer is None else tokenizer, input)


def sample_logits(  # type: ignore[no-redef]
    final_logits: Any,
    top_k: int | None = None,
    top_p: float | int | None = None,
    temperature: float | int = 1.0,
    freq_penalty: float | int = 0.0,
    tokens: Any | None = None,
    repetition_penalty: float | int = 1.0,
) -> Any:
    """Draws the next token of each row, as ``transformer_lens.utilities.sample_logits`` does.

    Here `tokens` comes before `repetition_penalty`, as in transformer-lens 2.
    """
    return utilities.sample_logits(final_logits, top_k, top_p, temperature, freq_penalty, repetition_penalty, tokens)


def download_file_from_hf(
    repo_name: str,
    file_name: str,
    subfolder: str = ".",
    cache_dir: str | None = None,
    force_is_torch: bool = False,
    **kwargs: Any,
) -> Any:
    """Downloads one file from the Hugging Face hub, and reads it where it is JSON or tensors.

    Args:
        repo_name: The repository, ``owner/name``.
        file_name: The file's name.
        subfolder: Its folder in the repository.
        cache_dir: Where to keep it; None means where the Hugging Face libraries do.
        force_is_torch: Read tensors, whatever the file is called.
        **kwargs: Passed to ``huggingface_hub.hf_hub_download``, such as ``revision``, ``token`` or ``repo_type``.

    Returns:
        The tensors on the CPU of a ``.pth`` file, which may hold nothing else; the contents of a ``.json`` file; the
        path of any other.

    Raises:
        LoadingError: There is no such repository or file, the hub cannot be asked, or a file would run code when read.
    """
    from transformer_lens.loading.checkpoint.bin_file import read_records
    from transformer_lens.loading.sources.hub import download_file
    from transformer_lens.loading.weights import Weights

    path = download_file(repo_name, file_name, None if subfolder in (".", "") else subfolder, cache_dir, **kwargs)
    if force_is_torch or file_name.endswith(".pth"):
        # By our own reader: torch.load runs code in a file on some of the releases that this runs on.
        return Weights(read_records(path, "read")).state_dict()
    if file_name.endswith(".json"):
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    return str(path)


__getattr__ = refusing(__name__)
