// Logging: events with fields, one line per transition, never per I/O.
//   log_event(Level::kWarn, "mirror.lost", "group={} lsn={}", name, lsn.value);
// The sink is spdlog (src/base/log.cc); the simulator installs its own.
#pragma once

#include <spdlog/fmt/fmt.h>
#include <functional>
#include <string>
#include <string_view>

namespace tandem {

enum class Level { kDebug, kInfo, kWarn, kError };

using LogSink = std::function<void(Level, std::string_view line)>;
/// Replaces the sink; the default writes to stderr through spdlog. Not thread-safe: call at start.
void set_log_sink(LogSink sink);
void set_log_level(Level level);
void log_line(Level level, std::string_view event, const std::string& fields);

template <class... Args>
void log_event(Level level, std::string_view event, fmt::format_string<Args...> fields,
               Args&&... args) {
  log_line(level, event, fmt::format(fields, std::forward<Args>(args)...));
}

}  // namespace tandem
