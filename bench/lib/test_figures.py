#!/usr/bin/python3
"""Tests of what turns the measurements of bench/operations into figures."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from lib import calls, figures  # noqa: E402
from lib.figures import Figure, at_least, at_most, rate_between  # noqa: E402


class Rates(unittest.TestCase):
    SAMPLES = [(1.0, 10.0), (2.0, 20.0), (3.0, 30.0)]  # each for the second before it

    def test_a_whole_sample(self):
        self.assertEqual(20, rate_between(self.SAMPLES, 1, 2))

    def test_parts_count_by_their_length(self):
        self.assertAlmostEqual(25 / 1.5, rate_between(self.SAMPLES, 0.5, 2))

    def test_the_first_sample_reaches_back_as_far_as_the_next(self):
        self.assertEqual(10, rate_between(self.SAMPLES, 0, 1))

    def test_what_is_hardly_covered_has_no_rate(self):
        self.assertEqual(30, rate_between(self.SAMPLES, 2.5, 3.5))
        self.assertIsNone(rate_between(self.SAMPLES, 2.6, 3.6))
        self.assertIsNone(rate_between(self.SAMPLES[:1], 0, 1))

    def test_slope_is_from_end_to_end(self):
        self.assertEqual(5, figures.slope([(1, 100), (2, 190), (3, 110)]))


class Goals(unittest.TestCase):
    def test_a_bound_itself_is_met(self):
        self.assertTrue(Figure("p", "w", 2.0, "s", at_most(2)).met)
        self.assertTrue(Figure("p", "w", 0.9, "", at_least(0.9)).met)

    def test_what_misses_says_so(self):
        self.assertEqual(["w", "2.10 s", "≤ 2.00 s", "NO"],
                         Figure("p", "w", 2.1, "s", at_most(2)).row())
        self.assertEqual(["w", "0.899", "≥ 0.900", "NO"],
                         Figure("p", "w", 0.8991, "", at_least(0.9)).row())

    def test_without_a_goal_there_is_no_verdict(self):
        self.assertEqual(["w", "1,234 op/s", "–", "–"], Figure("p", "w", 1234.4, "op/s").row())


class Messages(unittest.TestCase):
    def test_strings_are_fields_in_order(self):
        self.assertEqual(b"\x0a\x01v\x12\x02s1", calls.message("v", "s1"))


if __name__ == "__main__":
    unittest.main()
