"""The machine: what it is, what its processors did, and where things are in this repository."""

import os
import pathlib
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
TICK = os.sysconf("SC_CLK_TCK")
UNITS = {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
MIB = 1 << 20


def use_binaries():
    """Chooses Tandem's binaries (TANDEM_BIN, else release, else dev) and gives the test harness."""
    if "TANDEM_BIN" not in os.environ:
        for preset in ("release", "dev"):
            candidate = REPOSITORY / "build" / preset / "bin"
            if (candidate / "tandemd").exists():
                os.environ["TANDEM_BIN"] = str(candidate)
                break
    sys.path.insert(0, str(REPOSITORY / "tests" / "process"))
    import harness  # pylint: disable=import-outside-toplevel
    return harness


def parse_size(text):
    for unit, factor in UNITS.items():
        if text.upper().endswith(unit):
            return int(text[:-len(unit)]) * factor
    return int(text)


def first_line(*command):
    """What a command says first, or "unknown"."""
    try:
        result = subprocess.run([str(c) for c in command], capture_output=True, text=True,
                                check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return (result.stdout.strip().splitlines() or ["unknown"])[0]


def describe(directory=None):
    """CPU, kernel, commit and load; with `directory` also the disk and filesystem below it."""
    model = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    about = {"cpu": model, "cores": os.cpu_count(), "kernel": os.uname().release,
             "commit": first_line("git", "-C", REPOSITORY, "describe", "--always", "--dirty"),
             "load_before": os.getloadavg()[0], "fio": first_line("fio", "--version")}
    if directory is not None:
        memory = pathlib.Path("/proc/meminfo").read_text().split()[1]
        about["memory_gib"] = round(int(memory) / (1 << 20), 1)
        about["disk"] = first_line("findmnt", "-n", "-o", "SOURCE,FSTYPE,SIZE", "-T", directory)
        about["virtual"] = first_line("systemd-detect-virt")
    return about


def cpu_seconds(pid):
    """User and system time of a process with all its threads, io_uring's workers included."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def busy_seconds():
    """What all processors together spent on anything but idling and waiting for the disk."""
    fields = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / TICK
