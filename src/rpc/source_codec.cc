#include "rpc/source_codec.h"

#include "rpc/link_codec.h"
#include "rpc/translation.h"
#include "rpc/wire.h"

namespace tandem::rpc {

void to_proto(const std::vector<message::Source>& sources, ProtoSources* out) {
  for (const auto& source : sources) {
    auto* one = out->Add();
    one->set_pool(uuid_bytes(source.pool));
    one->set_node(wire::utf8(source.node));
  }
}

Status from_proto(const ProtoSources& in, std::vector<message::Source>& out) {
  if (in.size() > kSourcesMax) {
    return Error{ErrorCode::kInvalid,
                 "more than 16 mirrors feed each other in a row; shorten the chain"};
  }
  for (const auto& source : in) {
    message::Source one;
    one.node = source.node();
    if (!parse_uuid(source.pool(), one.pool) || one.node.size() > kNameBytesMax)
      return Error{ErrorCode::kInvalid, "a malformed way to a mirror"};
    out.push_back(std::move(one));
  }
  return ok();
}

}  // namespace tandem::rpc
