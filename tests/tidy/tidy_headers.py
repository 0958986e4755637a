#!/usr/bin/python3
"""Compiles every header alone, so that none leans on what its includer happened to include first.
Usage: tidy_headers.py PROJECT_DIRECTORY COMPILE_COMMANDS_JSON COMPILER

A header is compiled with the flags of a source of its own folder; a folder without compiled sources
(not part of this build) is skipped and named."""

import concurrent.futures
import json
import os
import pathlib
import shlex
import subprocess
import sys


def flags_by_folder(root, compile_commands):
    flags = {}
    for entry in json.loads(pathlib.Path(compile_commands).read_text()):
        folder = str(pathlib.Path(entry["file"]).parent)
        words = shlex.split(entry["command"])
        kept = []
        take_next = False
        for word in words[1:]:
            if take_next or word.startswith(("-I", "-D", "-std", "-f")):
                kept.append(word)
                take_next = False
            elif word in ("-isystem", "-I", "-D"):
                kept.append(word)
                take_next = True
        flags.setdefault(folder, kept)
    # Contracts use nothing but what base uses.
    base = flags.get(str(root / "src/base"))
    return flags, base


def headers(root):
    yield from sorted((root / "include").rglob("*.h"))
    for folder in ("src", "tests"):
        yield from sorted((root / folder).rglob("*.h"))


def compile_alone(compiler, header, flags):
    run = subprocess.run(
        [compiler, *flags, "-fsyntax-only", "-x", "c++", "-include", str(header), "/dev/null"],
        capture_output=True, text=True, timeout=120, check=False)
    return run.returncode, run.stderr


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    flags, base = flags_by_folder(root, sys.argv[2])
    if base is None:
        print("src/base is not in the compile commands: nothing can be checked")
        return 1
    work, skipped = [], []
    for header in headers(root):
        if (root / "include") in header.parents:
            work.append((header, base))
        elif str(header.parent) in flags:
            # Tests may see the insides of the modules; not every source of their folder does.
            inside = [f"-I{root}", f"-I{root}/src"] if (root / "tests") in header.parents else []
            work.append((header, flags[str(header.parent)] + inside))
        else:
            skipped.append(header)
    failures = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda w: (w[0], *compile_alone(sys.argv[3], *w)), work)
        for header, code, errors in results:
            if code != 0:
                failures += 1
                print(f"{header.relative_to(root)} does not compile alone:\n{errors}")
    for header in skipped:
        print(f"skipped (its folder is not built here): {header.relative_to(root)}")
    print(f"{len(work)} headers, {failures} failures, {len(skipped)} skipped")
    return 1 if failures or not work else 0


if __name__ == "__main__":
    sys.exit(main())
