// Text in messages is UTF-8 whatever it came from.
#include <grpcpp/support/byte_buffer.h>
#include <gtest/gtest.h>

#include "rpc/link_codec.h"
#include "rpc/wire.h"
#include "tests/unit/rpc_codec_fixture.h"

namespace tandem::rpc {
namespace {

TEST(Utf8, TextThatIsNotUtf8IsMadeSo) {
  EXPECT_EQ(wire::utf8("plain \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"),
            "plain \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80");
  EXPECT_EQ(wire::utf8("a\xff"
                       "b"),
            "a?b");
  EXPECT_EQ(wire::utf8("\xc3"), "?");
  EXPECT_EQ(wire::utf8("\xed\xa0\x80"), "???");  // a surrogate
  EXPECT_EQ(wire::utf8("\xc0\xaf"), "??");       // overlong
  const auto bytes = encoded(message::Refuse{ErrorCode::kIo, "disk \xff", {}});
  grpc::Slice slice(bytes);
  BufferPool pool(1 << 20);
  const auto back = decode(grpc::ByteBuffer(&slice, 1), pool);
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(std::get<message::Refuse>(*back).reason, "disk ?");
}

}  // namespace
}  // namespace tandem::rpc
