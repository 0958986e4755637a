// Chronicle: what happened in a simulation, as lines to read and as marks to count.
//
// Marks are situations that a campaign must reach, else it proves less than it seems to. The
// product has no code for them: they are read off the events that it logs for its operators, and
// off what the simulation itself did.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "tandem/base/log.h"
#include "tandem/port/executor.h"

namespace tandem::sim {

/// One line of the product's log, taken apart. Lives as long as the line.
struct LogEvent {
  Level level = Level::kInfo;
  std::string_view name, fields;
  /// Of `key=value` or `key="value"`; "" when there is none.
  std::string_view field(std::string_view key) const;
  std::uint64_t number(std::string_view key) const;
};

struct Mark {
  const char* name;
  const char* meaning;
  bool in_ci = true;  // reached by the seeds of the test; others need a longer campaign
};
std::span<const Mark> all_marks();

class Chronicle {
 public:
  enum class Detail { kNone, kShort, kFull };
  explicit Chronicle(Detail detail);
  ~Chronicle();
  Chronicle(const Chronicle&) = delete;
  Chronicle& operator=(const Chronicle&) = delete;

  /// A world begins, whose time lines carry and which wants to know of events; null: none.
  void follow(std::function<Nanoseconds()> now, std::function<void(const LogEvent&)> listener);
  /// What the simulation does, and what came of it.
  void say(const std::string& line);
  void mark(std::string_view name);
  /// Worlds aside, in which copies are opened, are nobody's history.
  void mute(bool muted) { muted_ = muted; }
  /// A copy is being received.
  bool is_copying() const { return copying_; }
  const std::map<std::string, std::uint64_t, std::less<>>& marks() const { return marks_; }

 private:
  void take(Level level, std::string_view line);
  void mark_event(const LogEvent& event);
  void mark_replication(const LogEvent& event);
  void print(const char* who, std::string_view line) const;

  Detail detail_;
  bool muted_ = false, copying_ = false;
  std::function<Nanoseconds()> now_;
  std::function<void(const LogEvent&)> listener_;
  std::map<std::string, std::uint64_t, std::less<>> marks_;
};

}  // namespace tandem::sim
