"""What the comparison needs: Debian packages, QEMU 10 from Debian's backports, and our own tools.

QEMU 10 is unpacked in a directory of its own with an apt state of its own: neither the machine's
QEMU nor its list of package sources changes."""

import os
import pathlib
import shutil
import subprocess

from lib.machine import REPOSITORY, first_line

TOOLS = REPOSITORY / "build" / "compare-tools"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
BACKPORTS = (f"deb [signed-by={KEYRING}] http://deb.debian.org/debian bookworm-backports main\n")
BINARIES = ("tandemd", "tandem", "tandem-inspect")


def checked(command, what, **options):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True,
                            stdin=subprocess.DEVNULL, check=False, **options)
    if result.returncode != 0:
        raise RuntimeError(f"{what} failed:\n{(result.stdout + result.stderr)[-2000:]}")
    return result.stdout


def install(groups):
    """Debian's packages of those groups (deploy/packages), with sudo when not root."""
    script = f'set -euo pipefail; . "{REPOSITORY}/deploy/packages"; install_packages {groups}'
    checked(["bash", "-c", script], "installing packages")


def private_apt():
    """Options that make apt see the backports and nothing else, below TOOLS."""
    state = TOOLS / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    (state / "sources.list").write_text(BACKPORTS)
    options = {"Dir::Etc::sourcelist": state / "sources.list", "Dir::Etc::sourceparts": "-",
               "Dir::State::lists": state / "lists", "Dir::Cache": state / "cache",
               "APT::Sandbox::User": "root"}
    return [part for key, value in options.items() for part in ("-o", f"{key}={value}")]


def unpack(package, options, into):
    """Downloads a package and unpacks it into a directory."""
    downloads = into / "downloads"
    shutil.rmtree(into, ignore_errors=True)
    downloads.mkdir(parents=True)
    checked(["apt-get", *options, "download", package], f"downloading {package}", cwd=downloads)
    for archive in downloads.glob("*.deb"):
        checked(["dpkg", "-x", archive, into], f"unpacking {package}")


def qemu_storage_daemon():
    """The path of QEMU 10's storage daemon, else of Debian 12's own (7.2)."""
    newest = TOOLS / "qemu-backport"
    stable = TOOLS / "qemu-stable"
    for root in (newest, stable):
        program = root / "usr" / "bin" / "qemu-storage-daemon"
        if first_line(program, "--version") != "unknown":
            return program
    try:
        options = private_apt()
        checked(["apt-get", *options, "update", "-q"], "reading the backports")
        unpack("qemu-utils", options, newest)
        root = newest
    except RuntimeError as error:
        print(f"no QEMU 10 from Debian's backports, 7.2 serves instead: {error}")
        unpack("qemu-system-common", [], stable)
        root = stable
    program = root / "usr" / "bin" / "qemu-storage-daemon"
    if first_line(program, "--version") == "unknown":
        raise RuntimeError(f"{program} does not start; a library may be missing: ldd {program}")
    return program


def commit_load():
    """Compiles bench/commit_load.cc when it is newer than the program."""
    source = REPOSITORY / "bench" / "commit_load.cc"
    program = TOOLS / "commit_load"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        TOOLS.mkdir(parents=True, exist_ok=True)
        libraries = checked(["pkg-config", "--cflags", "--libs", "libnbd", "liburing"],
                            "finding libnbd and liburing").split()
        checked(["c++", "-std=c++20", "-O2", source, "-o", program, *libraries],
                "compiling commit_load")
    return program


def build_release():
    """Builds Tandem's release where TANDEM_BIN names no other binaries."""
    if "TANDEM_BIN" in os.environ:
        folder = pathlib.Path(os.environ["TANDEM_BIN"])
        missing = [name for name in BINARIES if not (folder / name).exists()]
        if missing:
            raise RuntimeError(f"TANDEM_BIN={folder} has no {', '.join(missing)}")
        return
    checked(["cmake", "--preset", "release"], "configuring a release", cwd=REPOSITORY)
    checked(["cmake", "--build", "--preset", "release", "--target", "tandemd", "tandem_cli",
             "tandem-inspect"], "building a release", cwd=REPOSITORY)
