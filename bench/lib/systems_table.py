"""Every system, in the order of the tables."""

from lib import systems, tandem_systems

SYSTEMS = {s.name: s for s in (
    systems.Raw, systems.Null, systems.Qemu, systems.Quorum, systems.QemuMirror,
    tandem_systems.NoMirror, tandem_systems.Async, tandem_systems.Flush, tandem_systems.Sync,
    tandem_systems.SyncTls)}
TITLES = {name: system.title for name, system in SYSTEMS.items()}
