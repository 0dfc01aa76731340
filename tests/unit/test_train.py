"""A small model learns a small dataset, in the way that it is told to."""

import pytest
import torch
from torch.utils.data import Dataset

from tests.unit.small_transformers import make_model, make_tokens
from transformer_lens.train import HookedTransformerTrainConfig, train


class Rows(Dataset):
    def __init__(self, n=12):
        self.tokens = make_tokens(batch=n)

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        return {"tokens": self.tokens[index]}


def trained(n=12, **changes):
    model = make_model(std=0.2)
    settings = {"num_epochs": 1, "batch_size": 4, "device": "cpu", "print_every": None, **changes}
    assert train(model, HookedTransformerTrainConfig(**settings), Rows(n)) is model
    return model


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer_name": "AdamW", "weight_decay": 0.01, "warmup_steps": 3},
        {"optimizer_name": "SGD", "lr": 0.3, "momentum": 0.5, "max_grad_norm": 1.0},
    ],
    ids=["adam", "adamw", "sgd"],
)
def test_the_loss_falls(changes):
    tokens = Rows().tokens
    before = make_model(std=0.2)(tokens, return_type="loss")
    model = trained(num_epochs=20, **changes)
    assert model.training
    assert model(tokens, return_type="loss") < before - 0.3


def test_steps_are_those_of_the_optimizer():
    """One batch of everything: one step of plain gradient descent."""
    tokens = Rows(4).tokens
    model = make_model(std=0.2)
    model(tokens, return_type="loss").backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    moved = weights(trained(4, optimizer_name="SGD", lr=0.1)) - weights(model)
    torch.testing.assert_close(moved, -0.1 * gradient, atol=1e-5, rtol=1e-3)
    clipped = weights(trained(4, optimizer_name="SGD", lr=1.0, max_grad_norm=0.5)) - weights(model)
    torch.testing.assert_close(clipped.norm(), torch.tensor(0.5), atol=1e-4, rtol=1e-4)
    warming = weights(trained(4, optimizer_name="SGD", lr=0.1, warmup_steps=5))
    torch.testing.assert_close(warming, weights(model))
    decayed = weights(trained(4, optimizer_name="SGD", lr=0.1, weight_decay=0.5)) - weights(model)
    torch.testing.assert_close(decayed, -0.1 * (gradient + 0.5 * weights(model)), atol=1e-5, rtol=1e-3)


def test_seeds_steps_and_what_is_printed(capsys):
    assert torch.equal(weights(trained(seed=3)), weights(trained(seed=3)))
    assert not torch.equal(weights(trained(seed=3)), weights(trained(seed=4)))
    three = weights(trained(num_epochs=1))
    assert torch.equal(weights(trained(num_epochs=9, max_steps=3)), three)
    assert not torch.equal(weights(trained(num_epochs=2)), three)
    capsys.readouterr()
    trained(num_epochs=2, print_every=2)
    lines = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert lines == ["step 2", "step 4", "step 6"]


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")  # torch 2.0 and 2.1 warn of what they do themselves
def test_checkpoints(tmp_path):
    model = trained(save_every=3, save_dir=str(tmp_path / "new"))
    assert [path.name for path in tmp_path.rglob("*.pt")] == ["model_3.pt"]
    again = make_model(std=0.4)
    again.load_state_dict(torch.load(tmp_path / "new" / "model_3.pt", weights_only=True))
    assert torch.equal(weights(again), weights(model))


def test_what_cannot_be_done(monkeypatch):
    with pytest.raises(ValueError, match="SGD"):
        trained(optimizer_name="Adagrad")
    with pytest.raises(ValueError, match="save_dir"):
        trained(save_every=1)
    monkeypatch.setattr("transformer_lens.train.is_library_available", lambda name: False)
    with pytest.raises(ImportError, match="pip install wandb"):
        trained(wandb=True)


def test_the_loss_is_logged(monkeypatch):
    import sys
    import types

    logged = []
    run = types.SimpleNamespace(log=logged.append)
    fake = types.SimpleNamespace(init=lambda **kwargs: logged.append(kwargs["project"]) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr("transformer_lens.train.is_library_available", lambda name: True)
    trained(wandb=True, wandb_project_name="small")
    assert logged[0] == "small" and [entry["step"] for entry in logged[1:]] == [1, 2, 3]
