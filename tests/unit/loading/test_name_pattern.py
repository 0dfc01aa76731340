"""Patterns of an adapter's config: they match what ``re`` matches, and always in a bounded number of steps."""

import re

import hypothesis.strategies as st
import pytest
from hypothesis import given

from transformer_lens.loading.checkpoint.name_pattern import Budget, NamePattern

ATOMS = ["a", "b", ".", r"\.", "[ab]", "[^a]", "[a-c1]", r"\d", r"\w", r"\S", "1", "_", "(a|b)", "(?:a.b)", "(|a)"]
COUNTS = ["", "", "*", "+", "?", "{2}", "{0,1}", "{1,}", "{,2}", "*?", "+?"]
PIECES = st.tuples(st.sampled_from(ATOMS), st.sampled_from(COUNTS)).map("".join)
ASSERTED = st.one_of(PIECES, st.sampled_from(["^", "$", r"\b", "|"]))
# Counts are not nested: `re`, which is asked as well, would not come back from some.
PATTERNS = st.lists(ASSERTED, max_size=6).map("".join)
NAMES = st.text("ab.1_", max_size=8)


@given(PATTERNS, NAMES)
@pytest.mark.parametrize("suffix", [False, True])
def test_it_matches_what_re_matches(suffix, pattern, name):
    found = NamePattern(pattern, suffix, Budget()).matches(name)
    # As peft calls it.
    expected = re.match(rf"(.*\.)?({pattern})$", name) if suffix else re.fullmatch(pattern, name)
    assert found == (expected is not None)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a*)*$", "(a+)+b", "(.*)*(.*)*(.*)*x", "(a|a)*" * 20, "(a|aa)+$", "(.*a){50}", r"(.*.*.*)*\d",
        "((a?){30}){30}", "(([a-z])+.)+[A-Z]([a-z])+$",
    ],
)  # fmt: skip
def test_what_never_returns_from_re_is_answered_or_refused(pattern):
    budget = Budget()
    try:
        assert not NamePattern(pattern, True, budget).matches("a" * 200 + "!")
    except ValueError as fact:
        assert "steps" in str(fact) or "states" in str(fact) or "repeats" in str(fact)
    # Each step is a few operations: far below a second.
    assert budget.left > -100_000


def test_the_budget_is_that_of_all_patterns_together():
    budget = Budget(left=2_000)
    patterns = [NamePattern(f"(a|b)*{number}", True, budget) for number in range(100)]
    with pytest.raises(ValueError, match="steps"):
        [pattern.matches("ab" * 20) for pattern in patterns]


@pytest.mark.parametrize(
    "pattern",
    [
        "(a", "a)", "[a", "*a", "a**", "a{2}{3}", "a{x}", "{2}", r"\1", "(a)\\1", "(?=a)", "(?<!a)b", "(?i)a",
        "(?P<n>a)", r"\Aa", r"\Z", "a\\", "^*", r"\b+", "a++", "a{3,2}", "((((" * 100, "a" * 3000,
        "((){999}){999}",        "(a{1000}){1000}", "[[:alpha:]]", "[a--b]", r"\x41", r"\u0041",
    ],
)  # fmt: skip
def test_what_is_not_followed_is_refused_when_it_is_read(pattern):
    with pytest.raises(ValueError):
        NamePattern(pattern, True, Budget()).matches("a")


@given(st.text(max_size=40), st.text(max_size=20))
def test_any_text_is_a_pattern_or_refused(pattern, name):
    try:
        NamePattern(pattern, True, Budget()).matches(name)
    except ValueError:
        pass


def test_patterns_that_training_tools_write():
    unsloth = (
        r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?(?:k_proj|v_proj|q_proj)"
        r".*?)|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\.(?:(?:k_proj|"
        r"v_proj|q_proj)))"
    )
    pattern = NamePattern(unsloth, False, Budget())
    for layer in range(80):
        assert pattern.matches(f"model.layers.{layer}.self_attn.q_proj")
        assert not pattern.matches(f"model.layers.{layer}.self_attn.o_proj")
        assert pattern.matches(f"language_model.layers.{layer}.mlp.v_proj.x")
