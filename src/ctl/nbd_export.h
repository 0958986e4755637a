// An export of a node as diff, backup and restore use it. The only place that sees libnbd.
//
// Thread: any, one call at a time. Every call gives up when the server says nothing for a minute.
#pragma once

#include <memory>
#include <string>

#include "backup/volume_io.h"
#include "ctl/settings.h"
#include "tandem/base/result.h"
#include "tandem/control.h"

namespace tandem::ctl {

/// Where a node exports its volumes.
struct NbdAddress {
  std::string unix_path;  // or
  std::string host, port;
  bool tls = false;
  std::string text() const;
};

/// The way from here to the exports of a node whose service is at `service` (host:port): its Unix
/// socket when the node is on this machine, else TCP. `given`, if not "", wins: "unix:/path" or
/// "host:port". kUnavailable: there is none, and what to do.
Result<NbdAddress> nbd_address(const NodeStatus& node, const std::string& service,
                               const std::string& given);

/// After an error it is of no more use.
class Export : public backup::Source, public backup::Target {
 public:
  /// `since`: a snapshot whose difference runs() tells; "": none. Errors: kNotFound: the export, or
  /// that snapshot of it, is not there; kUnavailable: nobody listens there.
  static Result<std::unique_ptr<Export>> open(const NbdAddress& address, const std::string& name,
                                              const Settings& settings, const std::string& since);
  std::uint64_t size_bytes() const override = 0;  // of both sides
  virtual std::uint32_t logical_block_bytes() const = 0;
};

}  // namespace tandem::ctl
