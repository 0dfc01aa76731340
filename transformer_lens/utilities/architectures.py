"""Facts about classes of transformers, under upstream's names."""

from transformer_lens.utilities.left_out import refusing

POST_NORM_ARCHITECTURES = {"Olmo2ForCausalLM", "Olmo3ForCausalLM"}
"""Classes whose norms stand behind attention and MLP, so that nothing can be folded."""

__getattr__ = refusing(__name__)
