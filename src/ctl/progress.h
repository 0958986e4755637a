// How far a long command is: one line on a terminal, nothing elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "ctl/context.h"

namespace tandem::ctl {

/// "v  [=====>     ]  45 %  1.2 GiB of 2.6 GiB, 120 MiB/s, 12 s left", of at most `columns`.
std::string progress_text(const std::string& what, std::uint64_t done, std::uint64_t total,
                          std::chrono::nanoseconds elapsed, std::size_t columns);

/// Draws on context.err when that is a terminal; what it drew is gone when it goes.
class ProgressBar {
 public:
  ProgressBar(Context& context, std::string what, std::uint64_t total_bytes);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  static bool is_shown(const Context& context);
  void add(std::uint64_t bytes);

 private:
  void draw();

  Context& context_;
  const std::string what_;
  const std::uint64_t total_;
  const std::chrono::steady_clock::time_point begun_;
  std::chrono::steady_clock::time_point drawn_;
  std::uint64_t done_ = 0;
};

}  // namespace tandem::ctl
