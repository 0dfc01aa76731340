"""A first look at what a model predicts."""

from typing import Any

import torch


def test_prompt(
    prompt: str,
    answer: str | list[str],
    model: Any,
    prepend_space_to_answer: bool = True,
    print_details: bool = True,
    prepend_bos: bool | None = None,
    top_k: int = 10,
) -> None:
    """Prints how well a model predicts an answer after a prompt: each answer token's rank, logit and probability.

    Args:
        prompt: The text before.
        answer: The text that should follow. If several, their first tokens are ranked against each other at the same
            position, and the longest's length decides how many positions are looked at.
        model: A `HookedTransformer` with a tokenizer.
        prepend_space_to_answer: Put a space before an answer that has none.
        print_details: Print the tokens and the most probable predictions too, not only the ranks.
        prepend_bos: The prompt begins with BOS; None takes the model's setting.
        top_k: How many of the most probable tokens to print.
    """
    answers = [answer] if isinstance(answer, str) else answer
    if prepend_space_to_answer:
        answers = [text if text.startswith(" ") else " " + text for text in answers]
    prompt_tokens = model.to_tokens(prompt, prepend_bos=prepend_bos)
    answer_tokens = [model.to_tokens(text, prepend_bos=False)[0] for text in answers]
    longest = max(answer_tokens, key=len)
    if print_details:
        print("Tokenized prompt:", model.to_str_tokens(prompt, prepend_bos=prepend_bos))
        print("Tokenized answers:", [model.to_str_tokens(text, prepend_bos=False) for text in answers])
    with torch.no_grad():
        logits = model(torch.cat([prompt_tokens, longest[None].to(prompt_tokens)], dim=1))[0]
    ranks: list[list[tuple[str, int]]] = []
    for index in range(len(longest)):
        at_position = logits[prompt_tokens.shape[1] + index - 1]
        probs = at_position.softmax(dim=-1)
        candidates = [tokens[index] for tokens in answer_tokens if index < len(tokens)]
        ranks.append([])
        for token in candidates:
            rank = int((at_position > at_position[token]).sum())
            ranks[-1].append((model.to_string(token), rank))
            if print_details:
                print(f"Rank: {rank: <8} {_scored(model, token, at_position, probs)}")
        if print_details:
            for place, token in enumerate(at_position.topk(min(top_k, len(at_position))).indices):
                print(f"Top {place}th token. {_scored(model, token, at_position, probs)}")
    print("Ranks of the answer tokens:", ranks if len(answers) > 1 else [found[0] for found in ranks])


def _scored(model: Any, token: torch.Tensor, logits: torch.Tensor, probs: torch.Tensor) -> str:
    return f"Logit: {logits[token].item():5.2f} Prob: {probs[token].item():6.2%} Token: |{model.to_string(token)}|"


test_prompt.__test__ = False  # type: ignore[attr-defined]  # not one of pytest's
