#include "replication/group_settings.h"

#include <spdlog/fmt/fmt.h>

#include <charconv>
#include <ctime>

namespace tandem::replication {
namespace {

constexpr const char* kOff = "off";
constexpr const char* kGroupsOwn = "group";

struct Unit {
  std::string_view name;
  double factor;
};
constexpr Unit kSizes[] = {{"", 1},         {"B", 1},        {"KiB", 0x1p10},
                           {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
constexpr Unit kTimes[] = {{"ms", 1e6}, {"s", 1e9}, {"m", 6e10}, {"h", 3.6e12}};

/// "12.5MiB" in the smallest unit; nothing unless it is above 0 and the whole text is used.
template <std::size_t N>
std::optional<std::uint64_t> number(std::string_view text, const Unit (&units)[N]) {
  double value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (error != std::errc()) return std::nullopt;
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  for (const Unit& candidate : units) {
    if (candidate.name != unit) continue;
    const double scaled = value * candidate.factor;
    if (scaled < 1 || scaled > 9e18) return std::nullopt;
    return static_cast<std::uint64_t>(scaled);
  }
  return std::nullopt;
}

constexpr Unit kPeriods[] = {{"s", 1e9}, {"m", 6e10}, {"h", 3.6e12}, {"d", 8.64e13}};
/// A snapshot costs a checkpoint.
constexpr Nanoseconds kSnapshotsEveryMin = std::chrono::seconds(10);
constexpr const char* kSnapshotsKeep = "24h";
constexpr const char* kNewestOf = "a number of them, or off";

constexpr const char* kScrubEvery = "7d";
constexpr const char* kScrubRate = "20MiB";
constexpr Nanoseconds kScrubEveryMin = std::chrono::hours(1);
constexpr std::uint64_t kScrubRateMin = 64u << 10;

std::optional<Nanoseconds> period(std::string_view text) {
  const auto time = number(text, kPeriods);
  if (!time) return std::nullopt;
  return Nanoseconds(static_cast<std::int64_t>(*time));
}

std::optional<std::uint64_t> count(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value == 0) return std::nullopt;
  return value;
}

std::optional<LagAction> lag_action(std::string_view text) {
  if (text == "degrade") return LagAction::kDegrade;
  if (text == "throttle") return LagAction::kThrottle;
  if (text == "stall") return LagAction::kStall;
  return std::nullopt;
}

std::optional<Compression> compression(std::string_view text) {
  if (text == kOff) return Compression::kOff;
  if (text == "on") return Compression::kOn;
  if (text == "auto") return Compression::kAuto;
  return std::nullopt;
}

/// "06:30" as a minute of the day; "24:00" is the end of it.
std::optional<unsigned> parse_minute(std::string_view text) {
  const auto digits = [&](std::size_t at, unsigned& out) {
    const auto* begin = text.data() + at;
    const auto [end, error] = std::from_chars(begin, begin + 2, out);
    return error == std::errc() && end == begin + 2;
  };
  unsigned hour = 0, minute = 0;
  if (text.size() != 5 || text[2] != ':' || !digits(0, hour) || !digits(3, minute))
    return std::nullopt;
  const unsigned all = hour * 60 + minute;
  if (minute > 59 || all > 24 * 60) return std::nullopt;
  return all;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

/// "22:00-06:00 20MiB" or "22:00-06:00 off".
std::optional<RateWindow> rate_window(std::string_view text) {
  text = trimmed(text);
  if (text.size() < 13 || text[5] != '-' || text[11] != ' ') return std::nullopt;
  const auto from = parse_minute(text.substr(0, 5));
  const auto to = parse_minute(text.substr(6, 5));
  const auto rate = trimmed(text.substr(12));
  const auto bytes = number(rate, kSizes);
  if (!from || !to || *from == *to || (rate != kOff && !bytes)) return std::nullopt;
  return RateWindow{*from, *to, bytes};
}

std::optional<std::vector<RateWindow>> rate_windows(std::string_view text) {
  std::vector<RateWindow> windows;
  if (text == kOff) return windows;
  while (true) {
    const auto comma = text.find(',');
    const auto window = rate_window(text.substr(0, comma));
    if (!window) return std::nullopt;
    windows.push_back(*window);
    if (comma == std::string_view::npos) return windows;
    text.remove_prefix(comma + 1);
  }
}

std::optional<ReplicationMode> mode(std::string_view text) {
  for (const auto mode : {ReplicationMode::kAsync, ReplicationMode::kFlush, ReplicationMode::kSync})
    if (text == to_string(mode)) return mode;
  return std::nullopt;
}

/// One setting: its default, what it may be in words, and whether a text is that.
struct Kind {
  const char* key;
  const char* standard;
  const char* allowed;
  bool (*good)(std::string_view text);
};
bool is_count(std::string_view text) { return text == kOff || count(text); }
bool is_size(std::string_view text) { return text == kOff || number(text, kSizes); }
constexpr Kind kGroupKinds[] = {
    {"lag_bytes", kOff, "a size such as 256MiB, or off", &is_size},
    {"lag_time", kOff, "a time such as 30s or 5m, or off",
     [](std::string_view text) { return text == kOff || number(text, kTimes); }},
    {"lag_action", "degrade", "degrade, throttle or stall",
     [](std::string_view text) { return lag_action(text).has_value(); }},
    {"without_mirror", "degrade", "degrade or block",
     [](std::string_view text) { return text == "degrade" || text == "block"; }},
    {"snapshots.every", kOff, "a time from 10s on such as 15m, 4h or 1d, or off",
     [](std::string_view text) { return text == kOff || period(text) >= kSnapshotsEveryMin; }},
    {"snapshots.keep", kSnapshotsKeep, "a time such as 24h or 7d, a number of snapshots, or off",
     [](std::string_view text) { return text == kOff || period(text) || count(text); }},
    {"snapshots.hourly", kOff, kNewestOf, &is_count},
    {"snapshots.daily", kOff, kNewestOf, &is_count},
    {"snapshots.weekly", kOff, kNewestOf, &is_count},
    {"snapshots.monthly", kOff, kNewestOf, &is_count},
    {"history", kOff, "a time such as 6h or 2d, or off",
     [](std::string_view text) { return text == kOff || period(text); }},
    {"history.bytes", kOff, "a size such as 20GiB, or off", &is_size},
    {"scrub.every", kScrubEvery, "a time from 1h on such as 12h or 7d, or off",
     [](std::string_view text) { return text == kOff || period(text) >= kScrubEveryMin; }},
    {"scrub.rate", kScrubRate, "bytes a second from 64KiB on such as 20MiB",
     [](std::string_view text) { return number(text, kSizes) >= kScrubRateMin; }},
};
constexpr Kind kMirrorKinds[] = {
    {"mode", kGroupsOwn, "async, flush, sync, or group: the group's own",
     [](std::string_view text) { return text == kGroupsOwn || mode(text); }},
    {"catch_up_rate", kOff, "bytes a second such as 20MiB, or off", &is_size},
    {"catch_up_times", kOff,
     "rates by the time of day such as \"22:00-06:00 off, 12:00-13:00 5MiB\"",
     [](std::string_view text) { return rate_windows(text).has_value(); }},
    {"compression", kOff, "off, on or auto",
     [](std::string_view text) { return compression(text).has_value(); }},
    {"relay", kOff, "on or off",
     [](std::string_view text) { return text == "on" || text == kOff; }},
};

template <std::size_t N>
Status check(const Kind (&kinds)[N], const std::string& key, const std::string& value) {
  std::string all;
  for (const Kind& kind : kinds) {
    if (key == kind.key) {
      if (value.empty() || kind.good(value)) return ok();
      return Error{ErrorCode::kInvalid,
                   fmt::format("{} cannot be \"{}\": write {}", key, value, kind.allowed)};
    }
    all += (all.empty() ? "" : ", ") + std::string(kind.key);
  }
  return Error{ErrorCode::kInvalid, fmt::format("there is no setting {}; there are {}", key, all)};
}

std::string_view find(const Settings& settings, const std::string& key) {
  const auto found = settings.find(key);
  return found == settings.end() ? std::string_view() : std::string_view(found->second);
}

template <std::size_t N>
Settings complete(const Kind (&kinds)[N], const Settings& settings, const std::string& prefix) {
  Settings all;
  for (const Kind& kind : kinds) {
    const auto set = find(settings, prefix + kind.key);
    all[kind.key] = set.empty() ? kind.standard : std::string(set);
  }
  return all;
}

}  // namespace

std::optional<std::uint64_t> SlotPolicy::rate_at(unsigned minute) const {
  for (const RateWindow& window : catch_up_times) {
    const bool inside = window.from < window.to ? minute >= window.from && minute < window.to
                                                : minute >= window.from || minute < window.to;
    if (inside) return window.bytes_per_second;
  }
  return catch_up_rate;
}

Status check_group_setting(const std::string& key, const std::string& value) {
  return check(kGroupKinds, key, value);
}

Status check_mirror_setting(const std::string& key, const std::string& value) {
  return check(kMirrorKinds, key, value);
}

GroupPolicy group_policy(const Settings& settings) {
  GroupPolicy policy;
  policy.lag_bytes = number(find(settings, "lag_bytes"), kSizes);
  if (const auto time = number(find(settings, "lag_time"), kTimes))
    policy.lag_time = Nanoseconds(static_cast<std::int64_t>(*time));
  policy.lag_action = lag_action(find(settings, "lag_action")).value_or(LagAction::kDegrade);
  policy.block_without_mirror = find(settings, "without_mirror") == "block";
  return policy;
}

unsigned minute_of_day(UtcNs now) {
  const auto seconds = static_cast<std::time_t>(now.value / 1'000'000'000);
  std::tm local{};
  localtime_r(&seconds, &local);
  return static_cast<unsigned>(local.tm_hour * 60 + local.tm_min);
}

SnapshotPolicy snapshot_policy(const Settings& settings) {
  SnapshotPolicy policy;
  policy.every = period(find(settings, "snapshots.every"));
  const auto set = find(settings, "snapshots.keep");
  const auto keep = set.empty() ? kSnapshotsKeep : set;
  policy.keep_time = period(keep);
  policy.keep_count = count(keep);
  for (int i = 0; i < SnapshotPolicy::kPeriods; ++i) {
    const auto kind = static_cast<SnapshotPolicy::Period>(i);
    policy.keep_newest[kind] =
        count(find(settings, std::string("snapshots.") + to_text(kind))).value_or(0);
  }
  return policy;
}

const char* to_text(SnapshotPolicy::Period period) {
  constexpr const char* kTexts[] = {"hourly", "daily", "weekly", "monthly"};
  return kTexts[period];
}

HistoryPolicy history_policy(const Settings& settings) {
  return {.window = period(find(settings, "history")).value_or(Nanoseconds(0)),
          .bytes_max = number(find(settings, "history.bytes"), kSizes).value_or(UINT64_MAX)};
}

ScrubPolicy scrub_policy(const Settings& settings) {
  const auto every = find(settings, "scrub.every"), rate = find(settings, "scrub.rate");
  return {.every = period(every.empty() ? kScrubEvery : every),
          .bytes_per_second = number(rate.empty() ? kScrubRate : rate, kSizes).value_or(20u << 20)};
}

std::string mirror_prefix(const std::string& address) { return "mirror/" + address + "/"; }

SlotPolicy slot_policy(const Settings& settings, const std::string& address) {
  SlotPolicy policy;
  const std::string prefix = mirror_prefix(address);
  policy.catch_up_rate = number(find(settings, prefix + "catch_up_rate"), kSizes);
  policy.catch_up_times =
      rate_windows(find(settings, prefix + "catch_up_times")).value_or(std::vector<RateWindow>{});
  policy.compression =
      compression(find(settings, prefix + "compression")).value_or(Compression::kOff);
  policy.mode = mode(find(settings, prefix + "mode"));
  policy.relay = find(settings, prefix + "relay") == "on";
  return policy;
}

Settings group_settings(const Settings& settings) { return complete(kGroupKinds, settings, ""); }
Settings mirror_settings(const Settings& settings, const std::string& address) {
  return complete(kMirrorKinds, settings, mirror_prefix(address));
}

}  // namespace tandem::replication
