"""Supernet training without the command line: an ordinary PyTorch loop and a mutator of one's own.

python examples/custom_training_loop/train.py
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from nnas_core import InputChoice, LayerChoice, Mutator

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "digits"))
from model import DigitsNet, train_dataset, valid_dataset


class RandomMutator(Mutator):
    """A uniformly random architecture at every reset."""

    def __init__(self, model):
        super().__init__(model)

    def sample_search(self):
        masks = {}
        for mutable in self.mutables:  # modules with equal keys come once and share the decision
            if isinstance(mutable, LayerChoice):
                chosen = np.random.randint(mutable.length)
                masks[mutable.key] = torch.tensor([i == chosen for i in range(mutable.length)], dtype=torch.bool)
            elif isinstance(mutable, InputChoice):
                if mutable.n_chosen is None:
                    masks[mutable.key] = torch.randint(high=2, size=(mutable.n_candidates,)).bool()
                else:
                    chosen = np.random.permutation(mutable.n_candidates)[: mutable.n_chosen]
                    masks[mutable.key] = [i in chosen for i in range(mutable.n_candidates)]  # lists do as well
        return masks

    def sample_final(self):
        return self.sample_search()


def accuracy(model, train, valid):
    """Accuracy of the architecture of the last reset, with the weights that all share."""
    model.train()
    for module in model.modules():  # BatchNorm has seen a mix of architectures: let it see this one alone
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # an average of all batches, not one that forgets
    with torch.no_grad():
        for x, _ in train:
            model(x)
        model.eval()
        correct = sum((model(x).argmax(dim=1) == y).sum().item() for x, y in valid)
    return correct / len(valid.dataset)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("-o", "--output", default="architecture.json")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    np.random.seed(0)

    model = DigitsNet()
    mutator = RandomMutator(model)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.epochs)
    loader = DataLoader(train_dataset(), batch_size=64, shuffle=True)
    for epoch in range(arguments.epochs):
        model.train()
        total = 0.0
        for x, y in loader:
            mutator.reset()  # this step's architecture
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item()
        scheduler.step()
        print(f"epoch {epoch + 1}: loss {total / len(loader):.3f}")

    valid = DataLoader(valid_dataset(), batch_size=360)
    for _ in range(5):
        mutator.reset()
        print(f"a random architecture: accuracy {accuracy(model, loader, valid):.3f}")

    masks = mutator.export()  # key -> tensor
    with open(arguments.output, "w", encoding="utf-8") as file:
        json.dump({key: mask.tolist() for key, mask in masks.items()}, file, indent=2, sort_keys=True)
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
