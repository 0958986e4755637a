"""The parts of bench/operations by name: a title, and what measures it."""

from lib.parts import (amplification, catch_up, idle, kept_states, memory, promote, restart,
                       snapshot_cost)

PARTS = {
    "kept-states": ("Snapshot, clone, rollback", kept_states.measure),
    "snapshot-cost": ("What snapshots cost the writes", snapshot_cost.measure),
    "restart": ("Restart after SIGKILL", restart.measure),
    "promote": ("Promotion", promote.measure),
    "catch-up": ("Catching up", catch_up.measure),
    "amplification": ("Amplification in a full pool", amplification.measure),
    "memory": ("Memory", memory.measure),
    "idle": ("Idle", idle.measure),
}
