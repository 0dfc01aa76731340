"""Upstream's import path for the functions, and what only it has."""

import pytest
import torch

from transformer_lens import utilities, utils

UPSTREAM = """
ACTIVATION_FN_DICT CACHE_DIR FactoredMatrix LocallyOverridenDefaults Slice SliceInput USE_DEFAULT_VALUE
calc_fan_in_and_fan_out check_structure clear_huggingface_cache composition_scores download_file_from_hf gelu_fast
filter_dict_by_prefix gelu_new gelu_pytorch_tanh get_act_name get_attention_mask get_corner get_cumsum_along_dim
get_dataset get_device get_input_with_manually_prepended_bos get_nested_attr get_offset_position_ids
get_tokenizer_with_bos get_tokens_with_bos_removed init_kaiming_normal_ init_kaiming_uniform_ init_xavier_normal_
init_xavier_uniform_ is_library_available is_lower_triangular is_square keep_single_column lm_accuracy
lm_cross_entropy_loss override_or_use_default_value print_gpu_mem remove_batch_dim repeat_along_head_dimension
sample_logits select_compatible_kwargs set_nested_attr solu test_prompt to_numpy tokenize_and_concatenate transpose
warn_if_mps
""".split()


def test_holds_every_name_of_both_upstream_lines():
    assert set(UPSTREAM) <= set(vars(utils)) and set(UPSTREAM) <= set(utils.__all__)
    assert "slice" not in vars(utils)


def test_holds_the_same_objects():
    assert utils.get_act_name is utilities.get_act_name
    assert utils.ACTIVATION_FN_DICT is utilities.SUPPORTED_ACTIVATIONS


def test_holds_the_order_of_arguments_of_transformer_lens_2():
    assert utils.get_input_with_manually_prepended_bos("<b>", ["x"]) == ["<b>x"]
    assert utils.get_input_with_manually_prepended_bos(bos_token="<b>", input="x") == "<b>x"
    with pytest.raises(TypeError, match="one of them"):
        utils.get_input_with_manually_prepended_bos(input="x")
    logits, tokens = torch.tensor([[0.0, 9.0, 8.0]]), torch.tensor([[1, 1]])
    assert utils.sample_logits(logits, 1, None, 1.0, 1.0, tokens).tolist() == [2]
    assert utils.sample_logits(logits, temperature=0.0, tokens=tokens, repetition_penalty=2.0).tolist() == [2]
