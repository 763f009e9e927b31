#!/usr/bin/env python3
"""The training steps of training_step.cpp in PyTorch, for a comparison on one machine.

    torch_training_step.py MODEL [BATCH] [STEPS] [DEVICE] [PRECISION]
    such as: torch_training_step.py resnet20 128 200 cuda tf32

The same networks, batches, losses and optimiser (SGD, momentum 0.9), f32, without TF32 unless it is asked for, cuDNN's
benchmark mode on.
Prints the minimum and the median of the steps after ten to warm up.
"""
import statistics
import sys
import time

import torch
from torch import nn


def lenet5():
    return nn.Sequential(nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2),
                         nn.ReLU(), nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10))


def lenet300():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(),
                         nn.Linear(100, 10))


class Block(nn.Module):
    """Two 3x3 convolutions and a parameter-free shortcut (He et al. 2016, option A)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs),
                                  nn.ReLU(), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
                                  nn.BatchNorm2d(outputs))
        self.stride, self.added = stride, outputs - inputs

    def forward(self, x):
        shortcut = x[:, :, ::self.stride, ::self.stride]
        if self.added:
            shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))
        return torch.relu(self.body(x) + shortcut)


def resnet20():
    layers = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    for inputs, outputs, stride in [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + \
                                   [(64, 64, 1)] * 2:
        layers.append(Block(inputs, outputs, stride))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def vgg16():
    layers, channels = [], 3
    for width in [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0]:
        if width == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(channels, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))


class LstmRows(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(28, 128), nn.Linear(128, 10)

    def forward(self, x):
        _, (h, _) = self.lstm(x.squeeze(1).transpose(0, 1))
        return self.fc(h[-1])


MODELS = {"lenet300": (lenet300, (1, 28, 28)), "lenet5": (lenet5, (1, 28, 28)), "resnet20": (resnet20, (3, 32, 32)),
          "vgg16": (vgg16, (3, 32, 32)), "lstm-rows": (LstmRows, (1, 28, 28))}


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in MODELS:
        sys.exit(f"usage: {sys.argv[0]} MODEL [BATCH] [STEPS] [DEVICE] [f32|tf32]; models: {', '.join(MODELS)}")
    batch, steps = (int(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((2, 128), (3, 50)))
    device = torch.device(sys.argv[4] if len(sys.argv) > 4 else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = sys.argv[5:] == ["tf32"]
    make, image = MODELS[sys.argv[1]]
    model = make().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images, labels = torch.randn(batch, *image, device=device), torch.arange(batch, device=device) % 10
    seconds = []
    for _ in range(steps + 10):
        start = time.perf_counter()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    seconds = seconds[10:]
    print(f"PyTorch {torch.__version__}: {sys.argv[1]}, batch {batch}, {steps} steps, {device}")
    print(f"  step        min {min(seconds) * 1e3:.3f} ms, median {statistics.median(seconds) * 1e3:.3f} ms")


if __name__ == "__main__":
    main()
