// A position in the past, as an operator writes it.
#pragma once

#include <optional>
#include <string>

#include "tandem/base/result.h"
#include "tandem/base/units.h"

namespace tandem::ctl {

/// One of the two.
struct Moment {
  std::optional<Lsn> lsn;
  std::optional<UtcNs> time;
};

/// "300" (a record), "2026-05-01T12:00:00Z" (RFC 3339, with fractions and zones; UTC without one),
/// "12:00", "12:00:05" (today, UTC), "10m ago", "-10m" (s, m, h, d). `now`: the node's clock.
/// kInvalid: what to write.
Result<Moment> parse_moment(const std::string& text, UtcNs now);

}  // namespace tandem::ctl
