#include "frontend/nbd/negotiation.h"

#include <algorithm>
#include <utility>

namespace tandem::nbd {
namespace {

// Data of an option beyond this is skipped and refused: the longest that makes sense is a few
// names.
constexpr std::size_t kOptionBytesMax = 64 << 10;
// A client that announces more than this is not worth the bandwidth of skipping it.
constexpr std::size_t kOptionSkipMax = 16 << 20;

std::uint32_t option_error(ErrorCode code) {
  return code == ErrorCode::kNotFound ? rep::kErrUnknown : rep::kErrPolicy;
}

}  // namespace

Negotiation::Negotiation(Transport& transport, InputBuffer& input, VolumeDirectory& directory,
                         const Options& options, std::shared_ptr<TlsContext> tls)
    : transport_(transport),
      input_(input),
      directory_(directory),
      options_(options),
      tls_(std::move(tls)) {}

Negotiation::Next Negotiation::end(std::string why, bool violation) {
  ended_ = std::move(why);
  violation_ = violation;
  return Next::kEnd;
}

Task<std::optional<Agreement>> Negotiation::run() {
  const bool greeted = co_await greet();
  if (!greeted) co_return std::nullopt;
  for (;;) {
    const Next next = co_await one_option();
    if (next == Next::kEnd) co_return std::nullopt;
    if (next == Next::kTransmission) co_return std::move(agreement_);
  }
}

/// At least `bytes` are in the input buffer. False: they never will be.
Task<bool> Negotiation::need(std::size_t bytes) {
  while (input_.size() < bytes) {
    const auto space = input_.space();
    iovec into{space.data(), space.size()};
    const IoResult got = transport_.receive({&into, 1});
    if (got.kind == IoResult::Kind::kBytes) {
      input_.commit(got.bytes);
    } else if (got.kind == IoResult::Kind::kEnd) {
      if (ended_.empty()) end("the client left");
      co_return false;
    } else {
      co_await transport_.readable();
    }
  }
  co_return true;
}

Task<bool> Negotiation::skip(std::size_t bytes) {
  while (bytes > 0) {
    const bool some = co_await need(1);
    if (!some) co_return false;
    const std::size_t take = std::min(bytes, input_.size());
    input_.consume(take);
    bytes -= take;
  }
  co_return true;
}

/// Everything in out_ has gone to the socket. Nothing more is read meanwhile, so a client that does
/// not take its answers cannot make us keep more of them.
Task<bool> Negotiation::send_out() {
  std::size_t sent = 0;
  while (sent < out_.size()) {
    const iovec from{out_.data() + sent, out_.size() - sent};
    const IoResult done = transport_.send({&from, 1});
    if (done.kind == IoResult::Kind::kBytes) {
      sent += done.bytes;
    } else if (done.kind == IoResult::Kind::kEnd) {
      if (ended_.empty()) end("the client left");
      co_return false;
    } else {
      co_await transport_.writable();
    }
  }
  out_.clear();
  co_return true;
}

Task<bool> Negotiation::greet() {
  append_hello(out_, kFixedNewstyle | kNoZeroes);
  const bool sent = co_await send_out();
  if (!sent) co_return false;
  const bool answered = co_await need(kClientFlagsBytes);
  if (!answered) co_return false;
  const std::uint32_t flags = decode_client_flags(input_.available().first<kClientFlagsBytes>());
  input_.consume(kClientFlagsBytes);
  if ((flags & ~std::uint32_t{kFixedNewstyle | kNoZeroes}) != 0) {
    end("the client set handshake flags that are not NBD's", true);
    co_return false;
  }
  no_zeroes_ = (flags & kNoZeroes) != 0;
  co_return true;
}

Task<Negotiation::Next> Negotiation::one_option() {
  const bool arrived = co_await need(kOptionHeaderBytes);
  if (!arrived) co_return Next::kEnd;
  const auto header = decode_option_header(input_.available().first<kOptionHeaderBytes>());
  if (!header) co_return end("the client sent something that is not an NBD option", true);
  input_.consume(kOptionHeaderBytes);

  Next next = Next::kOption;
  const bool export_name = header->option == option::kExportName;
  if (header->length > (export_name ? kStringBytesMax : kOptionBytesMax)) {
    // EXPORT_NAME has no error reply: the specification asks for a disconnect.
    if (export_name || header->length > kOptionSkipMax)
      co_return end("the client sent an option of " + std::to_string(header->length) + " bytes",
                    true);
    const bool skipped = co_await skip(header->length);
    if (!skipped) co_return Next::kEnd;
    append_option_error(out_, header->option, rep::kErrTooBig, "the option's data is too long");
  } else {
    const bool complete = co_await need(header->length);
    if (!complete) co_return Next::kEnd;
    next = co_await answer(*header);
  }
  const bool sent = co_await send_out();
  if (!sent) co_return Next::kEnd;
  co_return next;
}

bool Negotiation::tls_is_missing() const {
  return tls_ != nullptr && options_.tls->required && !transport_.is_local() &&
         !transport_.encrypted();
}

/// The data of the option is complete in the input buffer and is consumed here.
Task<Negotiation::Next> Negotiation::answer(OptionHeader header) {
  const Bytes data(input_.available().begin(), input_.available().begin() + header.length);
  input_.consume(header.length);

  if (header.option == option::kAbort) {
    append_option_reply(out_, header.option, rep::kAck);
    // The client may have closed already; that is no error worth a word.
    co_await send_out();
    co_return end("the client aborted the handshake");
  }
  if (header.option == option::kStartTls) {
    const Next next = co_await start_tls(header);
    co_return next;
  }
  if (tls_is_missing()) {
    if (header.option == option::kExportName) co_return end("the client does not use TLS");
    append_option_error(out_, header.option, rep::kErrTlsRequired, "TLS is required here");
    co_return Next::kOption;
  }
  switch (header.option) {
    case option::kExportName:
      co_return export_name(data);
    case option::kInfo:
    case option::kGo:
      co_return export_info(header, data);
    case option::kList:
      list(header);
      break;
    case option::kStructuredReply:
      structured_reply(header);
      break;
    case option::kListMetaContext:
    case option::kSetMetaContext:
      meta_context(header, data);
      break;
    default:
      append_option_error(out_, header.option, rep::kErrUnsup,
                          "this server does not know the option");
  }
  co_return Next::kOption;
}

Task<Negotiation::Next> Negotiation::start_tls(OptionHeader header) {
  if (header.length != 0 || transport_.encrypted()) {
    append_option_error(
        out_, header.option, rep::kErrInvalid,
        transport_.encrypted() ? "TLS is in use already" : "STARTTLS takes no data");
    co_return Next::kOption;
  }
  if (tls_ == nullptr) {
    append_option_error(out_, header.option, rep::kErrUnsup, "TLS is not configured here");
    co_return Next::kOption;
  }
  // Bytes sent in plain text behind STARTTLS could be anybody's; they must not count as secured.
  if (input_.size() != 0) co_return end("the client sent plain text behind STARTTLS", true);
  append_option_reply(out_, header.option, rep::kAck);
  const bool sent = co_await send_out();
  if (!sent) co_return Next::kEnd;
  std::string why;
  const bool secured = co_await transport_.start_tls(tls_, why);
  if (!secured) co_return end("the TLS handshake failed: " + why);
  // What was agreed in plain text is void.
  structured_ = false;
  selection_.reset();
  co_return Next::kOption;
}

std::uint16_t Negotiation::export_flags(const VolumeInfo& info) const {
  std::uint16_t flags = can::kHasFlags | can::kFlush | can::kFua | can::kMultiConn | can::kCache;
  if (structured_) flags |= can::kDf;
  if (info.read_only) return flags | can::kReadOnly;
  return flags | can::kTrim | can::kWriteZeroes | can::kFastZero;
}

void Negotiation::agree(std::shared_ptr<Volume> volume, const VolumeInfo& info) {
  agreement_.volume = std::move(volume);
  agreement_.info = info;
  agreement_.flags = export_flags(info);
  agreement_.structured = structured_;
  if (structured_ && selection_ && selection_->export_name == info.name)
    agreement_.contexts = std::move(selection_->contexts);
  selection_.reset();
}

Negotiation::Next Negotiation::export_name(ByteView data) {
  const auto name = decode_name(data);
  if (!name) return end("the client sent an export name that is not one", true);
  auto opened = directory_.open(*name);
  if (!opened) return end("cannot open export '" + *name + "': " + opened.error().message);
  VolumeInfo info = (*opened)->info();
  info.name = *name;
  append_export_name_reply(out_, info.size_bytes, export_flags(info), !no_zeroes_);
  agree(std::move(*opened), info);
  return Next::kTransmission;
}

Negotiation::Next Negotiation::export_info(OptionHeader header, ByteView data) {
  const auto request = decode_export_request(data);
  if (!request) {
    append_option_error(out_, header.option, rep::kErrInvalid, "malformed INFO or GO");
    return Next::kOption;
  }
  auto opened = directory_.open(request->name);
  if (!opened) {
    append_option_error(out_, header.option, option_error(opened.error().code),
                        opened.error().message);
    return Next::kOption;
  }
  VolumeInfo info = (*opened)->info();
  info.name = request->name;
  const auto wants = [&](std::uint16_t what) {
    return std::find(request->info.begin(), request->info.end(), what) != request->info.end();
  };
  append_info_export(out_, header.option, info.size_bytes, export_flags(info));
  if (wants(info::kName)) append_info_name(out_, header.option, info.name);
  if (wants(info::kBlockSize)) {
    append_info_block_size(out_, header.option,
                           {.minimum = info.logical_block_bytes,
                            .preferred = static_cast<std::uint32_t>(kBlockBytes),
                            .maximum = options_.payload_bytes_max});
  }
  append_option_reply(out_, header.option, rep::kAck);
  if (header.option == option::kInfo) return Next::kOption;
  agree(std::move(*opened), info);
  return Next::kTransmission;
}

void Negotiation::list(OptionHeader header) {
  if (header.length != 0) {
    append_option_error(out_, header.option, rep::kErrInvalid, "LIST takes no data");
    return;
  }
  for (const VolumeInfo& info : directory_.list()) append_server(out_, header.option, info.name);
  append_option_reply(out_, header.option, rep::kAck);
}

void Negotiation::structured_reply(OptionHeader header) {
  if (header.length != 0) {
    append_option_error(out_, header.option, rep::kErrInvalid, "STRUCTURED_REPLY takes no data");
    return;
  }
  structured_ = true;
  append_option_reply(out_, header.option, rep::kAck);
}

void Negotiation::meta_context(OptionHeader header, ByteView data) {
  const bool listing = header.option == option::kListMetaContext;
  if (!listing) selection_.reset();  // each SET replaces the one before, also when it fails
  const auto request = decode_meta_context_request(data);
  if (!request || !structured_) {
    append_option_error(
        out_, header.option, rep::kErrInvalid,
        structured_ ? "malformed meta context query" : "meta contexts need STRUCTURED_REPLY first");
    return;
  }
  auto opened = directory_.open(request->export_name);
  if (!opened) {
    append_option_error(out_, header.option, option_error(opened.error().code),
                        opened.error().message);
    return;
  }
  if (listing) {
    for (const auto& name : list_contexts(**opened, request->queries))
      append_meta_context(out_, header.option, 0, name);
  } else {
    auto contexts = select_contexts(**opened, request->queries);
    if (!contexts) {
      append_option_error(out_, header.option, rep::kErrTooBig, "too many metadata contexts");
      return;
    }
    for (const auto& context : *contexts)
      append_meta_context(out_, header.option, context.id, context.name);
    selection_ = Selection{request->export_name, std::move(*opened), std::move(*contexts)};
  }
  append_option_reply(out_, header.option, rep::kAck);
}

}  // namespace tandem::nbd
