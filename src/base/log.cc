#include "tandem/base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace tandem {
namespace {

spdlog::level::level_enum spd_level(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarn:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

LogSink& sink() {
  static LogSink instance;
  return instance;
}

spdlog::logger& default_logger() {
  static auto logger = [] {
    auto l = std::make_shared<spdlog::logger>("tandem",
                                              std::make_shared<spdlog::sinks::stderr_sink_mt>());
    l->set_pattern("%Y-%m-%dT%H:%M:%S.%fZ %^%l%$ %v", spdlog::pattern_time_type::utc);
    l->flush_on(spdlog::level::debug);
    return l;
  }();
  return *logger;
}

}  // namespace

void set_log_sink(LogSink replacement) { sink() = std::move(replacement); }

void set_log_level(Level level) { default_logger().set_level(spd_level(level)); }

void log_line(Level level, std::string_view event, const std::string& fields) {
  std::string line = fmt::format("event={}{}{}", event, fields.empty() ? "" : " ", fields);
  if (sink()) {
    sink()(level, line);
  } else {
    default_logger().log(spd_level(level), "{}", line);
  }
}

}  // namespace tandem
