#include "tandem/base/command.h"

#include <gtest/gtest.h>

#include <thread>

namespace tandem {
namespace {

using namespace std::chrono_literals;

CommandOutput run(const std::string& command, Nanoseconds limit = 20s) {
  auto out = run_command(command, {{"TANDEM_GROUP", "g with blanks"}}, limit);
  EXPECT_TRUE(out.has_value()) << (out ? "" : out.error().message);
  return out ? *out : CommandOutput{};
}

TEST(Command, SaysHowItEndedAndWhatItPrinted) {
  const auto good = run("echo \"group $TANDEM_GROUP\"; echo more >&2");
  EXPECT_TRUE(good.good);
  EXPECT_EQ(good.ending, "exit code 0");
  EXPECT_EQ(good.text, "group g with blanks\nmore");
  const auto bad = run("echo no power; exit 3");
  EXPECT_FALSE(bad.good);
  EXPECT_EQ(bad.ending, "exit code 3");
  EXPECT_EQ(bad.text, "no power");
  EXPECT_EQ(run("kill -9 $$").ending, "killed by signal 9");
  EXPECT_EQ(run("no-such-program-anywhere").ending, "exit code 127");
  EXPECT_TRUE(run("if read line; then exit 1; fi").good) << "nothing is on its input";
}

TEST(Command, IsEndedWithItsChildrenWhenItTakesTooLong) {
  const auto before = std::chrono::steady_clock::now();
  const auto slow = run("echo begun; sleep 1000 & sleep 1000", 1s);
  EXPECT_FALSE(slow.good);
  EXPECT_EQ(slow.ending, "did not end within 1 s");
  EXPECT_EQ(slow.text, "begun");
  EXPECT_LT(std::chrono::steady_clock::now() - before, 30s);
  const auto silent = run("exec >&- 2>&-; sleep 1000", 1s);
  EXPECT_EQ(silent.ending, "did not end within 1 s");
}

TEST(Command, IsEndedWhenItIsGivenUp) {
  std::atomic<bool> given_up = false;
  std::thread later([&] {
    std::this_thread::sleep_for(200ms);
    given_up = true;
  });
  const auto out = run_command("echo begun; sleep 1000 & sleep 1000", {}, 100s, &given_up);
  later.join();
  ASSERT_TRUE(out);
  EXPECT_FALSE(out->good);
  EXPECT_EQ(out->ending, "was given up");
  EXPECT_EQ(out->text, "begun");
}

TEST(Command, DoesNotWaitForWhatItLeavesBehind) {
  const auto before = std::chrono::steady_clock::now();
  EXPECT_TRUE(run("sleep 30 & echo done").good);
  EXPECT_LT(std::chrono::steady_clock::now() - before, 20s);
}

TEST(Command, KeepsTheEndOfALongOutput) {
  const auto out = run("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done");
  EXPECT_TRUE(out.good);
  EXPECT_LE(out.text.size(), 4096u);
  EXPECT_NE(out.text.find("line 2999"), std::string::npos);
}

}  // namespace
}  // namespace tandem
