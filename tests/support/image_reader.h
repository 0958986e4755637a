// A simulated disk's image as tandem-inspect reads one.
#pragma once

#include <string>

#include "inspect/verify.h"
#include "tests/support/sim_disk.h"

namespace tandem::sim {

class ImageReader final : public inspect::BlockReader {
 public:
  explicit ImageReader(const SimImage& image) : image_(image) {}
  Status read(PoolBlock first, std::span<std::byte> into) override {
    if (first.value * kBlockBytes + into.size() > image_.size_bytes()) {
      return Error{ErrorCode::kCorrupt, "behind the end of the image"};
    }
    image_.read(first.value * kBlockBytes, into);
    return ok();
  }
  std::uint64_t blocks() const override { return image_.size_bytes() / kBlockBytes; }
  std::string name() const override { return "image"; }

 private:
  const SimImage& image_;
};

}  // namespace tandem::sim
