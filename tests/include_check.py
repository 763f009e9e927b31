#!/usr/bin/env python3
"""Checks who includes whom: a folder may use itself and what ALLOWED names, private headers stay in their folder
(kernels are reached through core/kernels.h), no source outside cuda/ asks whether there is CUDA, and none in pruning/ of
which type a layer is.

    include_check.py [ROOT]       checks the tree, prints every violation, exits 1 if there is one
    include_check.py --self-test  checks that wrong files are found
"""
import os
import re
import sys
import tempfile

ALLOWED = {
    "core": [],
    "cuda": ["core"],
    "datasets": ["core"],
    "autograd": ["core"],
    "layers": ["autograd", "core"],
    "training": ["layers", "datasets", "autograd", "core"],
    "pruning": ["training", "layers", "datasets", "autograd", "core"],
    "pipeline": ["pruning", "training", "layers", "datasets", "autograd", "core"],
}
LIBRARY = list(ALLOWED)
# They stand on the library, as a user's program does.
USERS = ["tools", "examples", "benchmarks", "tests"]
PRIVATE = "cmake/private_headers.txt"
# Other tests include these no more than the library does: a kernel is tested through the table that holds it.
KERNELS = ["core/cpu", "cuda"]
# What these have in common.
SHARED = "core/backend"
UMBRELLA = "espalier.h"
SOURCE = (".h", ".cpp", ".cu", ".cuh")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
# What a layer is, it says itself (layers/channels.h): a table of types would not know a user's layers.
TYPE_TEST = re.compile(r"\bdynamic_(pointer_)?cast<|\btype\(\) [!=]=|[!=]= [\w.>-]*\btype\(\)")
CONDITION = re.compile(r"^\s*#\s*(?:if|ifdef|ifndef|elif)\b.*cuda", re.IGNORECASE)


def inside(path, folder):
    return path == folder or path.startswith(folder + "/")


def private_headers(root):
    with open(os.path.join(root, PRIVATE), encoding="utf-8") as file:
        return [line.strip() for line in file if line.strip() and not line.startswith("#")]


def sources(root):
    for folder in LIBRARY + USERS:
        for where, _, names in os.walk(os.path.join(root, folder)):
            for name in sorted(names):
                if name.endswith(SOURCE):
                    yield os.path.relpath(os.path.join(where, name), root).replace(os.sep, "/")
    if os.path.exists(os.path.join(root, UMBRELLA)):
        yield UMBRELLA


def resolve(root, path, bracket, name):
    """The included file, from the root of the tree; None for a library of somebody else."""
    if bracket == "<":
        return name.removeprefix("espalier/") if name.startswith("espalier/") else None
    beside = os.path.normpath(os.path.join(os.path.dirname(path), name)).replace(os.sep, "/")
    return beside if os.path.exists(os.path.join(root, beside)) else name


def problem(root, private_paths, path, bracket, name):
    """Why `path` may not include `name`, or None."""
    target = resolve(root, path, bracket, name)
    if target is None:
        if name.split("/")[0] in LIBRARY:
            return 'ours is included with "..."'
        return None
    if not os.path.exists(os.path.join(root, target)):
        return "no such file in the tree (headers of other libraries are included with <...>)"
    for kernels in KERNELS:
        if inside(target, kernels) and not inside(path, kernels) and not inside(path, "tests/" + kernels):
            return f"{kernels}/ is reached through core/kernels.h only"
    if inside(target, SHARED):
        includers = KERNELS + [SHARED] + ["tests/" + shared for shared in KERNELS + [SHARED]]
        return None if any(inside(path, includer) for includer in includers) else f"{SHARED}/ is for kernels only"
    folder = path.split("/")[0]
    private = any(inside(target, entry) for entry in private_paths)
    if private and path.endswith(".h") and folder != "tests" and not any(inside(path, e) for e in private_paths):
        return f"a public header includes a private one ({PRIVATE})"
    if path == UMBRELLA:
        return None if target.split("/")[0] in LIBRARY else "only library headers belong here"
    if target == UMBRELLA:
        return "the umbrella header is for users of the library" if folder in LIBRARY else None
    owner = target.split("/")[0]
    if private and owner != folder and folder != "tests":
        return f"a private header of {owner}/ ({PRIVATE})"
    if owner == "tools" and (inside(path, "tests/fuzz") or inside(path, "tests/tools")):  # readers of the command's
        return None
    if owner == folder or (owner in LIBRARY and folder in USERS) or owner in ALLOWED.get(folder, []):
        return None
    return f"{folder}/ may include {', '.join([folder] + ALLOWED.get(folder, LIBRARY))} only"


def violations(root):
    found, private_paths = [], private_headers(root)
    for path in sources(root):
        with open(os.path.join(root, path), encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                match = INCLUDE.match(line)
                why = problem(root, private_paths, path, *match.groups()) if match else None
                if CONDITION.match(line) and not inside(path, "cuda"):
                    why = "only cuda/ and CMake may ask whether there is CUDA; others link cuda/unavailable.cpp"
                if TYPE_TEST.search(line) and inside(path, "pruning"):
                    why = "pruning asks a layer for its account (Module::channels), not for its type"
                if why:
                    found.append(f"{path}:{number}: {line.strip()}: {why}")
    return found


def self_test():
    right = {
        PRIVATE: "# a list\ncore/cpu\ncuda\ndatasets/reader.h\n",
        "core/a.h": "#include <vector>\n",
        "core/cpu/k.h": '#include "core/a.h"\n#include "k2.h"\n#include "core/backend/b.h"\n',
        "core/backend/b.h": '#include "core/a.h"\n',
        "core/cpu/k2.h": "",
        "cuda/k.h": '#ifdef CUDA_VERSION\n#endif\n#include "core/a.h"\n#include "core/backend/b.h"\n',
        "autograd/v.h": '#include "core/a.h"\n',
        "layers/l.h": '#include "autograd/v.h"\n#include <nlohmann/json_fwd.hpp>\n',
        "datasets/d.h": '#include "core/a.h"\n',
        "datasets/reader.h": "",
        "datasets/d.cpp": '#include "datasets/reader.h"\n',
        "tests/datasets/reader_test.cpp": '#include "datasets/reader.h"\n',
        "tests/cuda/k_test.cpp": '#include "cuda/k.h"\n',
        "training/t.h": '#include "layers/l.h"\n#include "datasets/d.h"\n',
        "espalier.h": '#include "training/t.h"\n',
        "pruning/p.cpp": "if (x.dtype() == DType::f32) return layer->channels().axis;\n",
        "examples/e.cpp": "#include <espalier/espalier.h>\n",
        "tools/t.cpp": '#include "training/t.h"\n#include "own.h"\n',
        "tools/own.h": "",
    }
    wrong = {
        "core/up.h": '#include "autograd/v.h"\n',
        "core/kernel.cpp": '#include "core/cpu/k.h"\n',
        "core/backend/up.h": '#include "core/cpu/k.h"\n',
        "core/shared.cpp": '#include "core/backend/b.h"\n',
        "layers/shared.cpp": '#include "core/backend/b.h"\n',
        "autograd/up.h": '#include "layers/l.h"\n',
        "autograd/sideways.h": '#include "datasets/d.h"\n',
        "datasets/up.h": '#include "autograd/v.h"\n',
        "layers/up.h": '#  include "../training/t.h"\n',
        "layers/gpu.cpp": '#include "cuda/k.h"\n',
        "layers/brackets.h": "#include <espalier/training/t.h>\n",
        "layers/angled.h": "#include <training/t.h>\n",
        "training/umbrella.h": '#include "espalier.h"\n',
        "training/condition.cpp": "#if defined(ESPALIER_CUDA)\n#endif\n",
        "training/missing.cpp": '#include "core/nothing.h"\n',
        "pruning/cast.cpp": "const auto* conv = dynamic_cast<const Conv2d*>(&layer);\n",
        "pruning/text.cpp": 'if (layer->type() == "Conv2d") return 1;\n',
        "datasets/public.h": '#include "datasets/reader.h"\n',
        "training/reader.cpp": '#include "datasets/reader.h"\n',
        "tools/private.cpp": '#include "core/cpu/k.h"\n',
        "examples/other.cpp": '#include "tools/own.h"\n',
        "tests/core/kernel_test.cpp": '#include "cuda/k.h"\n',
    }
    with tempfile.TemporaryDirectory() as root:
        for path, text in {**right, **wrong}.items():
            os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
            with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                file.write(text)
        found = sorted(line.split(":")[0] for line in violations(root))
    missed = sorted(set(wrong) - set(found))
    accused = sorted(set(found) - set(wrong))
    if missed or accused:
        sys.exit(f"[include check] wrong files not found: {missed}; right files reported: {accused}")
    print(f"[include check] all {len(wrong)} wrong files found, none of the {len(right)} right ones reported")


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    found = violations(root)
    files = sum(1 for _ in sources(root))
    if not files:
        sys.exit(f"[include check] no source found under {root}")
    print("\n".join(found + [f"[include check] {files} files, {len(found)} violations"]))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
