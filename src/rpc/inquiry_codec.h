// Questions and answers of a stream (replication/inquiries.h) as protobuf messages; a part of
// link_codec. Thread: any.
#pragma once

#include "tandem/base/buffer.h"
#include "tandem/base/result.h"
#include "tandem/port/link.h"
#include "tandem/v1/replication.pb.h"

namespace tandem::rpc {

void fill(const message::BlockRequest& m, v1::StreamMessage& out);
void fill(const message::BlockAnswer& m, v1::StreamMessage& out);

/// kInvalid for what contradicts itself.
Result<Message> take(const v1::BlockRequest& in);
Result<Message> take(const v1::BlockAnswer& in, BufferPool& pool);

}  // namespace tandem::rpc
