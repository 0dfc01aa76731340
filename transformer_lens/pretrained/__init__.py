"""Upstream's place of the weight converters; the tables live in ``transformer_lens.loading.architectures``."""
