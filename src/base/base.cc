#include <cstdio>
#include <cstdlib>

#include "tandem/base/check.h"
#include "tandem/base/result.h"
#include "tandem/base/uuid.h"
#include "tandem/log_point.h"

namespace tandem {

void check_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "tandem: BUG: CHECK(%s) failed at %s:%d\n", expression, file, line);
  std::fflush(stderr);
  std::abort();
}

const char* to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::kIo:
      return "io";
    case ErrorCode::kCorrupt:
      return "corrupt";
    case ErrorCode::kNoSpace:
      return "no-space";
    case ErrorCode::kInvalid:
      return "invalid";
    case ErrorCode::kNotFound:
      return "not-found";
    case ErrorCode::kExists:
      return "exists";
    case ErrorCode::kReadOnly:
      return "read-only";
    case ErrorCode::kFenced:
      return "fenced";
    case ErrorCode::kUnavailable:
      return "unavailable";
    case ErrorCode::kRefused:
      return "refused";
    case ErrorCode::kBusy:
      return "busy";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

std::string Uuid::text() const {
  char out[37];
  const auto* b = bytes.data();
  std::snprintf(out, sizeof out,
                "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
                b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
                b[15]);
  return out;
}

std::optional<Uuid> Uuid::parse(std::string_view text) {
  if (text.size() != 36) return std::nullopt;
  Uuid uuid;
  std::size_t nibble = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (i == 8 || i == 13 || i == 18 || i == 23) {
      if (c != '-') return std::nullopt;
      continue;
    }
    int digit;
    if (c >= '0' && c <= '9') {
      digit = c - '0';
    } else if (c >= 'a' && c <= 'f') {
      digit = c - 'a' + 10;
    } else if (c >= 'A' && c <= 'F') {
      digit = c - 'A' + 10;
    } else {
      return std::nullopt;
    }
    uuid.bytes[nibble / 2] |= static_cast<std::uint8_t>(nibble % 2 == 0 ? digit << 4 : digit);
    ++nibble;
  }
  return uuid;
}

Uuid Uuid::from_random(std::uint64_t high, std::uint64_t low) {
  Uuid uuid;
  for (int i = 0; i < 8; ++i) {
    uuid.bytes[i] = static_cast<std::uint8_t>(high >> (8 * i));
    uuid.bytes[8 + i] = static_cast<std::uint8_t>(low >> (8 * i));
  }
  uuid.bytes[6] = static_cast<std::uint8_t>((uuid.bytes[6] & 0x0f) | 0x40);
  uuid.bytes[8] = static_cast<std::uint8_t>((uuid.bytes[8] & 0x3f) | 0x80);
  return uuid;
}

const char* to_string(Role role) {
  switch (role) {
    case Role::kPrimary:
      return "primary";
    case Role::kMirror:
      return "mirror";
    case Role::kFenced:
      return "fenced";
  }
  return "unknown";
}

const char* to_string(ReplicationMode mode) {
  switch (mode) {
    case ReplicationMode::kAsync:
      return "async";
    case ReplicationMode::kFlush:
      return "flush";
    case ReplicationMode::kSync:
      return "sync";
  }
  return "unknown";
}

}  // namespace tandem
