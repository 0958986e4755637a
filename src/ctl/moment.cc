#include "ctl/moment.h"

#include <charconv>
#include <chrono>
#include <cmath>
#include <string_view>

namespace tandem::ctl {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kDay = 86'400 * kSecond;

/// Takes a text apart from its front.
class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}
  bool at_end() const { return rest_.empty(); }
  bool take(std::string_view any) {
    if (rest_.empty() || any.find(rest_.front()) == std::string_view::npos) return false;
    taken_ = rest_.front();
    rest_.remove_prefix(1);
    return true;
  }
  char taken() const { return taken_; }
  /// Exactly `digits` of them, up to `max`.
  bool number(std::size_t digits, unsigned max, unsigned& out) {
    if (rest_.size() < digits) return false;
    const auto* begin = rest_.data();
    const auto [end, error] = std::from_chars(begin, begin + digits, out);
    if (error != std::errc() || end != begin + digits || out > max) return false;
    rest_.remove_prefix(digits);
    return true;
  }
  /// ".123" of a second; nothing there is nothing.
  bool fraction(std::uint64_t& nanoseconds) {
    nanoseconds = 0;
    if (!take(".")) return true;
    std::uint64_t unit = kSecond;
    std::size_t digits = 0;
    for (; take("0123456789"); ++digits) {
      unit /= 10;
      nanoseconds += static_cast<std::uint64_t>(taken_ - '0') * unit;
    }
    return digits != 0;
  }

 private:
  std::string_view rest_;
  char taken_ = 0;
};

/// "12:00", "12:00:05", "12:00:05.25" as nanoseconds of a day.
std::optional<std::uint64_t> time_of_day(Reader& in) {
  unsigned hour = 0, minute = 0, second = 0;
  std::uint64_t fraction = 0;
  if (!in.number(2, 23, hour) || !in.take(":") || !in.number(2, 59, minute)) return std::nullopt;
  if (in.take(":") && (!in.number(2, 60, second) || !in.fraction(fraction))) return std::nullopt;
  return ((hour * 60ull + minute) * 60 + second) * kSecond + fraction;
}

/// "Z", "+01:00", nothing: seconds to add to get UTC.
std::optional<std::int64_t> zone(Reader& in) {
  if (in.at_end() || in.take("Zz")) return 0;
  if (!in.take("+-")) return std::nullopt;
  const std::int64_t sign = in.taken() == '+' ? -1 : 1;
  unsigned hour = 0, minute = 0;
  if (!in.number(2, 23, hour) || !in.take(":") || !in.number(2, 59, minute)) return std::nullopt;
  return sign * static_cast<std::int64_t>((hour * 60 + minute) * 60);
}

std::optional<UtcNs> date_and_time(std::string_view text) {
  Reader in(text);
  unsigned year = 0, month = 0, day = 0;
  if (!in.number(4, 9999, year) || !in.take("-") || !in.number(2, 12, month) || !in.take("-") ||
      !in.number(2, 31, day) || !in.take("Tt "))
    return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(static_cast<int>(year)),
                                         std::chrono::month(month), std::chrono::day(day)};
  const auto time = time_of_day(in);
  const auto offset = time ? zone(in) : std::nullopt;
  if (!date.ok() || !offset || !in.at_end()) return std::nullopt;
  const std::int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  const std::int64_t seconds = days * 86'400 + *offset;
  if (seconds < 0 || year > 2200) return std::nullopt;
  return UtcNs(static_cast<std::uint64_t>(seconds) * kSecond + *time);
}

/// "10m", "1.5h", "90s", "2d".
std::optional<std::uint64_t> span(std::string_view text) {
  double value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (error != std::errc() || !(value >= 0)) return std::nullopt;
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  const double seconds = unit == "s"                    ? 1
                         : unit == "m" || unit == "min" ? 60
                         : unit == "h"                  ? 3600
                         : unit == "d"                  ? 86'400
                                                        : 0;
  const double all = value * seconds * 1e9;
  if (seconds == 0 || all > 9e18) return std::nullopt;
  return static_cast<std::uint64_t>(std::llround(all));
}

std::optional<UtcNs> before(UtcNs now, std::optional<std::uint64_t> time) {
  if (!time || *time > now.value) return std::nullopt;
  return UtcNs(now.value - *time);
}

std::optional<UtcNs> parse_time(std::string_view text, UtcNs now) {
  constexpr std::string_view kAgo = "ago";
  if (text.front() == '-') return before(now, span(text.substr(1)));
  if (text.ends_with(kAgo)) {
    text.remove_suffix(kAgo.size());
    while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
    return before(now, span(text));
  }
  if (text.size() > 2 && text[2] == ':') {
    Reader in(text);
    const auto time = time_of_day(in);
    if (!time || !(in.at_end() || in.take("Zz")) || !in.at_end()) return std::nullopt;
    return UtcNs(now.value / kDay * kDay + *time);
  }
  return date_and_time(text);
}

}  // namespace

Result<Moment> parse_moment(const std::string& text, UtcNs now) {
  Moment moment;
  std::uint64_t lsn = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), lsn);
  if (!text.empty() && error == std::errc() && end == text.data() + text.size()) {
    moment.lsn = Lsn(lsn);
    return moment;
  }
  if (!text.empty()) moment.time = parse_time(text, now);
  if (moment.time) return moment;
  return Error{ErrorCode::kInvalid,
               "\"" + text +
                   "\" is neither a time nor a record: write 2026-05-01T12:00:00Z, 12:00 or "
                   "12:00:30 (today, UTC), \"10m ago\", or the number of a record"};
}

}  // namespace tandem::ctl
