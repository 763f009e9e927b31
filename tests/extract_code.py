#!/usr/bin/env python3
"""Makes a program of the C++ blocks of a page, so that what the docs show compiles and runs.

    extract_code.py PAGE.md PROGRAM.cpp

A first block with a main() is the program. Otherwise it (the includes) stands before main, and the other blocks are
main's body, in order.
"""
import re
import sys

page, program = sys.argv[1:]
with open(page, encoding="utf-8") as file:
    head, *body = re.findall(r"^```cpp\n(.*?)^```$", file.read(), re.MULTILINE | re.DOTALL)
with open(program, "w", encoding="utf-8") as file:
    file.write(f"// From {page}.\n{head}\n")
    if "int main()" not in head:
        file.write(f"int main() {{\n{''.join(body)}}}\n")
