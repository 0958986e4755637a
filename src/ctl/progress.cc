#include "ctl/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "ctl/format.h"

namespace tandem::ctl {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kRedraw = std::chrono::milliseconds(200);
/// Before, a rate says nothing.
constexpr auto kRateAfter = std::chrono::seconds(1);
constexpr std::size_t kBarMin = 10, kBarMax = 40;
constexpr char kEraseLine[] = "\r\x1b[K";

std::size_t columns() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col != 0 ? size.ws_col : 80;
}

std::string bar(double share, std::size_t width) {
  const auto full = static_cast<std::size_t>(share * static_cast<double>(width));
  std::string text(full, '=');
  if (full < width) text += '>';
  text.resize(width, ' ');
  return "[" + text + "]";
}

}  // namespace

std::string progress_text(const std::string& what, std::uint64_t done, std::uint64_t total,
                          std::chrono::nanoseconds elapsed, std::size_t columns) {
  done = std::min(done, total);
  const double share = total == 0 ? 1 : static_cast<double>(done) / static_cast<double>(total);
  std::string figures = std::to_string(static_cast<int>(share * 100)) + " %  " + size_text(done) +
                        " of " + size_text(total);
  if (elapsed >= kRateAfter && done != 0) {
    const double seconds = std::chrono::duration<double>(elapsed).count();
    const double rate = static_cast<double>(done) / seconds;
    const auto left = std::chrono::seconds(
        static_cast<std::int64_t>(static_cast<double>(total - done) / rate + 0.5));
    figures +=
        ", " + size_text(static_cast<std::uint64_t>(rate)) + "/s, " + duration_text(left) + " left";
  }
  // The name, two blanks, the bar with its brackets, two blanks, the figures.
  const auto taken = what.size() + 6 + figures.size();
  std::string text = what + "  ";
  if (columns >= taken + kBarMin) text += bar(share, std::min(columns - taken, kBarMax)) + "  ";
  text += figures;
  text.resize(std::min(text.size(), columns));
  return text;
}

bool ProgressBar::is_shown(const Context& context) {
  return context.progress && !context.settings.json;
}

ProgressBar::ProgressBar(Context& context, std::string what, std::uint64_t total_bytes)
    : context_(context),
      what_(std::move(what)),
      total_(total_bytes),
      begun_(Clock::now()),
      drawn_(begun_ - kRedraw) {
  draw();
}

ProgressBar::~ProgressBar() {
  if (is_shown(context_)) context_.err << kEraseLine << std::flush;
}

void ProgressBar::add(std::uint64_t bytes) {
  done_ += bytes;
  draw();
}

void ProgressBar::draw() {
  const auto now = Clock::now();
  if (!is_shown(context_) || now - drawn_ < kRedraw) return;
  drawn_ = now;
  // The last column stays free: some terminals would break the line there.
  context_.err << kEraseLine << progress_text(what_, done_, total_, now - begun_, columns() - 1)
               << std::flush;
}

}  // namespace tandem::ctl
