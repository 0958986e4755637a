#!/usr/bin/python3
"""Proves that tidy_sources.py finds what it claims to find, on a small project made for it."""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import tidy_sources  # noqa: E402

ARROWS = 'set(TANDEM_ARROWS\n  "base:"\n  "store:base"\n  "rpc:base"\n  "nbd:base")\n'


class TidyTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.directory.name)
        self.put("src/module.cmake", ARROWS)
        self.put("tests/tidy/exceptions.txt", "")

    def tearDown(self):
        self.directory.cleanup()

    def put(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def problems(self):
        project = tidy_sources.Project(self.root)
        project.run()
        return project.problems

    def expect(self, path, text, rule):
        self.put(path, text)
        found = self.problems()
        self.assertEqual(len(found), 1, found)
        self.assertIn(f"[{rule}]", found[0])

    def test_a_clean_file_passes(self):
        self.put("src/store/a.cc", '#include "base/b.h"\n#include "store/a.h"\n#include <vector>\n')
        self.assertEqual(self.problems(), [])

    def test_arrow(self):
        self.expect("src/store/a.cc", '#include "rpc/b.h"\n', "arrow")

    def test_arrow_of_a_front_end(self):
        self.expect("src/frontend/nbd/a.cc", '#include "store/b.h"\n', "arrow")

    def test_contract_uses_module(self):
        self.expect("include/tandem/a.h", '#pragma once\n#include "store/b.h"\n', "arrow")

    def test_tests_are_not_included(self):
        self.expect("src/store/a.cc", '#include "tests/support/sim_disk.h"\n', "arrow")

    def test_library_owner(self):
        self.expect("src/store/a.cc", "#include <liburing.h>\n", "owner")

    def test_owner_may(self):
        self.put("src/device/a.cc", "#include <liburing.h>\n")
        self.assertEqual(self.problems(), [])

    def test_long_file(self):
        self.expect("src/store/a.cc", "//\n" * 601, "lines")

    def test_long_header(self):
        self.expect("src/store/a.h", "#pragma once\n" + "//\n" * 250, "lines")

    def test_long_line(self):
        self.expect("src/store/a.cc", "// " + "x" * 98 + "\n", "columns")

    def test_trailing_blank(self):
        self.expect("src/store/a.cc", "int a; \n", "blanks")

    def test_missing_once(self):
        self.expect("src/store/a.h", "int a();\n", "once")

    def test_unfinished(self):
        self.expect("src/store/a.cc", "// TO" "DO later\n", "banned")

    def test_machine_path(self):
        self.expect("README.md", "see /wo" "rk/main\n", "banned")

    def test_exception(self):
        self.expect("src/store/a.cc", "void f() { th" "row Error(1); }\n", "banned")

    def test_exception_in_a_test_is_fine(self):
        self.put("tests/unit/a.cc", "void f() { th" "row Error(1); }\n")
        self.assertEqual(self.problems(), [])

    def test_ambient_time(self):
        self.expect("src/store/a.cc", "auto t = std::chrono::steady_clock::now();\n", "ambient")

    def test_ambient_in_a_comment_is_fine(self):
        self.put("src/store/a.cc", "// Never std::random_device here.\n")
        self.assertEqual(self.problems(), [])

    def test_ambient_outside_is_fine(self):
        self.put("src/device/a.cc", "auto t = std::chrono::steady_clock::now();\n")
        self.assertEqual(self.problems(), [])

    def test_capturing_coroutine(self):
        self.expect("src/store/a.cc", "auto f = [this](int a) -> Task<void> { co_return; };\n",
                    "lambda")

    def test_await_in_macro(self):
        self.expect("src/store/a.cc", "void f() { CHECK(co_await g()); }\n", "await")

    def test_allowed_exception_and_stale_one(self):
        self.put("src/store/a.cc", "// " + "x" * 98 + "\n")
        self.put("tests/tidy/exceptions.txt", "columns src/store/a.cc a long address\n")
        self.assertEqual(self.problems(), [])
        self.put("src/store/a.cc", "int a;\n")
        self.assertEqual(len(self.problems()), 1)

    def test_exception_needs_a_reason(self):
        self.put("tests/tidy/exceptions.txt", "columns src/store/a.cc\n")
        self.assertEqual(len(self.problems()), 1)


if __name__ == "__main__":
    unittest.main()
