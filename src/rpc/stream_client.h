// A replication stream to a node from outside a node: how a mirror is seeded. Synchronous.
#pragma once

#include <chrono>
#include <memory>
#include <optional>

#include "rpc/options.h"
#include "tandem/base/result.h"
#include "tandem/port/link.h"

namespace tandem::rpc {

/// Thread: any, several at once.
class StreamClient {
 public:
  /// Connects at the first call. `options.timeout`: how long the node may take to connect, or to
  /// take what is sent. kInvalid: the address or the certificates, with the cure.
  static Result<std::unique_ptr<StreamClient>> open(ClientOptions options);
  /// Ends the stream at once.
  virtual ~StreamClient() = default;

  virtual const std::string& address() const = 0;
  /// Returns when gRPC has taken it, which waits while the node has enough to do. kUnavailable, or
  /// what the node said: the stream has ended.
  virtual Status send(Message message) = 0;
  /// Nothing: none came within `wait`. An error as of send(), once all that came was given.
  virtual Result<std::optional<Message>> receive(std::chrono::milliseconds wait) = 0;
};

}  // namespace tandem::rpc
