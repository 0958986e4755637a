// Errors of the environment travel as values; our own bugs stop the process (check.h).
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace tandem {

/// A code exists only where a caller can react to it. The message says what happened, to what,
/// and what to do about it.
enum class ErrorCode {
  kIo,           // the device or the system refused
  kCorrupt,      // bytes are not what they must be (checksum, magic, bounds)
  kNoSpace,      // the pool cannot place this write; nothing was changed
  kInvalid,      // the request or the configuration is wrong
  kNotFound,     // no such volume, group, pool, slot
  kExists,       // the name is taken
  kReadOnly,     // a mirror, a snapshot or a read-only export was asked to change
  kFenced,       // a newer timeline exists, or the group stopped after a failed flush; sticky
  kUnavailable,  // the peer or the daemon cannot be reached now; trying again may help
  kRefused,      // the peer or a precondition refuses; the message says why
  kBusy,         // in use by somebody else (a second daemon, a concurrent operation)
  kUnsupported,  // a version or feature this build does not have
  kCancelled,    // the operation was given up because its owner is going away
};

const char* to_string(ErrorCode code);

struct Error {
  ErrorCode code{};
  std::string message;
};

/// `Result<T>` is either a T or an Error. Dropping one is a warning, and warnings are errors.
template <class T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using Base = tl::expected<T, Error>;
  using Base::Base;
  Result(Error error) : Base(tl::unexpect, std::move(error)) {}  // NOLINT: implicit on purpose
  Result(ErrorCode code, std::string message)
      : Base(tl::unexpect, Error{code, std::move(message)}) {}
};

using Status = Result<void>;

/// Success as a Status: `return ok();`
inline Status ok() { return Status{}; }

}  // namespace tandem

/// Evaluates `expr` (a Result) and returns its error from the enclosing function on failure.
#define TANDEM_TRY(expr)                                      \
  do {                                                        \
    if (auto&& tandem_try_ = (expr); !tandem_try_)            \
      return ::tandem::Error(std::move(tandem_try_.error())); \
  } while (false)

/// The same inside a coroutine; `expr` must not contain co_await: await into a variable first.
#define TANDEM_CO_TRY(expr)                                      \
  do {                                                           \
    if (auto&& tandem_try_ = (expr); !tandem_try_)               \
      co_return ::tandem::Error(std::move(tandem_try_.error())); \
  } while (false)
