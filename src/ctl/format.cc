#include "ctl/format.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <ctime>

namespace tandem::ctl {
namespace {

constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};

std::string printed(const char* format, auto... values) {
  char out[128];
  std::snprintf(out, sizeof out, format, values...);
  return out;
}

std::string grouped(std::uint64_t number) {
  auto digits = std::to_string(number);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<std::size_t>(at), ",");
  return digits;
}

/// Columns that a UTF-8 text takes on a terminal, near enough.
std::size_t width(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

std::string lower(std::string text) {
  for (auto& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

/// Splits "1.5GiB" into its number and its unit; false without a number.
bool split_number(const std::string& text, std::string& number, std::string& unit) {
  const auto end = text.find_first_not_of("0123456789.");
  number = text.substr(0, end);
  unit = end == std::string::npos ? "" : text.substr(end);
  unit.erase(0, unit.find_first_not_of(' '));
  const auto points = std::count(number.begin(), number.end(), '.');
  return !number.empty() && points <= 1 && number.front() != '.' && number.back() != '.';
}

/// What a unit of size stands for; 0: no unit.
long double unit_bytes(const std::string& unit) {
  if (unit.empty() || unit == "b") return 1;
  static const std::string kLetters = "kmgtpe";
  const auto power = kLetters.find(unit.front());
  if (power == std::string::npos) return 0;
  const auto rest = unit.substr(1);
  const bool binary = rest.empty() || rest == "i" || rest == "ib";
  if (!binary && rest != "b") return 0;
  return std::pow(binary ? 1024.0L : 1000.0L, static_cast<long double>(power + 1));
}

}  // namespace

std::string size_text(std::uint64_t bytes) {
  std::size_t unit = 0;
  std::uint64_t divisor = 1;
  while (unit + 1 < std::size(kUnits) && bytes / divisor >= 1024) {
    divisor *= 1024;
    ++unit;
  }
  const auto whole = bytes / divisor;
  const auto tenth = static_cast<std::uint64_t>(static_cast<long double>(bytes % divisor) * 10 /
                                                static_cast<long double>(divisor));
  if (tenth == 0 || whole >= 100) return std::to_string(whole) + " " + kUnits[unit];
  return std::to_string(whole) + "." + std::to_string(tenth) + " " + kUnits[unit];
}

std::string count_text(std::uint64_t count, const std::string& noun) {
  return grouped(count) + " " + noun + (count == 1 ? "" : "s");
}

std::string duration_text(std::chrono::nanoseconds time) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time).count();
  if (seconds < 10) {
    const auto tenths = std::chrono::duration_cast<std::chrono::milliseconds>(time).count() / 100;
    return printed("%lld.%lld s", static_cast<long long>(tenths / 10),
                   static_cast<long long>(tenths % 10));
  }
  struct Step {
    long long seconds;
    const char* name;
    long long part_seconds;
    const char* part_name;
  };
  for (const auto& step :
       {Step{86400, "d", 3600, "h"}, Step{3600, "h", 60, "min"}, Step{60, "min", 1, "s"}}) {
    if (seconds < step.seconds) continue;
    return printed("%lld %s %lld %s", seconds / step.seconds, step.name,
                   seconds % step.seconds / step.part_seconds, step.part_name);
  }
  return printed("%lld s", static_cast<long long>(seconds));
}

std::string upstream_text(const UpstreamStatus& upstream) {
  if (upstream.node.empty()) return "unknown";
  if (!upstream.is_relay()) return upstream.node;
  return upstream.node + ", a mirror" +
         (upstream.primary.empty() ? " itself" : " of " + upstream.primary);
}

std::string age_text(UtcNs then, UtcNs now) {
  if (then.value == 0) return "never";
  if (then.value >= now.value) return "just now";
  return duration_text(std::chrono::nanoseconds(now.value - then.value)) + " ago";
}

std::string time_text(UtcNs time) {
  if (time.value == 0) return "never";
  const auto seconds = static_cast<std::time_t>(time.value / 1'000'000'000);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char out[40];
  std::strftime(out, sizeof out, "%Y-%m-%d %H:%M:%S", &utc);
  return printed("%s.%03u UTC", out, static_cast<unsigned>(time.value / 1'000'000 % 1000));
}

std::string goes_text(const SnapshotStatus& snapshot) {
  if (!snapshot.automatic) return "by hand";
  if (snapshot.kept_by.empty()) return "now";
  std::string rules;
  for (const auto& rule : snapshot.kept_by) rules += (rules.empty() ? "" : ", ") + rule;
  if (snapshot.goes.value == 0) return "at no set time (" + rules + ")";
  return time_text(snapshot.goes).substr(0, 16) + " UTC (" + rules + ")";
}

std::string export_name(const GroupStatus& group, const std::string& volume) {
  return group.clone_of ? group.name + "/" + volume : volume;
}

std::string clone_text(const CloneOrigin& origin) {
  return "group " + origin.group + " as of " + time_text(origin.utc) + " (record " +
         std::to_string(origin.lsn.value) +
         (origin.snapshot.empty() ? ")" : ", " + origin.snapshot + ")");
}

std::string exports_text(const GroupStatus& group, const SnapshotStatus& snapshot) {
  std::string text;
  for (const auto& volume : snapshot.volumes)
    text += (text.empty() ? "" : ", ") + export_name(group, volume.name) + "@" + snapshot.name;
  return text.empty() ? "none" : text;
}

std::string point_text(const LogPoint& point) {
  auto text =
      "timeline " + std::to_string(point.timeline.value) + ", record " + grouped(point.lsn.value);
  if (point.utc.value != 0) text += " of " + time_text(point.utc);
  return text;
}

Result<std::uint64_t> parse_size(const std::string& text) {
  const Error bad{ErrorCode::kInvalid, "\"" + text +
                                           "\" is not a size: write a number and a unit, as in "
                                           "512MiB, 1GiB, 1.5TiB (or 100GB for 10^9 bytes)"};
  std::string number, unit;
  if (!split_number(text, number, unit)) return bad;
  const auto factor = unit_bytes(lower(unit));
  if (factor == 0 || number.size() > 20) return bad;
  const auto bytes = std::stold(number) * factor;
  if (bytes >= 9.2e18L || bytes != std::floor(bytes)) return bad;
  return static_cast<std::uint64_t>(bytes);
}

Result<std::chrono::milliseconds> parse_duration(const std::string& text) {
  const Error bad{ErrorCode::kInvalid,
                  "\"" + text + "\" is not a time: write a number and a unit, as in 10s or 500ms"};
  std::string number, unit;
  if (!split_number(text, number, unit) || number.size() > 10) return bad;
  const auto name = lower(unit);
  const double factor = name == "ms"                   ? 1
                        : name.empty() || name == "s"  ? 1000
                        : name == "m" || name == "min" ? 60'000
                        : name == "h"                  ? 3'600'000
                                                       : 0;
  const auto ms = std::stod(number) * factor;
  if (ms < 1 || ms > 86'400'000) return bad;
  return std::chrono::milliseconds(static_cast<long long>(ms));
}

Result<ReplicationMode> parse_mode(const std::string& text) {
  for (const auto mode :
       {ReplicationMode::kAsync, ReplicationMode::kFlush, ReplicationMode::kSync}) {
    if (text == to_string(mode)) return mode;
  }
  return Error{ErrorCode::kInvalid,
               "\"" + text + "\" is not a replication mode: write async, flush or sync"};
}

std::string Table::text() const {
  std::vector<std::size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  }
  std::string out;
  for (const auto& row : rows_) {
    std::string line;
    std::size_t pad = 0;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (!row[i].empty()) line += std::string(pad, ' ') + row[i];
      pad = row[i].empty() ? pad + widths[i] + 2 : widths[i] - width(row[i]) + 2;
    }
    out += line + "\n";
  }
  return out;
}

std::string receipt_text(const Receipt& r, bool promoted) {
  std::string out = promoted ? "Group " + r.group + " was promoted here.\n"
                             : "Promoting group " + r.group + " here:\n";
  const auto line = [&](const char* name, const std::string& value) {
    out += printed("  %-14s", name) + value + "\n";
  };
  if (!r.complete_image) {
    line("cannot be done",
         "the first full copy from the primary never finished: there is no "
         "consistent state on this node yet");
    return out;
  }
  line(promoted ? "recovered to" : "recovers to", point_text(r.recovers_to));
  line("consistent at", r.consistent ? "snapshot " + r.consistent->snapshot + ", record " +
                                           grouped(r.consistent->lsn.value) + " of " +
                                           time_text(r.consistent->utc)
                                     : "no application-consistent snapshot is kept here");
  line("new timeline", std::to_string(r.new_timeline.value));
  if (!r.head_known) {
    line(promoted ? "lost" : "loses",
         "unknown: this node never heard from a primary how far it was");
  } else if (r.missing_records == 0) {
    line(promoted ? "lost" : "loses",
         "nothing that this node knows of; the primary was last known at record " +
             grouped(r.primary_head.lsn.value));
  } else {
    line(promoted ? "lost" : "loses",
         "at least " + count_text(r.missing_records, "record") + " with " +
             size_text(r.missing_bytes) + " of data, up to record " +
             grouped(r.primary_head.lsn.value) + " of " + time_text(r.primary_head.utc));
  }
  line("last contact", r.last_contact.value == 0
                           ? "never"
                           : time_text(r.last_contact) + ", " +
                                 duration_text(std::chrono::milliseconds(r.contact_age_ms)) +
                                 " ago" +
                                 (r.missing_records == 0 && r.head_known
                                      ? "; what it wrote since then, if anything, is not here"
                                      : ""));
  if (!promoted)
    line("primary", r.primary_reachable
                        ? "STILL ALIVE: it may be acknowledging writes; prefer 'tandem switchover'"
                        : "does not answer");
  return out;
}

}  // namespace tandem::ctl
