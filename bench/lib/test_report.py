#!/usr/bin/python3
"""Tests of what turns runs into figures: parsing, medians, spreads, shares, goals, documents."""

import json
import pathlib
import sys
import unittest
import xml.etree.ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from lib import chart, document, goals, machine, report, stages, workloads  # noqa: E402
from lib.systems_table import SYSTEMS  # noqa: E402


def cell(iops, foreign=0.0, **more):
    return {"iops": iops, "mb_s": iops / 10, "p50": 1.0, "p99": 2.0, "p99.9": 3.0,
            "foreign_cores": foreign, "load_before": 0.0, **more}


def results(**figures):
    """write-qd1 with the rounds of each system."""
    made = report.Results()
    for system, rounds in figures.items():
        for iops in rounds:
            made.add("write-qd1", system, cell(iops))
    return made


class Medians(unittest.TestCase):
    def test_each_figure_has_its_own_median(self):
        made = report.Results()
        for iops, p99 in ((10, 7.0), (30, 5.0), (20, 6.0)):
            made.add("write-qd1", "raw", cell(iops) | {"p99": p99})
        middle = made.median("write-qd1", "raw")
        self.assertEqual((20, 6.0), (middle["iops"], middle["p99"]))

    def test_share_is_of_the_reference(self):
        made = results(raw=[100, 200, 300], sync=[50, 50, 500])
        self.assertEqual(0.25, made.share("write-qd1", "sync", "raw"))
        self.assertEqual(4.0, made.share("write-qd1", "raw", "sync"))

    def test_what_did_not_run_has_no_figure(self):
        made = results(raw=[100])
        self.assertIsNone(made.median("write-qd1", "sync"))
        self.assertIsNone(made.share("write-qd1", "sync", "raw"))
        self.assertIsNone(made.share("write-qd1", "raw", "sync"))
        self.assertIsNone(made.spread("write-qd1", "raw"))

    def test_spread_is_of_the_median(self):
        self.assertAlmostEqual(0.3, results(raw=[90, 100, 120]).spread("write-qd1", "raw"))


class Noise(unittest.TestCase):
    def test_a_steady_and_quiet_machine_has_none(self):
        self.assertEqual([], results(raw=[98, 100, 102], sync=[10, 100, 1000]).noise())

    def test_a_raw_row_that_moves(self):
        self.assertEqual(1, len(results(raw=[80, 100, 120]).noise()))

    def test_two_rounds_cannot_tell(self):
        self.assertEqual(1, len(results(raw=[100, 100, 100], sync=[100, 100]).noise()))

    def test_strangers_on_the_processors(self):
        made = report.Results()
        for _ in range(3):
            made.add("write-qd1", "raw", cell(100, foreign=1.5))
        found, = made.noise()
        self.assertIn("1.50", found)


class Goals(unittest.TestCase):
    GOAL = (goals.Goal("sync", "write-qd1", 4.0, ("quorum", "mirror")),)

    def judge(self, goal, **figures):
        return goals.judge(results(**{k: [v] for k, v in figures.items()}).throughput, goal)

    def test_the_best_reference_counts(self):
        verdict, = self.judge(self.GOAL, sync=400, quorum=50, mirror=100)
        self.assertEqual((4.0, True), (verdict.share, verdict.met))
        verdict, = self.judge(self.GOAL, sync=399, quorum=100, mirror=50)
        self.assertFalse(verdict.met)

    def test_half_of_the_reference(self):
        goal = (goals.Goal("sync", "write-qd1", 0.8, ("raw",), 0.5),)
        verdict, = self.judge(goal, sync=40, raw=100)
        self.assertEqual((0.8, True), (verdict.share, verdict.met))

    def test_no_verdict_without_all_figures(self):
        self.assertEqual([], self.judge(self.GOAL, sync=400, quorum=50))
        self.assertEqual([], self.judge(self.GOAL, quorum=50, mirror=50))

    def test_goals_name_what_exists(self):
        for goal in goals.GOALS:
            self.assertIn(goal.workload, workloads.WORKLOADS)
            self.assertLessEqual({goal.system, *goal.references}, set(SYSTEMS))


class Parsing(unittest.TestCase):
    @staticmethod
    def fio_job(name, side, error=0, total=1000):
        figures = {"iops": 500.0, "bw_bytes": 2048000, "total_ios": total, "clat_ns": {
            "percentile": {"50.000000": 1000, "99.000000": 2000, "99.900000": 3000}}}
        return {"jobname": name, "error": error, side: figures, "job_runtime": 2000,
                "usr_cpu": 10.0, "sys_cpu": 15.0}

    def parse(self, name, *jobs):
        return workloads.parse_fio(workloads.WORKLOADS[name],
                                   "a note\n" + json.dumps({"jobs": jobs}))

    def test_one_job(self):
        result = self.parse("write-qd1", self.fio_job("write-qd1", "write"))
        self.assertEqual({"iops": 500.0, "mb_s": 2.048, "operations": 1000, "client_cpu": 0.5,
                          "p50": 1.0, "p99": 2.0, "p99.9": 3.0}, result)

    def test_reads_and_mixes_are_found(self):
        self.assertEqual(500.0, self.parse("read-qd1", self.fio_job("read-qd1", "read"))["iops"])
        self.assertEqual(500.0, self.parse("mix-qd16", self.fio_job("mix-qd16", "mixed"))["iops"])

    def test_beside_a_stream_the_small_client_is_measured(self):
        result = self.parse("beside-stream", self.fio_job("stream", "write"),
                            self.fio_job("beside-stream", "write"))
        self.assertEqual(2.048, result["stream_mb_s"])
        self.assertNotIn("operations", result)

    def test_errors_and_idle_jobs_are_not_figures(self):
        with self.assertRaises(RuntimeError):
            self.parse("write-qd1", self.fio_job("write-qd1", "write", error=5))
        with self.assertRaises(RuntimeError):
            self.parse("write-qd1", self.fio_job("write-qd1", "write", total=0))

    def test_commit_load(self):
        latency = {"p50": 1.0, "p99": 2.0, "p99.9": 3.0}
        text = json.dumps({"operations": 100, "seconds": 2.0, "client_cpu_seconds": 0.5,
                           "flushes": 3, "latency_us": latency, "flush_us": latency})
        result = workloads.parse_commit(workloads.WORKLOADS["commit32-qd1"], text)
        self.assertEqual((50.0, 1.0, 3.0), (result["iops"], result["p50"], result["flush_p99.9"]))

    def test_sizes(self):
        self.assertEqual((1 << 30, 3 << 20, 512),
                         tuple(map(machine.parse_size, ("1GiB", "3mib", "512"))))


class Stages(unittest.TestCase):
    @staticmethod
    def answer(node="a", batches=(), **totals):
        """write_queue=(count, µs in all)"""
        return {"node": node, "stages": [
            {"operation": key.split("_")[0], "stage": key.split("_")[1].replace("-", " "),
             "count": count, "sum_ns": us * 1000} for key, (count, us) in totals.items()],
            "batches": [{"batch": name, "batches": n, "records": records}
                        for name, n, records in batches]}

    def test_stages_of_writes_add_up_and_others_are_means(self):
        before = {"latencies": [self.answer(write_whole=(10, 1000), write_device=(10, 900))]}
        after = {"latencies": [
            self.answer(write_whole=(14, 1400), write_device=(14, 1100), write_mirror=(2, 200),
                        link_ship=(2, 30), batches=[("page", 2, 7)]),
            self.answer("b", mirror_apply=(2, 50))]}
        told = stages.between(before, after)
        self.assertEqual({"write whole": 100.0, "write device": 50.0, "write mirror": 50.0,
                          "link ship": 15.0, "mirror apply": 25.0, "page": 3.5}, told)

    def test_what_did_not_go_on_or_is_not_told_has_no_figure(self):
        same = {"latencies": [self.answer(write_whole=(10, 1000), batches=[("page", 1, 1)])]}
        self.assertEqual({}, stages.between(same, same))
        self.assertIsNone(stages.between(None, same))
        self.assertEqual({}, stages.middle([None, {}]))

    def test_each_figure_has_its_own_median(self):
        self.assertEqual({"write whole": 2.0, "write mirror": 0.0}, stages.middle(
            [{"write whole": 1.0}, {"write whole": 3.0, "write mirror": 9.0},
             {"write whole": 2.0}]))


class Documents(unittest.TestCase):
    def setUp(self):
        self.results = results(raw=[100, 102], sync=[80, 81])
        self.results.add("write-1m-qd8", "raw", cell(10, cpu_us=3.0))
        self.about = {"cpu": "c", "cores": 2, "memory_gib": 4, "kernel": "k", "disk": "d",
                      "virtual": "kvm", "fio": "f", "commit": "abc", "load_before": 0.1}
        self.options = {"seconds": 1, "rounds": 2, "size": 1 << 30, "map_cache": 8 << 20,
                        "pool_factor": 2.5, "tandem_config": {"reactor.spin": "20us"},
                        "verified": True, "date": "2026-01-01"}

    def test_the_document_has_every_cell_and_says_what_is_missing(self):
        text = document.markdown(self.results, ["raw", "sync"], self.about, self.options)
        for expected in ("80 (0.80)", "reactor.spin = 20us", "sync ≥ 0.55 × raw", "yes"):
            self.assertIn(expected, text)
        row = next(r for r in text.splitlines() if r.startswith("| 1 MiB sequential write, QD8"))
        self.assertEqual("–", row.split("|")[3].strip())

    def test_where_the_time_goes_is_told_of_who_tells_it(self):
        text = document.markdown(self.results, ["raw", "sync"], self.about, self.options)
        self.assertNotIn("Where the time goes", text)
        for device in (20.0, 40.0, 30.0):
            self.results.add("write-qd1", "none", cell(
                70, cpu_us=9.0, stages={"write device": device, "write whole": 50.0}))
        self.assertEqual(9.0, self.results.median("write-qd1", "none")["cpu_us"])
        text = document.markdown(self.results, ["raw", "none"], self.about, self.options)
        row = next(r for r in text.splitlines() if r.startswith("| `write-qd1` none"))
        figures = [figure.strip() for figure in row.split("|")[2:-1]]
        self.assertEqual(["–", "30.0", "–", "–", "50.0"], figures[:5])
        self.assertEqual("9.0", figures[-1])
        self.assertNotIn("`write-qd1` raw", text)

    def test_noise_is_said_loudly(self):
        self.results.add("write-qd1", "raw", cell(300))
        self.results.failures.append("it broke")
        text = document.markdown(self.results, ["raw", "sync"], self.about, self.options)
        self.assertIn("do not quote", text)
        self.assertIn("it broke", text)

    def test_the_chart_is_xml_with_a_bar_for_each_cell(self):
        root = xml.etree.ElementTree.fromstring(chart.svg(self.results, ["raw", "sync"]))
        bars = [e for e in root if e.tag.endswith("rect")]
        self.assertEqual(1 + 3, len(bars))  # the background and three cells


if __name__ == "__main__":
    unittest.main()
