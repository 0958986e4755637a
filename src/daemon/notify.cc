#include "daemon/notify.h"

#include <systemd/sd-daemon.h>

namespace tandem::daemon {

void notify_ready(const std::string& status) {
  (void)sd_notify(0, ("READY=1\nSTATUS=" + status).c_str());
}

void notify_status(const std::string& status) { (void)sd_notify(0, ("STATUS=" + status).c_str()); }

void notify_stopping() { (void)sd_notify(0, "STOPPING=1\nSTATUS=Draining"); }

}  // namespace tandem::daemon
