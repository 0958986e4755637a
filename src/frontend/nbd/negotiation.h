// Negotiation: the handshake of one connection, from the greeting to the choice of an export.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "frontend/nbd/codec.h"
#include "frontend/nbd/input_buffer.h"
#include "frontend/nbd/meta_contexts.h"
#include "frontend/nbd/options.h"
#include "frontend/nbd/transport.h"
#include "tandem/base/task.h"
#include "tandem/volume.h"

namespace tandem::nbd {

/// What client and server agreed on; the size and flags are those that the client was told.
struct Agreement {
  std::shared_ptr<Volume> volume;
  VolumeInfo info;
  std::uint16_t flags = 0;  // can::…
  bool structured = false;
  std::vector<MetaContext> contexts;  // that were selected
};

class Negotiation {
 public:
  /// All references must outlive run(). `tls` may be null: STARTTLS is then refused.
  Negotiation(Transport& transport, InputBuffer& input, VolumeDirectory& directory,
              const Options& options, std::shared_ptr<TlsContext> tls);

  /// Nullopt: no transmission follows; ended() says why and violation() whether the client spoke
  /// something else than NBD. Ends soon after transport.shutdown().
  Task<std::optional<Agreement>> run();
  const std::string& ended() const { return ended_; }
  bool violation() const { return violation_; }

 private:
  enum class Next { kOption, kTransmission, kEnd };

  Task<bool> need(std::size_t bytes);
  Task<bool> skip(std::size_t bytes);
  Task<bool> send_out();
  Task<bool> greet();
  Task<Next> one_option();
  Task<Next> answer(OptionHeader header);
  Task<Next> start_tls(OptionHeader header);
  Next export_name(ByteView data);
  Next export_info(OptionHeader header, ByteView data);
  void list(OptionHeader header);
  void meta_context(OptionHeader header, ByteView data);
  void structured_reply(OptionHeader header);
  bool tls_is_missing() const;
  std::uint16_t export_flags(const VolumeInfo& info) const;
  void agree(std::shared_ptr<Volume> volume, const VolumeInfo& info);
  Next end(std::string why, bool violation = false);

  Transport& transport_;
  InputBuffer& input_;
  VolumeDirectory& directory_;
  const Options& options_;
  std::shared_ptr<TlsContext> tls_;
  Bytes out_;
  bool no_zeroes_ = false;
  bool structured_ = false;
  /// Of the last SET_META_CONTEXT; counts only when that export is chosen.
  struct Selection {
    std::string export_name;
    std::shared_ptr<Volume> volume;
    std::vector<MetaContext> contexts;
  };
  std::optional<Selection> selection_;
  Agreement agreement_;
  std::string ended_;
  bool violation_ = false;
};

}  // namespace tandem::nbd
