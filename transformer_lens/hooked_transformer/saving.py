"""A model as a folder of its own, and on the hub."""

from __future__ import annotations

import tempfile
from pathlib import Path

from transformer_lens import loading
from transformer_lens.hooked_transformer.parts import ModelParts


class SavingMixin(ModelParts):
    """Writes what ``from_pretrained`` reads back, bit for bit."""

    load_report: loading.LoadReport | None = None

    def save_pretrained(self, save_directory: str | Path, *, max_shard_bytes: int = 5 << 30) -> None:
        """Writes the model to a folder, as it is: config, tensors, tokenizer, and the report of its load.

        ``from_pretrained(save_directory)`` maps it again: processed weights stay processed and are not processed a
        second time unless a flag is named, and the dtype is the one saved unless ``dtype=`` is named.

        Args:
            save_directory: Made where it is not there; a model that was saved there before is replaced.
            max_shard_bytes: Bytes of tensors in one file at most, unless one tensor alone is larger.

        Raises:
            QuantizedTensorError: Weights are packed.
            FileExistsError: The folder holds a checkpoint that was not saved here.
        """
        loading.save_model(
            dict(self.named_parameters(remove_duplicate=False)),
            self.cfg,
            save_directory,
            tokenizer=self.tokenizer,
            stop_tokens=self.stop_tokens,
            report=self.load_report,
            max_shard_bytes=max_shard_bytes,
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload a HookedTransformer",
    ) -> str:
        """Saves the model to a temporary folder, uploads that, and returns the commit's address.

        Args:
            repo_id: Owner and name; a repository that is not there is made.
            private: Whether a new repository is private; None takes the hub's default.
            token: Access token with the right to write; None takes the one that is logged in.
            revision: Branch to commit to; None takes the main one.
            commit_message: Of the commit.

        Raises:
            LoadingError: This process is offline.
            QuantizedTensorError: Weights are packed.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return loading.upload(
                Path(folder), repo_id, private=private, token=token, revision=revision, message=commit_message
            )
