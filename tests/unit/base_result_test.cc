#include "tandem/base/result.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>

#include "tandem/base/task.h"
#include "tandem/log_point.h"

namespace tandem {
namespace {

Result<int> half(int n) {
  if (n % 2 != 0) return Error{ErrorCode::kInvalid, "odd"};
  return n / 2;
}

Result<std::string> quarter_text(int n) {
  auto first = half(n);
  TANDEM_TRY(first);
  auto second = half(*first);
  TANDEM_TRY(second);
  return std::to_string(*second);
}

Status check_quarter(int n) {
  TANDEM_TRY(quarter_text(n));
  return ok();
}

Task<Result<std::string>> quarter_in_coroutine(int n) {
  auto text = quarter_text(n);
  TANDEM_CO_TRY(text);
  co_return *text + "!";
}

Task<void> store(Task<Result<std::string>> task, Result<std::string>* into) {
  *into = co_await std::move(task);
}

TEST(Result, ValueOrError) {
  EXPECT_EQ(*half(4), 2);
  ASSERT_FALSE(half(3).has_value());
  EXPECT_EQ(half(3).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(half(3).error().message, "odd");
}

TEST(Result, TryPassesTheFirstErrorOn) {
  EXPECT_EQ(*quarter_text(8), "2");
  EXPECT_EQ(quarter_text(6).error().message, "odd");
  EXPECT_TRUE(check_quarter(4).has_value());
  EXPECT_EQ(check_quarter(2).error().code, ErrorCode::kInvalid);
}

TEST(Result, CoTryReturnsFromTheCoroutine) {
  Result<std::string> result(ErrorCode::kIo, "not set");
  spawn(store(quarter_in_coroutine(8), &result));
  EXPECT_EQ(*result, "2!");
  spawn(store(quarter_in_coroutine(6), &result));
  EXPECT_EQ(result.error().message, "odd");
}

TEST(Result, CarriesMoveOnlyValues) {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(5);
  const std::unique_ptr<int> taken = std::move(*result);
  EXPECT_EQ(*taken, 5);
}

TEST(Result, EveryCodeHasItsOwnName) {
  std::set<std::string> names;
  int codes = 0;
  for (int i = 0; i <= static_cast<int>(ErrorCode::kCancelled); ++i, ++codes) {
    names.insert(to_string(static_cast<ErrorCode>(i)));
  }
  EXPECT_EQ(names.size(), static_cast<std::size_t>(codes));
  EXPECT_FALSE(names.contains("unknown"));
}

TEST(Names, OfRolesAndModes) {
  EXPECT_STREQ(to_string(Role::kPrimary), "primary");
  EXPECT_STREQ(to_string(Role::kMirror), "mirror");
  EXPECT_STREQ(to_string(Role::kFenced), "fenced");
  EXPECT_STREQ(to_string(ReplicationMode::kAsync), "async");
  EXPECT_STREQ(to_string(ReplicationMode::kFlush), "flush");
  EXPECT_STREQ(to_string(ReplicationMode::kSync), "sync");
}

}  // namespace
}  // namespace tandem
