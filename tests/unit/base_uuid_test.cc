#include "tandem/base/uuid.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

constexpr const char* kText = "01234567-89ab-4def-8123-456789abcdef";

TEST(Uuid, TextRoundTrip) {
  const auto uuid = Uuid::parse(kText);
  ASSERT_TRUE(uuid.has_value());
  EXPECT_EQ(uuid->bytes[0], 0x01);
  EXPECT_EQ(uuid->bytes[6], 0x4d);
  EXPECT_EQ(uuid->bytes[15], 0xef);
  EXPECT_EQ(uuid->text(), kText);
}

TEST(Uuid, ReadsUpperCaseWritesLowerCase) {
  const auto uuid = Uuid::parse("01234567-89AB-4DEF-8123-456789ABCDEF");
  ASSERT_TRUE(uuid.has_value());
  EXPECT_EQ(uuid->text(), kText);
}

TEST(Uuid, RefusesEverythingElse) {
  for (const char* text :
       {"", "0123", "01234567-89ab-4def-8123-456789abcde", "01234567-89ab-4def-8123-456789abcdef0",
        "0123456789ab-4def-8123-456789abcdef--", "01234567x89ab-4def-8123-456789abcdef",
        "g1234567-89ab-4def-8123-456789abcdef", "{1234567-89ab-4def-8123-456789abcde}"}) {
    EXPECT_FALSE(Uuid::parse(text).has_value()) << text;
  }
}

TEST(Uuid, RandomOnesAreVersionFour) {
  for (std::uint64_t bits : {std::uint64_t{0}, ~std::uint64_t{0}}) {
    const Uuid uuid = Uuid::from_random(bits, bits);
    EXPECT_EQ(uuid.bytes[6] >> 4, 4);
    EXPECT_EQ(uuid.bytes[8] >> 6, 2);
    EXPECT_FALSE(uuid.is_nil());
    EXPECT_EQ(Uuid::parse(uuid.text()), uuid);
  }
  EXPECT_NE(Uuid::from_random(1, 2), Uuid::from_random(2, 1));
  EXPECT_TRUE(Uuid{}.is_nil());
}

}  // namespace
}  // namespace tandem
