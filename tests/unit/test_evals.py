"""Evaluations are averages over what they say, of models that know the answer, and of those that do not."""

import sys
import types

import pytest
import torch

from tests.unit.small_transformers import make_model, make_tokenizer, make_tokens
from transformer_lens import evals


def make(**changes):
    return make_model(tokenizer=make_tokenizer(), **changes)


class Knowing:
    """Predicts, at each position, what a function of the tokens before says."""

    def __init__(self, predict, tokenizer):
        self.predict, self.tokenizer = predict, tokenizer

    def __call__(self, tokens, return_type):
        logits = torch.zeros(*tokens.shape, 29)
        for row, values in enumerate(tokens.tolist()):
            for pos in range(len(values)):
                logits[row, pos, self.predict(values[: pos + 1])] = 10.0
        return logits


def test_sanity_check():
    loss = evals.sanity_check(make(n_ctx=80))
    assert loss.shape == () and loss > 0


def test_evaluate_on_dataset():
    model = make()
    batches = [{"tokens": make_tokens(batch=3, seed=seed)} for seed in range(4)]
    losses = [model(batch["tokens"], return_type="loss").item() for batch in batches]
    assert evals.evaluate_on_dataset(model, batches) == pytest.approx(sum(losses) / 4)
    assert evals.evaluate_on_dataset(model, batches, truncate=2, device="cpu") == pytest.approx(sum(losses[:2]) / 2)
    with pytest.raises(ValueError, match="no batch"):
        evals.evaluate_on_dataset(model, [])


def test_evaluate(monkeypatch, capsys):
    model = make()
    batch = {"tokens": make_tokens()}
    loss = model(batch["tokens"], return_type="loss").item()
    asked = []

    def loader(tokenizer, batch_size):
        asked.append((tokenizer, batch_size))
        return [batch]

    monkeypatch.setattr(evals, "DATASET_LOADERS", [loader] * 4)
    assert evals.evaluate(model, batch_size=5) == pytest.approx({f"{n}_loss": loss for n in evals.DATASET_NAMES})
    assert asked == [(model.tokenizer, 5)] * 4 and "pile: " in capsys.readouterr().out


def test_induction_loss_is_of_the_second_half():
    model = make(n_ctx=40)
    seen = {}
    model.embed.register_forward_pre_hook(lambda module, args: seen.update(tokens=args[0]))
    loss = evals.induction_loss(model, batch_size=3, subseq_len=12)
    tokens = seen["tokens"]
    assert tokens.shape == (3, 24) and (tokens[:, 0] == 1).all() and torch.equal(tokens[:, 1:12], tokens[:, 13:])
    expected = model(tokens, return_type="loss", loss_per_token=True)[:, 13:].mean()
    torch.testing.assert_close(loss, expected.detach())
    evals.induction_loss(model, batch_size=3, subseq_len=12, prepend_bos=False)
    assert torch.equal(seen["tokens"][:, :12], seen["tokens"][:, 12:])


def sentences(tokenizer, **changes):
    settings = {
        "templates": ["[A] [B] x [OBJECT] [B] y [A]"],
        "names": ["a", "b", "c"],
        "nouns": {"OBJECT": ["p", "q"]},
    }
    return evals.IOIDataset(tokenizer, **{**settings, "num_samples": 10, "seed": 0, **changes})


def test_indirect_objects():
    tokenizer = make_tokenizer()
    dataset = sentences(tokenizer)
    assert len(dataset) == 10
    for row in dataset:
        io, s = row["IO"].item(), row["S"].item()
        prompt = row["prompt"].tolist()
        assert io != s and prompt[0] == 1 and prompt[1:3] == [io, s] and prompt[5] == s and prompt[-1] == io
    assert [row["prompt"].tolist() for row in sentences(tokenizer)] == [row["prompt"].tolist() for row in dataset]
    assert sentences(tokenizer, prepend_bos=False)[0]["prompt"].tolist() == dataset[0]["prompt"].tolist()[1:]
    pairs = sentences(tokenizer, symmetric=True, num_samples=5)
    assert len(pairs) == 5 and pairs.samples[0]["IO"] == pairs.samples[1]["S"]
    assert "[" not in evals.IOIDataset(tokenizer, num_samples=1).samples[0]["text"]


@pytest.mark.parametrize("place, expected", [(1, 1.0), (2, 0.0)], ids=["knows", "does not"])
def test_ioi(place, expected):
    tokenizer = make_tokenizer()
    # Of different lengths, so that a batch is padded.
    templates = ["[A] [B] x [OBJECT] [B] y [A]", "[A] [B] x x x [OBJECT] [B] y [A]"]
    model = Knowing(lambda values: values[place] if len(values) > place else 0, tokenizer)
    result = evals.ioi_eval(model, sentences(tokenizer, templates=templates), batch_size=3)
    assert result["Accuracy"] == expected
    assert result["Logit Difference"] == pytest.approx(10.0 if expected else -10.0)
    assert set(evals.ioi_eval(model, num_samples=3)) == {"Logit Difference", "Accuracy"}


class Texts:
    """As much of a dataset as tokenizing needs."""

    def __init__(self, columns):
        self.columns = columns

    def select_columns(self, names):
        return Texts({name: self.columns[name] for name in names})

    def map(self, rows, batched, num_proc, remove_columns):
        return Texts(rows(self.columns))

    def set_format(self, type, columns):
        assert type == "torch" and columns == ["tokens"]

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index):
        return {name: values[index] for name, values in self.columns.items()}


@pytest.mark.parametrize("name", evals.DATASET_NAMES)
def test_loaders_make_batches_of_tokens(name, monkeypatch):
    texts = Texts({"text": ["a b " * 1000] * 3, "content": ["c d " * 1000] * 3, "other": [0] * 3})
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=lambda *args, **kwargs: texts))
    loader = evals.DATASET_LOADERS[evals.DATASET_NAMES.index(name)](make_tokenizer(), batch_size=2)
    batches = [batch["tokens"] for batch in loader]
    assert [batch.shape for batch in batches] == [(2, 1024)] * 2
    words = {6, 7} if name == "code" else {4, 5}
    assert set(torch.cat(batches).flatten().tolist()) == {1, 2} | words


@pytest.fixture
def no_datasets(monkeypatch):
    """Stands for the package ``datasets``: three questions a subject, whose answers are B, C, B."""
    rows = [{"question": "a b", "choices": list("cdef"), "answer": answer} for answer in (1, 2, 1)]
    fake = types.SimpleNamespace(load_dataset=lambda name, subject, split: rows)
    monkeypatch.setitem(sys.modules, "datasets", fake)


def test_mmlu(no_datasets):
    letters = types.SimpleNamespace(encode=lambda text, add_special_tokens: [10 + "ABCD".index(text.strip())])
    prompts = []

    def model(prompt, return_type):
        prompts.append(prompt)
        return torch.nn.functional.one_hot(torch.full((1, 4), 11), 29).float()

    result = evals.mmlu_eval(model, letters, subjects=["virology", "anatomy"], num_samples=2)
    assert result["num_correct"] == 2 and result["num_total"] == 4 and result["accuracy"] == 0.5
    assert result["subject_scores"] == {"virology": 0.5, "anatomy": 0.5}
    assert prompts[0].splitlines() == ["a b", "A. c", "B. d", "C. e", "D. f", "Answer:"]
    assert len(evals.make_mmlu_data_loader("virology")) == 3 and len(evals.make_mmlu_data_loader()) == 3 * 57
    with pytest.raises(ValueError, match="no subject astrology"):
        evals.make_mmlu_data_loader("astrology")
