"""A compiler launcher for nvcc: runs the command and keeps what `ptxas -v` says beside the object, in OBJECT.ptxas.

    keep_ptxas_log.py NVCC ARGUMENTS...
"""
import subprocess
import sys

command = sys.argv[1:]
result = subprocess.run(command, stderr=subprocess.PIPE, text=True)
lines = result.stderr.splitlines(keepends=True)
about_kernels = [line for line in lines if line.startswith(("ptxas info", "    "))]
if "-o" in command and about_kernels:
    with open(command[command.index("-o") + 1] + ".ptxas", "w", encoding="utf-8") as log:
        log.writelines(about_kernels)
sys.stderr.writelines(line for line in lines if line not in about_kernels)
sys.exit(result.returncode)
