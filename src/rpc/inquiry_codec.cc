#include "rpc/inquiry_codec.h"

#include <cstring>
#include <utility>

#include "rpc/translation.h"
#include "rpc/wire.h"

namespace tandem::rpc {
namespace {

constexpr std::size_t kReasonBytesMax = 16384;

Error invalid(const char* what) {
  return Error{ErrorCode::kInvalid, std::string("replication message: ") + what};
}

}  // namespace

void fill(const message::BlockRequest& m, v1::StreamMessage& out) {
  auto* p = out.mutable_block_request();
  p->set_id(m.id);
  p->set_volume(m.version.volume.value);
  p->set_block(m.version.block.value);
  p->set_lsn(m.version.lsn.value);
  p->set_crc32c(m.version.crc32c);
  p->set_through(m.version.through.value);
}

void fill(const message::BlockAnswer& m, v1::StreamMessage& out) {
  auto* p = out.mutable_block_answer();
  p->set_id(m.id);
  if (m.refusal) {
    p->set_code(to_proto(m.refusal->code));
    p->set_reason(wire::utf8(m.refusal->message));
  } else {
    p->set_data(m.data.data(), m.data.size());
  }
}

Result<Message> take(const v1::BlockRequest& in) {
  return Message(message::BlockRequest{in.id(),
                                       {.volume = VolumeId(in.volume()),
                                        .block = VolumeBlock(in.block()),
                                        .lsn = Lsn(in.lsn()),
                                        .crc32c = in.crc32c(),
                                        .through = Lsn(in.through())}});
}

Result<Message> take(const v1::BlockAnswer& in, BufferPool& pool) {
  message::BlockAnswer out;
  out.id = in.id();
  if (in.code() != v1::ERROR_CODE_UNSPECIFIED) {
    if (!in.data().empty()) return invalid("a refusal with a block");
    out.refusal = Error{from_proto(in.code()).value_or(ErrorCode::kRefused),
                        in.reason().substr(0, kReasonBytesMax)};
    return Message(std::move(out));
  }
  if (in.data().size() != kBlockBytes) return invalid("a block that has not 4096 bytes");
  out.data = pool.allocate(kBlockBytes);
  std::memcpy(out.data.data(), in.data().data(), kBlockBytes);
  return Message(std::move(out));
}

}  // namespace tandem::rpc
