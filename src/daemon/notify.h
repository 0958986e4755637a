// What the service manager is told (sd_notify); nothing happens when there is none.
#pragma once

#include <string>

namespace tandem::daemon {

/// Start-up is over; `status` is one line for `systemctl status`.
void notify_ready(const std::string& status);
void notify_status(const std::string& status);
void notify_stopping();

}  // namespace tandem::daemon
