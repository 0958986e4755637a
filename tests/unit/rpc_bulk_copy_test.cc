#include "rpc/bulk_copy.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/sim_runtime.h"

namespace tandem::rpc {
namespace {

TEST(BulkCopy, CopiesEveryByteAndNoMoreWhateverLiesWhere) {
  constexpr std::size_t kRoom = 3 * 4096, kFrame = 64;
  sim::SimRandom random(1);
  std::vector<std::byte> source(kRoom), target(kRoom);
  for (auto& byte : source) byte = std::byte(random.below(256));
  for (const std::size_t length : {0, 1, 63, 64, 1023, 1024, 1025, 1087, 1088, 4096, 4159, 8192}) {
    for (int i = 0; i < 100; ++i) {
      const std::size_t from = random.below(kRoom - length);
      const std::size_t to = kFrame + random.below(kRoom - 2 * kFrame - length);
      std::fill(target.begin(), target.end(), std::byte{0xa5});
      bulk_copy(std::span(target).subspan(to), std::span(source).subspan(from, length));
      std::vector<std::byte> wanted(kRoom, std::byte{0xa5});
      std::copy_n(source.begin() + static_cast<std::ptrdiff_t>(from), length,
                  wanted.begin() + static_cast<std::ptrdiff_t>(to));
      ASSERT_EQ(target, wanted) << length << " bytes from " << from << " to " << to;
    }
  }
}

}  // namespace
}  // namespace tandem::rpc
