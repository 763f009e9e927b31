#!/usr/bin/env python3
"""Makes a program of the C++ blocks of pages, so that what the docs show compiles and runs.

    extract_code.py PAGE.md... PROGRAM.cpp

A first block with a main() is the program. Otherwise it (the includes) stands before main, and the other blocks are
main's body, in order. Of several pages each gets a function of its own, and main calls them one after the other.
"""
import re
import sys

*pages, program = sys.argv[1:]
heads, functions, complete = [], [], False
for page in pages:
    with open(page, encoding="utf-8") as file:
        head, *body = re.findall(r"^```cpp\n(.*?)^```$", file.read(), re.MULTILINE | re.DOTALL)
    complete = complete or "int main()" in head
    heads.append(f"// From {page}.\n{head}")
    functions.append(f"// {page}\nvoid page_{len(functions)}() {{\n{''.join(body)}}}\n")
if complete and len(pages) > 1:
    sys.exit(f"{program}: a page with a main() is a program of its own")
with open(program, "w", encoding="utf-8") as file:
    file.write("\n".join(heads))
    if not complete:
        calls = "".join(f"  page_{i}();\n" for i in range(len(functions)))
        file.write("\nnamespace {\n" + "\n".join(functions) + f"}}  // namespace\n\nint main() {{\n{calls}}}\n")
