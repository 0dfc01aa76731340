"""Heads made to attend as each kind does score one."""

import pytest
import torch

from tests.unit.small_transformers import make_model, make_tokenizer
from transformer_lens import head_detector
from transformer_lens.head_detector import compute_head_attention_similarity_score, detect_head

TEXT = "a b c d a b c"
TOKENS = torch.tensor([[1, 4, 5, 6, 7, 4, 5, 6]])
NOTHING_LEFT_OUT = {"exclude_bos": False, "exclude_current_token": False, "error_measure": "mul"}


def make():
    return make_model(tokenizer=make_tokenizer(), default_prepend_bos=True)


def of_pairs(*pairs):
    pattern = torch.zeros(8, 8)
    for pair in pairs:
        pattern[pair] = 1.0
    return pattern


def test_patterns():
    assert torch.equal(make().to_tokens(TEXT), TOKENS)
    expected = {
        "previous_token_head": of_pairs(*((row, row - 1) for row in range(1, 8))),
        "duplicate_token_head": of_pairs((5, 1), (6, 2), (7, 3)),
        "induction_head": of_pairs((5, 2), (6, 3), (7, 4)),
    }
    for name, pattern in expected.items():
        assert torch.equal(getattr(head_detector, f"get_{name}_detection_pattern")(TOKENS), pattern)
    assert set(expected) == set(head_detector.HEAD_NAMES)


@pytest.mark.parametrize("name", head_detector.HEAD_NAMES)
def test_a_perfect_head_is_found(name):
    model = make()
    wanted = getattr(head_detector, f"get_{name}_detection_pattern")(TOKENS)

    def hook(pattern, hook):
        pattern[:, 4] = wanted
        return pattern

    model.add_hook("blocks.1.attn.hook_pattern", hook)
    scores = detect_head(model, TEXT, name)
    assert scores.shape == (3, 6) and scores[1, 4] == 1 and scores.flatten().topk(2).values[1] < 0.99
    by_difference = detect_head(model, TEXT, name, error_measure="abs")
    assert by_difference[1, 4] == 1 and by_difference.argmax() == 10
    torch.testing.assert_close(detect_head(model, TEXT, wanted), scores)


def test_which_heads_and_what_of_them():
    model = make()
    _, cache = model.run_with_cache(TEXT, remove_batch_dim=True)
    before = cache["pattern", 0].clone()
    name = "previous_token_head"
    everything = {"exclude_bos": True, "exclude_current_token": True}
    scores = detect_head(model, TEXT, name, cache=cache, **everything)
    assert torch.equal(cache["pattern", 0], before)
    torch.testing.assert_close(scores, detect_head(model, TEXT, name, **everything))
    some = detect_head(model, TEXT, name, [(0, 1), (2, 5), (0, 3)], **everything)
    chosen = torch.tensor([[0, 1, 0, 1, 0, 0], [0] * 6, [0, 0, 0, 0, 0, 1]]).bool()
    torch.testing.assert_close(some, torch.where(chosen, scores, torch.tensor(-1.0)))
    torch.testing.assert_close(some, detect_head(model, TEXT, name, {0: [1, 3], 2: [5]}, cache, **everything))
    other = "d c b b d"
    mean = (scores + detect_head(model, other, name, **everything)) / 2
    torch.testing.assert_close(detect_head(model, [TEXT, other], name, **everything), mean)


def test_scores():
    attention = torch.tensor([[1.0, 0, 0], [0.25, 0.75, 0], [0.5, 0.2, 0.3]])
    wanted = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])

    def score(**changes):
        return compute_head_attention_similarity_score(attention, wanted, **{**NOTHING_LEFT_OUT, **changes})

    assert score() == pytest.approx(0.45 / 3)
    assert score(exclude_bos=True) == pytest.approx(0.2 / 1.25)
    assert score(exclude_current_token=True) == pytest.approx(0.45 / 0.95)
    assert score(exclude_bos=True, exclude_current_token=True) == pytest.approx(1)
    assert score(error_measure="abs") == pytest.approx(1 - round((1 + 1.5 + 1.6) / 3, 3))
    assert score(error_measure="abs", exclude_bos=True) == pytest.approx(1 - round((0.75 + 0.8 + 0.3) / 3, 3))
    torch.testing.assert_close(attention.sum(-1), torch.ones(3))


def test_what_does_not_fit(capsys):
    model = make()
    with pytest.raises(AssertionError, match="8 tokens; its shape is"):
        detect_head(model, TEXT, torch.ones(7, 7).tril())
    with pytest.raises(AssertionError, match="lower triangular"):
        detect_head(model, TEXT, torch.ones(8, 8))
    with pytest.raises(AssertionError, match="two tokens"):
        detect_head(model, "", "induction_head")
    _, cache = model.run_with_cache(TEXT, remove_batch_dim=True)
    with pytest.raises(AssertionError, match="one sequence"):
        detect_head(model, [TEXT], "induction_head", cache=cache)
    head_detector.get_supported_heads()
    assert "induction_head" in capsys.readouterr().out
