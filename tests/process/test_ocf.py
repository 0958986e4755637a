"""The OCF agent against real nodes: roles, scores, and what it refuses."""

import os
import re
import subprocess
import xml.etree.ElementTree as xml

import harness

AGENT = harness.REPOSITORY / "deploy" / "ocf" / "tandem"
SUCCESS, GENERIC, CONFIGURED, NOT_RUNNING, PROMOTED = 0, 1, 6, 7, 8

# Keeps attributes in files, as the cluster would: promotion scores per node, the rest for all.
CRM_ATTRIBUTE = """#!/bin/sh
name=score-$NODE_NAME
while [ $# -gt 0 ]; do
  case $1 in
    --name) name=$2; shift ;;
    --update) echo "$2" >"$CLUSTER/$name" ;;
    --delete) rm -f "$CLUSTER/$name" ;;
    --query) query=1 ;;
    --default) default=$2; shift ;;
    --type|--lifetime) shift ;;
  esac
  shift
done
if [ -n "$query" ]; then cat "$CLUSTER/$name" 2>/dev/null || echo "$default"; fi
"""


class Agent(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.cluster = self.directory / "cluster"
        self.cluster.mkdir()
        command = self.directory / "bin" / "crm_attribute"
        command.parent.mkdir()
        command.write_text(CRM_ATTRIBUTE)
        command.chmod(0o755)

    def environment(self, node, **parameters):
        options = " ".join(map(str, node.credentials()))
        values = {"group": "v", "node": node.service, "options": options,
                  "command": str(harness.BIN / "tandem"), **parameters}
        return {**os.environ, "PATH": f"{self.directory}/bin:{os.environ['PATH']}",
                "CLUSTER": str(self.cluster), "NODE_NAME": node.name, "OCF_ROOT": "/usr/lib/ocf",
                "OCF_RESOURCE_INSTANCE": "v", "HA_RSCTMP": str(self.directory / f"run-{node.name}"),
                **{f"OCF_RESKEY_{key}": value for key, value in values.items()}}

    def call(self, node, action, **parameters):
        result = subprocess.run([str(AGENT), action], env=self.environment(node, **parameters),
                                stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                timeout=harness.PATIENCE)
        self.said = result.stderr
        return result.returncode

    def attribute(self, name):
        path = self.cluster / name
        return path.read_text().strip() if path.exists() else None

    def pair(self):
        a, b = self.start_pair(tls=False)
        self.replicated_volume(a, b, "v", mode="sync")
        self.wait_until(lambda: a.slot("v")["in_sync"], "the mirror to be in sync")
        for node in (a, b):
            self.assertEqual(self.call(node, "start"), SUCCESS, self.said)
        return a, b

    def test_describes_itself(self):
        result = harness.run(AGENT, "meta-data")
        root = xml.fromstring(re.sub(r"<!DOCTYPE[^>]*>", "", result.stdout))
        self.assertEqual(root.get("name"), "tandem")
        actions = {action.get("name") for action in root.iter("action")}
        self.assertEqual(actions, {"start", "stop", "promote", "demote", "monitor", "meta-data",
                                   "validate-all"})
        self.assertEqual(harness.run(AGENT, "nonsense", check=False).returncode, 3)
        self.assertEqual(harness.run(AGENT, "monitor", check=False).returncode, CONFIGURED,
                         "no group")

    def test_failover_and_return(self):
        a, b = self.pair()
        self.assertEqual(self.call(a, "monitor"), PROMOTED)
        self.assertEqual(self.call(b, "monitor"), SUCCESS)
        self.assertEqual(self.attribute("score-node-a"), "1000")
        self.assertEqual(self.attribute("score-node-b"), "100")
        self.assertEqual(self.attribute("tandem-v-protected"), "yes")
        a.kill()
        self.assertEqual(self.call(a, "monitor"), NOT_RUNNING)
        self.assertEqual(self.call(b, "monitor"), SUCCESS)
        self.assertEqual(self.attribute("score-node-b") in ("100", "10"), True)
        self.assertEqual(self.call(b, "promote", peers=f"{a.service} {b.service}"), SUCCESS, self.said)
        self.assertEqual(self.call(b, "monitor"), PROMOTED)
        self.assertEqual(self.call(b, "promote", peers=f"{a.service} {b.service}"), SUCCESS, "again does nothing")
        self.assertTrue(b.serves("v"))
        self.assertEqual(b.slot("v")["address"], a.service)
        # The old primary returns: it asks first, is fenced, holds nothing of its own, and follows.
        a.start()
        self.wait_until(lambda: b.slot("v")["state"] == "following", "the old primary to follow")
        self.assertEqual(self.call(a, "start"), SUCCESS)
        self.assertEqual(self.call(a, "monitor"), SUCCESS)

    def test_planned_move(self):
        a, b = self.pair()
        self.call(a, "monitor")
        self.assertEqual(self.call(a, "demote"), SUCCESS, self.said)
        self.assertEqual(self.call(a, "monitor"), SUCCESS)
        self.assertEqual(self.call(b, "promote", peers=f"{a.service} {b.service}"), SUCCESS, self.said)
        self.assertEqual(self.call(b, "monitor"), PROMOTED)
        self.wait_until(lambda: b.slot("v")["state"] == "following", "the other to follow")
        self.assertEqual(self.call(b, "stop"), SUCCESS, self.said)
        self.assertEqual(self.call(b, "monitor"), NOT_RUNNING)
        self.assertIsNone(self.attribute("score-node-b"))
        self.assertEqual(b.group("v")["role"], "mirror")

    def test_a_mirror_that_was_left_behind_is_not_promoted(self):
        a, b = self.pair()
        b.kill()
        self.wait_until(lambda: a.slot("v")["state"] != "following", "the primary to notice")
        self.assertEqual(self.call(a, "monitor"), PROMOTED)
        self.assertEqual(self.attribute("tandem-v-protected"), "no")
        a.kill()
        b.start()
        self.assertEqual(self.call(b, "monitor"), SUCCESS)
        self.assertIsNone(self.attribute("score-node-b"))
        self.assertEqual(self.call(b, "promote"), GENERIC)
        self.assertIn("went on without this mirror", self.said)
        self.assertEqual(b.group("v")["role"], "mirror")
        self.assertEqual(self.call(b, "promote", allow_loss="yes"), SUCCESS, self.said)

    def test_stop_is_certain_or_fails(self):
        a, _ = self.pair()
        a.pause()  # it may still serve: a stop that cannot be certain must not succeed
        self.assertEqual(self.call(a, "stop", options="--insecure --timeout 1s"), GENERIC)
        a.resume()
        a.kill()
        self.assertEqual(self.call(a, "stop"), SUCCESS, self.said)
        self.assertEqual(self.call(a, "monitor"), NOT_RUNNING)

    @harness.needs_program("ocf-tester")
    def test_ocf_tester(self):
        a, _ = self.pair()
        environment = self.environment(a)
        options = [word for key in ("group", "node", "options", "command")
                   for word in ("-o", f"{key}={environment[f'OCF_RESKEY_{key}']}")]
        self.call(a, "stop")
        result = subprocess.run(["ocf-tester", "-n", "v", *options, str(AGENT)], env=environment,
                                stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                timeout=4 * harness.PATIENCE)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)


if __name__ == "__main__":
    harness.main()
