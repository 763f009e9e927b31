#!/usr/bin/env python3
"""Disturbs runs of the espalier command and compares what they leave with an undisturbed run, bit for bit.
  reliability.py ESPALIER [--rounds N] [--seed N] [--only NAME]"""
import argparse
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
RECIPE = """
title = "disturbed"
model = "mlp:24"
data = "digits"
validation = 0.1
[[stage]]
type = "train"
epochs = 3
[[stage]]
type = "prune"
sparsity = 0.9
epochs = 2
[[stage]]
type = "compact"
"""
OK, FAILURE, BAD_INPUT = 0, 1, 2


def tensors(path):
    """The tensors of a safetensors file: names, types, shapes and bytes; without the metadata, which has times in it."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    return header, data[8 + length:]


class Tester:
    def __init__(self, program, folder, rng):
        self.program, self.folder, self.rng = str(pathlib.Path(program).resolve()), folder, rng
        self.environment = {k: v for k, v in os.environ.items() if k != "ESPALIER_DATA"}
        self.environment.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", XDG_CACHE_HOME=str(folder / "cache"))
        (folder / "recipe.toml").write_text(RECIPE)
        started = time.monotonic()
        done = self.run("whole")
        assert done.returncode == OK, done.stderr
        self.seconds = time.monotonic() - started
        self.expected = tensors(folder / "whole" / "model.safetensors")

    def command(self, out, *options):
        return [self.program, "run", "recipe.toml", "--out", out, "--quiet", *options]

    def run(self, out, *options, **how):
        environment = {**self.environment, **how.pop("environment", {})}
        return subprocess.run(self.command(out, *options), cwd=self.folder, env=environment, capture_output=True,
                              text=True, timeout=300, **how)

    def start(self, out, *options):
        return subprocess.Popen(self.command(out, *options), cwd=self.folder, env=self.environment,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def finish(self, out):
        """Goes on with a disturbed run as its user would, and compares."""
        options = ["--resume"] if (self.folder / out / "recipe.toml").exists() else []
        done = self.run(out, *options)
        assert done.returncode == OK, f"after the disturbance: {done.stderr}"
        self.compare(out)

    def compare(self, out):
        assert tensors(self.folder / out / "model.safetensors") == self.expected, f"{out}: other bits"
        shutil.rmtree(self.folder / out)

    # --- disturbances: each returns what it did, in words

    def killed(self):
        """kill -9 at a random instant, several times in the same run."""
        times = self.rng.randint(1, 3)
        for _ in range(times):
            options = ["--resume"] if (self.folder / "killed" / "recipe.toml").exists() else []
            process = self.start("killed", *options)
            time.sleep(self.rng.uniform(0, 1.1 * self.seconds))
            process.send_signal(signal.SIGKILL)
            process.communicate()
        self.finish("killed")
        return f"killed {times} times"

    def full_disk(self):
        """No file may grow past a random size."""
        size = self.rng.choice([0, 1, 100, 1000, 4096, 10000, 30000])

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        done = subprocess.run(self.command("full"), cwd=self.folder, env=self.environment, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, preexec_fn=limit, timeout=300)
        self.check_end(done, "full", f"files of at most {size} bytes")
        self.finish("full")
        return f"files of at most {size} bytes: exit status {done.returncode}"

    def two_processes(self):
        """Two processes that run the same recipe in the same folder: one wins, the other says why not, or follows."""
        both = [self.start("two"), self.start("two")]
        for process in both:
            _, text = process.communicate(timeout=300)
            assert process.returncode in (OK, FAILURE, BAD_INPUT), f"exit status {process.returncode}: {text}"
            if process.returncode != OK:
                assert text.startswith("espalier: ["), f"no clear error: {text}"
        codes = sorted(process.returncode for process in both)
        assert OK in codes, f"both were refused: {codes}"
        self.compare("two")
        return f"exit statuses {codes}"

    def fault(self):
        """One call of write, fsync or rename fails."""
        function, number = self.rng.choice(["write", "fsync", "rename"]), self.rng.randint(1, 25)
        library = self.folder / "fault.so"
        if not library.exists():
            subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, HERE / "fault.c", "-ldl"], check=True)
        done = self.run("fault", environment={"LD_PRELOAD": str(library), "FAULT": function, "FAULT_NUMBER": str(number)})
        self.check_end(done, "fault", f"{function} number {number} fails")
        if done.returncode == OK:
            self.compare("fault")
        else:
            self.finish("fault")
        return f"{function} number {number}: exit status {done.returncode}"

    def check_end(self, done, out, what):
        """A run that says that all went well has left its network; any other says what went wrong."""
        assert done.returncode in (OK, FAILURE, BAD_INPUT), f"{what}: exit status {done.returncode}: {done.stderr}"
        if done.returncode != OK:
            assert done.stderr.startswith("espalier: ["), f"{what}: no clear error: {done.stderr}"
        else:
            assert (self.folder / out / "model.safetensors").exists(), f"{what}: exit status 0 without a network"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    names = ["killed", "full_disk", "two_processes", "fault"]
    failures = 0
    with tempfile.TemporaryDirectory(prefix="espalier-reliability-") as folder:
        tester = Tester(options.program, pathlib.Path(folder), random.Random(options.seed))
        for name in names:
            if options.only not in ("", name):
                continue
            seen = {}
            for round_number in range(options.rounds):
                try:
                    what = getattr(tester, name)()
                except AssertionError as error:
                    print(f"{name}, round {round_number}, seed {options.seed}: {error}")
                    failures += 1
                    for left in ("killed", "full", "two", "fault"):
                        shutil.rmtree(tester.folder / left, ignore_errors=True)
                else:
                    seen[what] = seen.get(what, 0) + 1
            print(f"{name}: {sum(seen.values())} of {options.rounds} ended with the same bits")
            for what, count in sorted(seen.items()):
                print(f"  {count} x {what}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
