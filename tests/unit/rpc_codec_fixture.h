// Messages of a stream as the bytes that cross the network, for tests that pin them.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <vector>

#include "rpc/link_codec.h"

namespace tandem::rpc {

inline std::string flat(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(buffer.Dump(&slices).ok());
  std::string bytes;
  for (const auto& s : slices) bytes.append(reinterpret_cast<const char*>(s.begin()), s.size());
  return bytes;
}

inline std::string hex(const std::string& bytes) {
  std::string out;
  char digits[3];
  for (const char c : bytes) {
    std::snprintf(digits, sizeof digits, "%02x", static_cast<unsigned char>(c));
    out += digits;
  }
  return out;
}

inline std::string encoded(Message message) {
  auto bytes = encode(std::move(message));
  EXPECT_TRUE(bytes.has_value()) << (bytes ? "" : bytes.error().message);
  return bytes ? flat(*bytes) : "";
}

}  // namespace tandem::rpc
