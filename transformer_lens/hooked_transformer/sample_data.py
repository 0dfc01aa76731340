"""A few thousand texts of the kind that the model was trained on."""

from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from transformer_lens.hooked_transformer.input_error import InputError
from transformer_lens.hooked_transformer.tokens import TokensMixin
from transformer_lens.utilities.hf_utils import get_dataset

_DATASET_OF_ARCHITECTURE = {
    "neel": "c4_code",
    "neel-solu-old": "pile",
    "GPT2LMHeadModel": "openwebtext",
    "GPTNeoForCausalLM": "pile",
    "GPTNeoXForCausalLM": "pile",
    "GPTJForCausalLM": "pile",
    "OPTForCausalLM": "pile",
}


class SampleDataMixin(TokensMixin):
    """Samples text from the training distribution."""

    def load_sample_training_dataset(self, **kwargs: Any) -> Any:
        """Downloads a small sample of the training data, where it is known, and keeps it as ``model.dataset``.

        Args:
            **kwargs: Arguments of ``datasets.load_dataset``.

        Returns:
            The dataset, 10,000 to 20,000 rows of text.

        Raises:
            InputError: If there is no sample for ``cfg.original_architecture``.
        """
        architecture = self.cfg.original_architecture
        if architecture not in _DATASET_OF_ARCHITECTURE:
            raise InputError(f"No sample of training data is known for a model of architecture {architecture!r}.")
        self.dataset = get_dataset(_DATASET_OF_ARCHITECTURE[architecture], **kwargs)
        return self.dataset

    def sample_datapoint(
        self, tokenize: bool = False, prepend_bos: bool | None = None, padding_side: str | None = None
    ) -> str | Int[Tensor, "1 pos"]:
        """Draws one text of the sample of training data, which is downloaded first if need be.

        Args:
            tokenize: Whether it comes as tokens, cut to ``cfg.n_ctx``.
            prepend_bos: Whether tokens get a BOS token in front; None takes ``cfg.default_prepend_bos``.
            padding_side: "left" or "right"; None takes the tokenizer's.

        Returns:
            The text, or its tokens.
        """
        if self.dataset is None:
            self.load_sample_training_dataset()
        assert self.dataset is not None
        text = self.dataset[int(np.random.randint(0, len(self.dataset)))]["text"]
        return self.to_tokens(text, prepend_bos, padding_side) if tokenize else text
