// host:port, as operators write it.
#pragma once

#include <cstdint>
#include <string>

#include "tandem/base/result.h"

namespace tandem::rpc {

struct Address {
  std::string host;  // without brackets
  std::uint16_t port = 0;
};

/// "name:7788", "10.0.0.2:7788", "[::1]:7788"; kInvalid with the cure for anything else.
Result<Address> parse_address(const std::string& text);

/// Why nothing can listen at `address` now, in the system's words; "" when something could.
std::string listen_trouble(const Address& address);

}  // namespace tandem::rpc
