#!/usr/bin/env python3
"""Writes tests/data/torch_reference.safetensors: what PyTorch computes, for tests/torch/*_test.cpp to compare with.

The committed file was made with torch 2.5.1 (CPU, float64) on Python 3.11; any environment with torch will do:

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch==2.5.1 numpy
    /tmp/venv/bin/python tests/torch/make_reference.py

Tensors are named CASE.FIELD ("conv2d.3.dweight"), and the file's metadata maps CASE to its options in JSON. A gradient
dX belongs to the scalar sum(y * dy) with the stored dy. Everything is float64 or int64.
"""
import json
import os
import struct

import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(20240607)
torch.set_default_dtype(torch.float64)
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "torch_reference.safetensors")

tensors, metadata = {}, {}


def store(case, options=None, **fields):
    metadata[case] = json.dumps(options or {}, sort_keys=True)
    for name, value in fields.items():
        if value is not None:
            tensors[f"{case}.{name}"] = value.detach().clone().contiguous()


def leaf(*shape, scale=1.0):
    return (scale * torch.randn(*shape)).requires_grad_()


def with_gradients(case, y, inputs, options=None, **fields):
    """Stores the inputs, y, dy, and for every input that takes a gradient its d<name> of sum(y * dy)."""
    dy = torch.randn_like(y)
    taking = {name: x for name, x in inputs.items() if x is not None and x.requires_grad}
    gradients = torch.autograd.grad(y, list(taking.values()), dy)
    store(case, options, y=y, dy=dy, **inputs, **fields, **{f"d{n}": g for n, g in zip(taking, gradients)})


def convolutions():
    cases = [  # x, filters, kernel, options
        ((2, 3, 6, 7), 4, (3, 3), dict()),
        ((2, 3, 7, 6), 4, (3, 3), dict(stride=2, padding=1)),
        ((2, 4, 8, 8), 6, (3, 3), dict(padding=2, dilation=2)),
        ((2, 4, 7, 7), 6, (3, 3), dict(padding=1, groups=2)),
        ((2, 4, 7, 6), 8, (3, 3), dict(stride=2, padding=1, groups=4)),  # depthwise, two filters a channel
        ((1, 6, 9, 8), 6, (3, 3), dict(stride=2, padding=2, dilation=2, groups=3)),
        ((2, 5, 4, 4), 3, (1, 1), dict()),
        ((2, 4, 5, 5), 4, (1, 1), dict(stride=2, groups=2)),
        ((2, 2, 9, 9), 3, (5, 5), dict(stride=3, padding=2, bias=False)),
        ((1, 2, 7, 6), 3, (2, 3), dict(padding=1)),
        ((2, 2, 8, 7), 4, (3, 2), dict(stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)),
    ]
    for i, (shape, filters, kernel, options) in enumerate(cases):
        options = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": True, **options}
        x = leaf(*shape)
        weight = leaf(filters, shape[1] // options["groups"], *kernel)
        bias = leaf(filters) if options["bias"] else None
        for k in ("stride", "padding", "dilation"):
            options[k] = options[k] if isinstance(options[k], tuple) else (options[k], options[k])
        geometry = {k: options[k] for k in ("stride", "padding", "dilation", "groups")}
        y = F.conv2d(x, weight, bias, **geometry)
        with_gradients(f"conv2d.{i}", y, dict(x=x, weight=weight, bias=bias), options)


def pools():
    cases = [
        ((2, 3, 6, 6), dict(kernel=2, stride=2, padding=0)),
        ((2, 2, 7, 6), dict(kernel=3, stride=2, padding=1)),
        ((1, 2, 5, 7), dict(kernel=3, stride=1, padding=1)),
    ]
    for i, (shape, options) in enumerate(cases):
        x = leaf(*shape)
        y = F.max_pool2d(x, options["kernel"], options["stride"], options["padding"])
        with_gradients(f"max_pool2d.{i}", y, dict(x=x), options)
        x = leaf(*shape)
        y = F.avg_pool2d(x, options["kernel"], options["stride"], options["padding"])
        with_gradients(f"avg_pool2d.{i}", y, dict(x=x), options)
    for i, (shape, out) in enumerate([((2, 3, 5, 7), (1, 1)), ((1, 2, 7, 5), (3, 2)), ((1, 2, 4, 6), (2, 3))]):
        x = leaf(*shape)
        with_gradients(f"adaptive_avg_pool2d.{i}", F.adaptive_avg_pool2d(x, out), dict(x=x), {"out": out})


def lstms():
    T, B, I, H = 5, 3, 4, 3
    cases = [
        dict(),
        dict(bidirectional=True),
        dict(layers=2),
        dict(layers=2, bidirectional=True),
        dict(layers=2, bidirectional=True, batch_first=True),
        dict(bias=False),
        dict(lengths=[2, 5, 1]),
        dict(layers=2, bidirectional=True, lengths=[4, 1, 5]),
        dict(bidirectional=True, initial_state=False),
    ]
    for i, options in enumerate(cases):
        options = {"layers": 1, "bidirectional": False, "batch_first": False, "bias": True, "lengths": [],
                   "initial_state": True, "input_size": I, "hidden_size": H, **options}
        net = nn.LSTM(I, H, options["layers"], options["bias"], options["batch_first"], 0.0,
                      options["bidirectional"])
        directions = options["layers"] * (2 if options["bidirectional"] else 1)
        x = leaf(B, T, I) if options["batch_first"] else leaf(T, B, I)
        inputs = {"x": x}
        state = None
        if options["initial_state"]:
            inputs["h0"], inputs["c0"] = leaf(directions, B, H), leaf(directions, B, H)
            state = (inputs["h0"], inputs["c0"])
        if options["lengths"]:
            packed = nn.utils.rnn.pack_padded_sequence(x, options["lengths"], options["batch_first"],
                                                       enforce_sorted=False)
            output, (h, c) = net(packed, state)
            output, _ = nn.utils.rnn.pad_packed_sequence(output, options["batch_first"], total_length=T)
        else:
            output, (h, c) = net(x, state)
        inputs.update(net.named_parameters())
        ys = dict(output=output, h=h, c=c)
        dys = {f"d{n}": torch.randn_like(y) for n, y in ys.items()}
        gradients = torch.autograd.grad(list(ys.values()), list(inputs.values()), list(dys.values()))
        store(f"lstm.{i}", options, **inputs, **ys, **dys, **{f"d{n}": g for n, g in zip(inputs, gradients)})


def norms():
    shapes = {"batch_norm.1d": (6, 4), "batch_norm.2d": (3, 4, 3, 5)}
    for case, shape in shapes.items():
        layer = nn.BatchNorm1d(4) if len(shape) == 2 else nn.BatchNorm2d(4)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(4))
            layer.bias.copy_(torch.randn(4))
        layer(torch.randn(shape) * 3 + 1)  # running statistics that are neither the initial nor this batch's
        before = dict(running_mean0=layer.running_mean.clone(), running_var0=layer.running_var.clone())
        x = (torch.randn(shape) * 2 - 1).requires_grad_()
        inputs = dict(x=x, weight=layer.weight, bias=layer.bias)
        y = layer(x)
        with_gradients(case, y, inputs, {"epsilon": layer.eps, "momentum": layer.momentum}, **before,
                       running_mean=layer.running_mean, running_var=layer.running_var)
        layer.eval()
        with_gradients(case + ".eval", layer(x), inputs, {"epsilon": layer.eps}, running_mean=layer.running_mean,
                       running_var=layer.running_var)
    for i, (shape, normalized) in enumerate([((4, 6), (6,)), ((2, 3, 5), (5,)), ((2, 3, 4), (3, 4))]):
        x, weight, bias = leaf(*shape), leaf(*normalized), leaf(*normalized)
        y = F.layer_norm(x, normalized, weight, bias, 1e-5)
        with_gradients(f"layer_norm.{i}", y, dict(x=x, weight=weight, bias=bias),
                       {"axes": len(normalized), "epsilon": 1e-5})


def activations():
    functions = {
        "relu": F.relu, "leaky_relu": lambda x: F.leaky_relu(x, 0.01), "gelu": F.gelu, "silu": F.silu,
        "tanh": torch.tanh, "sigmoid": torch.sigmoid, "softplus": F.softplus, "erf": torch.erf,
        "softmax": lambda x: F.softmax(x, -1), "log_softmax": lambda x: F.log_softmax(x, -1),
        "logsumexp": lambda x: torch.logsumexp(x, -1), "variance": lambda x: torch.var(x, -1),
    }
    for name, function in functions.items():
        x = (torch.linspace(-6, 6, 25) + 0.013).reshape(5, 5).requires_grad_()
        with_gradients(f"activation.{name}", function(x), dict(x=x))
    x = torch.tensor([[1000.0, 1000.5, -1000.0], [-1e4, -1e4 + 3, 0.0]]).requires_grad_()
    with_gradients("activation.log_softmax_large", F.log_softmax(x, -1), dict(x=x))


def losses():
    N, C = 7, 5
    targets = torch.tensor([0, 4, 2, 2, 1, 3, 0])
    ignored = torch.tensor([0, 4, 2, -100, 1, -100, 0])
    weights = torch.tensor([0.5, 2.0, 1.0, 0.1, 1.5])
    cases = [dict(), dict(label_smoothing=0.1), dict(weighted=True), dict(ignore=True),
             dict(label_smoothing=0.2, weighted=True), dict(label_smoothing=0.1, ignore=True),
             dict(label_smoothing=0.1, weighted=True, ignore=True), dict(reduction="sum", weighted=True),
             dict(reduction="sum", label_smoothing=0.1, weighted=True, ignore=True),
             dict(reduction="none", label_smoothing=0.1, weighted=True, ignore=True)]
    for i, options in enumerate(cases):
        options = {"label_smoothing": 0.0, "weighted": False, "ignore": False, "reduction": "mean", **options}
        x, y = leaf(N, C, scale=2), ignored if options["ignore"] else targets
        common = dict(weight=weights if options["weighted"] else None, reduction=options["reduction"])
        fields = dict(targets=y, class_weights=common["weight"])
        loss = F.cross_entropy(x, y, label_smoothing=options["label_smoothing"], **common)
        with_gradients(f"cross_entropy.{i}", loss, dict(x=x), options, **fields)
        if options["label_smoothing"] == 0:
            x = F.log_softmax(leaf(N, C), -1).detach().requires_grad_()
            with_gradients(f"nll.{i}", F.nll_loss(x, y, **common), dict(x=x), options, **fields)
    for reduction in ("mean", "sum", "none"):
        options = {"reduction": reduction}
        x, y = leaf(4, 3, scale=4), torch.rand(4, 3).requires_grad_()
        loss = F.binary_cross_entropy_with_logits(x, y, reduction=reduction)
        with_gradients(f"bce_with_logits.{reduction}", loss, dict(x=x, target=y), options)
        x, y = leaf(4, 3), leaf(4, 3)
        with_gradients(f"mse.{reduction}", F.mse_loss(x, y, reduction=reduction), dict(x=x, target=y), options)
        x, y = leaf(4, 3), leaf(4, 3)
        with_gradients(f"l1.{reduction}", F.l1_loss(x, y, reduction=reduction), dict(x=x, target=y), options)
    log_q = F.log_softmax(leaf(4, 5), -1).detach().requires_grad_()
    log_p = F.log_softmax(leaf(4, 5), -1).detach().requires_grad_()
    with_gradients("kl_div", F.kl_div(log_q, log_p, reduction="batchmean", log_target=True),
                   dict(log_q=log_q, log_p=log_p))


def optimizers():
    steps, shape = 10, (3, 4)
    start, gradients = torch.randn(shape), torch.randn(steps, *shape)
    store("optimizer", start=start, gradients=gradients)
    cases = [
        ("sgd", torch.optim.SGD, dict(lr=0.1)),
        ("sgd", torch.optim.SGD, dict(lr=0.1, momentum=0.9)),
        ("sgd", torch.optim.SGD, dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)),
        ("sgd", torch.optim.SGD, dict(lr=0.1, weight_decay=0.05)),
        ("sgd", torch.optim.SGD, dict(lr=0.1, momentum=0.9, dampening=0.3)),
        ("adam", torch.optim.Adam, dict(lr=0.01)),
        ("adam", torch.optim.Adam, dict(lr=0.02, betas=[0.8, 0.95], eps=1e-6, weight_decay=0.1)),
        ("adamw", torch.optim.AdamW, dict(lr=0.01)),
        ("adamw", torch.optim.AdamW, dict(lr=0.02, betas=[0.8, 0.95], weight_decay=0.3)),
        ("rmsprop", torch.optim.RMSprop, dict(lr=0.01)),
        ("rmsprop", torch.optim.RMSprop, dict(lr=0.01, alpha=0.9, momentum=0.9, weight_decay=0.1)),
    ]
    for i, (kind, make, options) in enumerate(cases):
        weight = start.clone().requires_grad_()
        optimizer = make([weight], **options)
        trace = []
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
            trace.append(weight.detach().clone())
        defaults = {k: v for k, v in optimizer.defaults.items() if isinstance(v, (int, float, list, tuple, bool))}
        store(f"optimizer.{i}", {**defaults, "kind": kind}, trace=torch.stack(trace))


def schedules():
    """The rate that each of 24 steps uses."""
    lr = torch.optim.lr_scheduler
    cases = [
        ("constant", 0.1, lambda o: lr.LambdaLR(o, lambda _: 1.0), {}),
        ("step", 0.1, lambda o: lr.StepLR(o, 5, 0.3), dict(every=5, gamma=0.3)),
        ("multi_step", 0.1, lambda o: lr.MultiStepLR(o, [3, 10, 18], 0.2), dict(milestones=[3, 10, 18], gamma=0.2)),
        ("cosine", 0.1, lambda o: lr.CosineAnnealingLR(o, 24, 0.001), dict(final_factor=0.01)),
        ("one_cycle", 0.1, lambda o: lr.OneCycleLR(o, 0.1, total_steps=24), {}),
        ("one_cycle", 0.1, lambda o: lr.OneCycleLR(o, 0.3, total_steps=24, pct_start=0.25, div_factor=10,
                                                   final_div_factor=100, base_momentum=0.8, max_momentum=0.9),
         dict(max=0.3, start=0.25, div=10, final_div=100, momentum_low=0.8, momentum_high=0.9)),
        ("warmup", 0.1, lambda o: lr.LinearLR(o, 1 / 7, 1.0, 6), dict(steps=6)),  # rates 1/7, 2/7, ..., 6/7, 1, 1
    ]
    for i, (kind, rate, make, options) in enumerate(cases):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate, momentum=0.9)
        schedule, rates, momenta = make(optimizer), [], []
        for step in range(24):
            rates.append(optimizer.param_groups[0]["lr"])
            momenta.append(optimizer.param_groups[0]["momentum"])
            optimizer.step()
            if step < 23:
                schedule.step()
        store(f"schedule.{i}", {"kind": kind, "lr": rate, **options}, rates=torch.tensor(rates),
              momenta=torch.tensor(momenta) if "momentum_low" in options else None)
    values = [1, .9, .8, .8, .8, .8, .79, .9, .9, .9, .9, .9, .5, .6, .6, .6, .6, .6, .6, .6, .6, .6, .6, .6]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = lr.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, threshold=0.01, min_lr=0.01)
    rates = []
    for value in values:  # the rate in force after each value
        schedule.step(value)
        rates.append(optimizer.param_groups[0]["lr"])
    store("schedule.plateau", dict(kind="plateau", lr=0.1, factor=0.5, patience=2, threshold=0.01, min_lr=0.01),
          values=torch.tensor(values, dtype=torch.float64), rates=torch.tensor(rates))


def write_safetensors(path):
    header, offset = {"__metadata__": {**metadata, "torch": torch.__version__.split("+")[0]}}, 0
    for name, value in tensors.items():
        size = value.numel() * 8
        dtype = {torch.float64: "F64", torch.int64: "I64"}[value.dtype]
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for value in tensors.values():
            file.write(value.numpy().astype("<i8" if value.dtype == torch.int64 else "<f8").tobytes())


if __name__ == "__main__":
    for make in (convolutions, pools, lstms, norms, activations, losses, optimizers, schedules):
        make()
    os.makedirs(os.path.dirname(OUT), exist_ok=True)
    write_safetensors(OUT)
    print(f"{os.path.normpath(OUT)}: {len(tensors)} tensors, {os.path.getsize(OUT)} bytes")
