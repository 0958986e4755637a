#!/usr/bin/python3
"""Checks the rules of the house on the text of the sources: arrows between modules, sizes, banned
words and libraries in the wrong place. Usage: tidy_sources.py PROJECT_DIRECTORY"""

import pathlib
import re
import sys

CODE = {".h", ".cc"}
TEXT = CODE | {".py", ".cmake", ".md", ".toml", ".proto", ".txt", ".sh", ".service", ".json"}
SKIPPED_DIRECTORIES = {"build", ".git", "__pycache__"}

LINES_MAX = {".h": 250, ".cc": 600}
COLUMNS_MAX = 100

# Libraries with one owner: header pattern -> folders that may include it.
OWNERS = {
    r"liburing": ("src/device",),
    r"grpc|google/protobuf|.*\.pb\.h": ("src/rpc", "src/ctl"),
    r"spdlog(?!/fmt/)": ("src/base", "include/tandem/base"),
    r"boost/asio": ("src/frontend", "src/daemon", "src/device"),
    r"systemd": ("src/daemon",),
    r"lz4": ("src/rpc",),
    r"libnbd": ("src/ctl",),
    r"zstd": ("src/backup",),
    r"isa-l|xxhash": ("src/format",),
}

# Modules that must see time, chance, threads and sockets only through ports.
PORTED = ("include/tandem", "src/format", "src/store", "src/replication", "src/control")
AMBIENT = {
    r"\b(system|steady|high_resolution)_clock::now\b": "time comes from Clock",
    r"\bstd::(random_device|mt19937(_64)?|rand)\b": "chance comes from Random",
    r"\bstd::(j)?thread\b": "work goes to the Executor",
    r"\bstd::this_thread\b": "work goes to the Executor",
    r"\b(clock_gettime|gettimeofday|getrandom|usleep|nanosleep)\s*\(": "time and chance are ports",
    r"#include <(thread|random)>": "time, chance and threads are ports",
    r"\bio_context\b": "code takes an Executor",
}

BANNED = {
    # Spelled apart so that this file does not trip over itself.
    r"\bTO" r"DO\b|\bFIX" r"ME\b|\bX" r"XX\b": "finish it or write an issue",
    r"/wo" r"rk/|(?<![\w/])/tmp/bui" r"ld": "no path of one machine",
    r"\bth" r"row\s+[\w:]+[({]": "errors travel as Result",
}


class Project:
    def __init__(self, root):
        self.root = pathlib.Path(root).resolve()
        self.problems = []
        self.exceptions = {}
        self.used = set()
        self.load_exceptions()
        self.arrows = self.load_arrows()

    def load_exceptions(self):
        path = self.root / "tests/tidy/exceptions.txt"
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            parts = line.split(None, 2)
            if len(parts) < 3:
                self.problems.append(f"{path}:{number}: needs RULE PATH REASON")
                continue
            self.exceptions[(parts[0], parts[1])] = number

    def load_arrows(self):
        text = (self.root / "src/module.cmake").read_text()
        rows = re.findall(r'^\s*"(\w+):([\w,]*)"', text, re.M)
        return {name: set(filter(None, uses.split(","))) | {name} for name, uses in rows}

    def report(self, rule, path, line, message):
        relative = str(path.relative_to(self.root))
        if (rule, relative) in self.exceptions:
            self.used.add((rule, relative))
            return
        self.problems.append(f"{relative}:{line}: [{rule}] {message}")

    def files(self):
        for path in sorted(self.root.rglob("*")):
            relative = path.relative_to(self.root)
            if SKIPPED_DIRECTORIES & set(relative.parts) or not path.is_file():
                continue
            if path.suffix in TEXT or path.name == "CMakeLists.txt":
                yield path, str(relative)

    def run(self):
        count = 0
        for path, relative in self.files():
            count += 1
            text = path.read_text(errors="replace")
            self.check_text(path, text)
            if path.suffix in CODE:
                self.check_size(path, text)
                self.check_includes(path, relative, text)
                self.check_ambient(path, relative, text)
                self.check_coroutines(path, text)
        for key in sorted(set(self.exceptions) - self.used):
            self.problems.append(
                f"tests/tidy/exceptions.txt:{self.exceptions[key]}: "
                f"not needed any more: {' '.join(key)}")
        return count

    def check_text(self, path, text):
        for pattern, why in BANNED.items():
            for match in re.finditer(pattern, text):
                # Test helpers may end a test by an exception; the product's modules must not.
                product = str(path.relative_to(self.root)).startswith(("src/", "include/"))
                if "th" "row" in pattern and not product:
                    continue
                line = text.count("\n", 0, match.start()) + 1
                self.report("banned", path, line, f"'{match.group(0)}': {why}")

    def check_size(self, path, text):
        lines = text.splitlines()
        if len(lines) > LINES_MAX[path.suffix]:
            self.report("lines", path, len(lines),
                        f"{len(lines)} lines, at most {LINES_MAX[path.suffix]}")
        for number, line in enumerate(lines, 1):
            if len(line) > COLUMNS_MAX:
                self.report("columns", path, number,
                            f"{len(line)} columns, at most {COLUMNS_MAX}")
            if line != line.rstrip() or "\t" in line:
                self.report("blanks", path, number, "tab or blank at the end of the line")
        if path.suffix == ".h" and "#pragma once" not in text:
            self.report("once", path, 1, "a header needs #pragma once")

    def module_of(self, relative):
        match = re.match(r"src/(?:frontend/)?(\w+)/", relative)
        return match.group(1) if match else None

    def check_includes(self, path, relative, text):
        module = self.module_of(relative)
        for match in re.finditer(r'^#include [<"]([^>"]+)[>"]', text, re.M):
            line = text.count("\n", 0, match.start()) + 1
            header = match.group(1)
            for pattern, folders in OWNERS.items():
                if re.match(pattern, header) and relative.startswith(("src/", "include/")) \
                        and not relative.startswith(folders):
                    self.report("owner", path, line,
                                f"<{header}> belongs to {' and '.join(folders)}")
            target = re.match(r"(?:frontend/)?(\w+)/", header)
            if relative.startswith("include/"):
                if not header.startswith("tandem/") and target and target.group(1) in self.arrows:
                    self.report("arrow", path, line, f"a contract includes the module {header}")
            elif module and target and target.group(1) in self.arrows:
                if target.group(1) not in self.arrows.get(module, set()):
                    self.report("arrow", path, line,
                                f"{module} may not use {target.group(1)}: see src/module.cmake")
            elif module and header.startswith(("tests/", "bench/")):
                self.report("arrow", path, line, "nobody includes tests or benchmarks")

    def check_ambient(self, path, relative, text):
        if not relative.startswith(PORTED):
            return
        for pattern, why in AMBIENT.items():
            for match in re.finditer(pattern, text):
                before = text[text.rfind("\n", 0, match.start()) + 1:match.start()]
                if before.lstrip().startswith("//"):
                    continue
                line = text.count("\n", 0, match.start()) + 1
                self.report("ambient", path, line, f"'{match.group(0)}': {why}")

    def check_coroutines(self, path, text):
        """A capturing lambda that is a coroutine: its captures die before it does."""
        for match in re.finditer(r"\[[^\]\n]+\]\s*\([^)\n]*\)[^{;\n]*->\s*Task<", text):
            line = text.count("\n", 0, match.start()) + 1
            self.report("lambda", path, line, "a coroutine must not be a capturing lambda")
        for match in re.finditer(r"(CHECK|EXPECT_\w+|ASSERT_\w+|TANDEM_CO_TRY)\([^;\n]*co_await",
                                 text):
            line = text.count("\n", 0, match.start()) + 1
            self.report("await", path, line, "co_await inside a macro: await into a variable first")


def main():
    project = Project(sys.argv[1])
    count = project.run()
    for problem in project.problems:
        print(problem)
    print(f"{count} files, {len(project.problems)} problems")
    if count == 0:
        print("nothing was checked: wrong directory?")
        return 1
    return 1 if project.problems else 0


if __name__ == "__main__":
    sys.exit(main())
