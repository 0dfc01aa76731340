"""Rough evaluations: loss on common datasets, induction, indirect objects, and MMLU."""

import random
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from transformer_lens import utilities as utils
from transformer_lens.utilities.devices import warn_if_mps

__all__ = [
    "DATASET_LOADERS",
    "DATASET_NAMES",
    "IOIDataset",
    "MMLU_ANSWER_LETTERS",
    "MMLU_SUBJECTS",
    "evaluate",
    "evaluate_on_dataset",
    "induction_loss",
    "ioi_eval",
    "make_code_data_loader",
    "make_mmlu_data_loader",
    "make_owt_data_loader",
    "make_pile_data_loader",
    "make_wiki_data_loader",
    "mmlu_eval",
    "sanity_check",
    "utils",
    "warn_if_mps",
]

# Olah et al., "Zoom In: An Introduction to Circuits", Distill, 2020 (CC BY 4.0), the first sentences.
ZOOM_IN = (
    "Many important transition points in the history of science have been moments when science 'zoomed in.' At these "
    "points, we develop a visualization or tool that allows us to see the world in a new level of detail, and a new "
    "field of science develops to study the world through this lens."
)


def sanity_check(model: Any) -> Float[Tensor, ""]:
    """Computes the loss, in nats, on a sentence of English: above 7 something is wrong, below 5 probably nothing is.

    Args:
        model: A `HookedTransformer` with a tokenizer.
    """
    loss: Tensor = model(ZOOM_IN, return_type="loss")
    return loss


def _token_loader(dataset: Any, tokenizer: Any, batch_size: int, column: str = "text") -> DataLoader[Any]:
    tokens = utils.tokenize_and_concatenate(dataset, tokenizer, column_name=column)
    return DataLoader(tokens, batch_size=batch_size, shuffle=True, drop_last=True)


def make_wiki_data_loader(tokenizer: Any, batch_size: int = 8) -> DataLoader[Any]:
    """Loads Wikipedia articles: WikiText-2, its training split, in rows of 1024 tokens."""
    from datasets import load_dataset

    return _token_loader(load_dataset("Salesforce/wikitext", "wikitext-2-raw-v1", split="train"), tokenizer, batch_size)


def make_owt_data_loader(tokenizer: Any, batch_size: int = 8) -> DataLoader[Any]:
    """Loads web pages: 10 000 texts of OpenWebText, the open copy of what GPT-2 was trained on."""
    return _token_loader(utils.get_dataset("owt"), tokenizer, batch_size)


def make_pile_data_loader(tokenizer: Any, batch_size: int = 8) -> DataLoader[Any]:
    """Loads 10 000 texts of the Pile, of many kinds."""
    return _token_loader(utils.get_dataset("pile"), tokenizer, batch_size)


def make_code_data_loader(tokenizer: Any, batch_size: int = 8) -> DataLoader[Any]:
    """Loads Python code: the validation split of CodeParrot. Losses are lower on code than on prose."""
    from datasets import load_dataset

    dataset = load_dataset("codeparrot/codeparrot-valid-v2-near-dedup", split="train")
    return _token_loader(dataset, tokenizer, batch_size, column="content")


DATASET_NAMES = ["wiki", "owt", "pile", "code"]
DATASET_LOADERS: list[Callable[..., DataLoader[Any]]] = [
    make_wiki_data_loader,
    make_owt_data_loader,
    make_pile_data_loader,
    make_code_data_loader,
]


def evaluate_on_dataset(
    model: Any, data_loader: Any, truncate: int = 100, device: str | torch.device | None = None
) -> float:
    """Averages the loss over batches.

    Args:
        model: A `HookedTransformer`.
        data_loader: Yields dicts with "tokens", ``[batch pos]``.
        truncate: How many batches to look at, at most.
        device: Where the tokens go; None leaves them to the model, which takes them to where it is.

    Returns:
        The loss in nats a token.

    Raises:
        ValueError: There is not one batch.
    """
    losses: list[float] = []
    with torch.no_grad():
        for batch in tqdm(data_loader):
            if len(losses) >= truncate:
                break
            tokens = batch["tokens"]
            losses.append(model(tokens if device is None else tokens.to(device), return_type="loss").mean().item())
    if not losses:
        raise ValueError("there is no batch to average over: the dataset is smaller than a batch, or truncate is 0")
    return sum(losses) / len(losses)


def induction_loss(
    model: Any,
    tokenizer: Any = None,
    batch_size: int = 4,
    subseq_len: int = 384,
    prepend_bos: bool | None = None,
    device: str | torch.device | None = None,
) -> Float[Tensor, ""]:
    """Computes the loss on the second half of random tokens that are repeated; induction heads make it small.

    Args:
        model: A `HookedTransformer`.
        tokenizer: Says what BOS is; None takes the model's.
        batch_size: Rows.
        subseq_len: Tokens of each half.
        prepend_bos: The first token is BOS; None takes ``cfg.default_prepend_bos``.
        device: Where the tokens are made; None means where the model is.

    Returns:
        The loss in nats a token, without the second half's first two tokens: nothing predicts the first, and the second
        follows a token that, where BOS took its place, did not occur before.
    """
    tokenizer = model.tokenizer if tokenizer is None else tokenizer
    # The first and last tokens of vocabularies are often special or rare.
    last = min(20_000, model.cfg.d_vocab)
    half = torch.randint(min(100, last - 1), last, (batch_size, subseq_len), device=device or model.cfg.device)
    tokens = torch.cat([half, half], dim=1)
    if utils.override_or_use_default_value(model.cfg.default_prepend_bos, override=prepend_bos):
        tokens[:, 0] = tokenizer.bos_token_id
    with torch.no_grad():
        loss = model(tokens, return_type="loss", loss_per_token=True, attention_mask=torch.ones_like(tokens))
    second_half: Tensor = loss[:, subseq_len + 1 :]
    return second_half.mean()


def evaluate(model: Any, truncate: int = 100, batch_size: int = 8, tokenizer: Any = None) -> dict[str, float]:
    """Averages the loss over each of `DATASET_NAMES`, prints it, and returns it as ``{"wiki_loss": …}``.

    Args:
        model: A `HookedTransformer`.
        truncate: How many batches of each dataset to look at.
        batch_size: Rows a batch.
        tokenizer: None takes the model's.
    """
    tokenizer = model.tokenizer if tokenizer is None else tokenizer
    losses = {}
    for name, make_loader in zip(DATASET_NAMES, DATASET_LOADERS, strict=True):
        loss = evaluate_on_dataset(model, make_loader(tokenizer=tokenizer, batch_size=batch_size), truncate)
        print(f"{name}: {loss:.4f}")
        losses[f"{name}_loss"] = loss
    return losses


class IOIDataset(Dataset[dict[str, Tensor]]):
    """Sentences in which one of two names is the indirect object ("Interpretability in the Wild", Wang et al. 2022).

    A row holds "prompt", the tokens of the whole sentence, which ends with the indirect object, and the tokens of both
    names with a space before them: "IO", the indirect object, and "S", the subject.
    """

    def __init__(
        self,
        tokenizer: Any,
        templates: list[str] | None = None,
        names: list[str] | None = None,
        nouns: dict[str, list[str]] | None = None,
        num_samples: int = 1000,
        symmetric: bool = False,
        prepend_bos: bool = True,
        seed: int | None = None,
    ) -> None:
        """Draws the sentences.

        Args:
            tokenizer: A tokenizer.
            templates: Sentences with ``[A]``, the indirect object, at their end, ``[B]``, the subject, and the keys
                of `nouns` in brackets.
            names: Names for A and B.
            nouns: What may stand for each key.
            num_samples: How many sentences.
            symmetric: Each sentence comes twice, with the names exchanged the second time.
            prepend_bos: Prompts begin with BOS.
            seed: Makes the draw repeatable; None draws from the global generator.
        """
        self.tokenizer = tokenizer
        self.prepend_bos = prepend_bos
        self.templates = self.get_default_templates() if templates is None else templates
        self.names = self.get_default_names() if names is None else names
        self.nouns = self.get_default_nouns() if nouns is None else nouns
        self._random: Any = random if seed is None else random.Random(seed)
        self.samples: list[dict[str, str]] = []
        while len(self.samples) < num_samples:
            self.samples += self.get_sample(symmetric)
        del self.samples[num_samples:]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, idx: int) -> dict[str, Tensor]:
        sample = self.samples[idx]
        prompt, io, s = (self._encoded(text) for text in (sample["text"], " " + sample["IO"], " " + sample["S"]))
        if self.prepend_bos:
            prompt = torch.cat([torch.tensor([self.tokenizer.bos_token_id]), prompt])
        return {"prompt": prompt, "IO": io, "S": s}

    def _encoded(self, text: str) -> Tensor:
        return torch.tensor(self.tokenizer.encode(text, add_special_tokens=False), dtype=torch.long)

    def get_sample(self, symmetric: bool = False) -> list[dict[str, str]]:
        """Draws a sentence, or a pair of them: dicts of "text", "IO" and "S"."""
        template = self._random.choice(self.templates)
        for key, words in self.nouns.items():
            template = template.replace(f"[{key}]", self._random.choice(words))
        first, second = self._random.sample(self.names, 2)
        pairs = [(first, second), (second, first)] if symmetric else [(first, second)]
        return [{"text": template.replace("[A]", io).replace("[B]", s), "IO": io, "S": s} for io, s in pairs]

    @staticmethod
    def get_default_names() -> list[str]:
        """Returns names that are one token in most vocabularies."""
        return ["Mary", "John", "Anna", "James", "Sarah", "David", "Laura", "Peter"]

    @staticmethod
    def get_default_templates() -> list[str]:
        """Returns sentences with one subject and one indirect object."""
        return [
            "When [A] and [B] went to the [LOCATION], [B] gave the [OBJECT] to [A]",
            "After [A] and [B] came back from the [LOCATION], [B] handed a [OBJECT] to [A]",
            "[A] and [B] were at the [LOCATION]. [B] decided to give a [OBJECT] to [A]",
        ]

    @staticmethod
    def get_default_nouns() -> dict[str, list[str]]:
        """Returns places and things."""
        return {"LOCATION": ["shop", "park", "station", "school"], "OBJECT": ["book", "drink", "ring", "letter"]}


def _collate(samples: list[dict[str, Tensor]]) -> dict[str, Any]:
    prompts = [sample["prompt"] for sample in samples]
    return {
        "prompt": pad_sequence(prompts, batch_first=True),
        "length": [len(prompt) for prompt in prompts],
        "IO": [sample["IO"] for sample in samples],
        "S": [sample["S"] for sample in samples],
    }


def ioi_eval(
    model: Any,
    dataset: Any = None,
    batch_size: int = 8,
    num_samples: int = 1000,
    tokenizer: Any = None,
    symmetric: bool = False,
) -> dict[str, float]:
    """Measures how much a model prefers the indirect object to the subject, where their tokens first differ.

    Args:
        model: A `HookedTransformer`.
        dataset: Rows like those of `IOIDataset`; None makes one.
        batch_size: Rows a batch.
        num_samples: Sentences, if one is made.
        tokenizer: None takes the model's.
        symmetric: Sentences come in pairs, if one is made.

    Returns:
        "Logit Difference", the mean, and "Accuracy", the share of sentences with a difference above 0.
    """
    if dataset is None:
        tokenizer = model.tokenizer if tokenizer is None else tokenizer
        dataset = IOIDataset(tokenizer, num_samples=num_samples, symmetric=symmetric)
    differences: list[float] = []
    for batch in DataLoader(dataset, batch_size=batch_size, collate_fn=_collate):
        with torch.no_grad():
            logits = model(batch["prompt"], return_type="logits")
        for row, (length, io, s) in enumerate(zip(batch["length"], batch["IO"], batch["S"], strict=True)):
            shared = min(len(io), len(s))
            where = int((io[:shared] != s[:shared]).int().argmax())
            predicted = logits[row, length - len(io) + where - 1]
            differences.append((predicted[io[where]] - predicted[s[where]]).item())
    return {
        "Logit Difference": sum(differences) / len(differences),
        "Accuracy": sum(difference > 0 for difference in differences) / len(differences),
    }


MMLU_ANSWER_LETTERS = ["A", "B", "C", "D"]
MMLU_SUBJECTS = """
abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry
college_computer_science college_mathematics college_medicine college_physics computer_security conceptual_physics
econometrics electrical_engineering elementary_mathematics formal_logic global_facts high_school_biology
high_school_chemistry high_school_computer_science high_school_european_history high_school_geography
high_school_government_and_politics high_school_macroeconomics high_school_mathematics high_school_microeconomics
high_school_physics high_school_psychology high_school_statistics high_school_us_history high_school_world_history
human_aging human_sexuality international_law jurisprudence logical_fallacies machine_learning management marketing
medical_genetics miscellaneous moral_disputes moral_scenarios nutrition philosophy prehistory professional_accounting
professional_law professional_medicine professional_psychology public_relations security_studies sociology
us_foreign_policy virology world_religions
""".split()


def make_mmlu_data_loader(
    subjects: str | list[str] | None = None, split: str = "test", num_samples: int | None = None
) -> list[dict[str, Any]]:
    """Loads questions of MMLU (Hendrycks et al. 2021), as dicts of "question", "choices", "answer" and "subject".

    Args:
        subjects: One or several of `MMLU_SUBJECTS`; None means all.
        split: "test", "validation" or "dev".
        num_samples: How many of each subject, at most.

    Raises:
        ValueError: There is no such subject.
    """
    chosen = MMLU_SUBJECTS if subjects is None else [subjects] if isinstance(subjects, str) else subjects
    unknown = [subject for subject in chosen if subject not in MMLU_SUBJECTS]
    if unknown:
        raise ValueError(f"MMLU has no subject {', '.join(unknown)}; evals.MMLU_SUBJECTS lists those it has")
    from datasets import load_dataset

    questions = []
    for subject in chosen:
        rows = load_dataset("cais/mmlu", subject, split=split)
        for index in range(len(rows) if num_samples is None else min(num_samples, len(rows))):
            row = rows[index]
            questions.append({key: row[key] for key in ("question", "choices", "answer")} | {"subject": subject})
    return questions


def mmlu_eval(
    model: Any,
    tokenizer: Any = None,
    subjects: str | list[str] | None = None,
    split: str = "test",
    num_samples: int | None = None,
) -> dict[str, Any]:
    """Answers MMLU's questions with the most probable of the letters A to D, without examples.

    Args:
        model: A `HookedTransformer`.
        tokenizer: None takes the model's.
        subjects: One or several of `MMLU_SUBJECTS`; None means all.
        split: "test", "validation" or "dev".
        num_samples: How many of each subject, at most.

    Returns:
        "accuracy", from 0 to 1; "num_correct"; "num_total"; and "subject_scores", the accuracy of each subject.
    """
    tokenizer = model.tokenizer if tokenizer is None else tokenizer
    letters = [tokenizer.encode(f" {letter}", add_special_tokens=False)[-1] for letter in MMLU_ANSWER_LETTERS]
    correct: dict[str, list[bool]] = {}
    for item in tqdm(make_mmlu_data_loader(subjects, split, num_samples)):
        choices = [f"{letter}. {text}" for letter, text in zip(MMLU_ANSWER_LETTERS, item["choices"], strict=True)]
        prompt = "\n".join([item["question"], *choices, "Answer:"])
        with torch.no_grad():
            logits = model(prompt, return_type="logits")[0, -1]
        correct.setdefault(item["subject"], []).append(int(logits[letters].argmax()) == item["answer"])
    right, total = sum(map(sum, correct.values())), sum(map(len, correct.values()))
    return {
        "accuracy": right / total if total else 0.0,
        "num_correct": right,
        "num_total": total,
        "subject_scores": {subject: sum(answers) / len(answers) for subject, answers in correct.items()},
    }
