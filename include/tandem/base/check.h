// CHECK: an invariant of ours. On in every build; a failure is a bug and ends the process at once,
// before a wrong byte can be acknowledged. Errors of the environment use Result instead.
#pragma once

namespace tandem {
[[noreturn]] void check_failed(const char* expression, const char* file, int line);
}

#define CHECK(condition) \
  (static_cast<bool>(condition) ? void(0) : ::tandem::check_failed(#condition, __FILE__, __LINE__))
