// simulate: lives of a pair, each in a world of its own that its seed decides; see tests/README.md.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "tests/sim/simulate/pair_chaos.h"

namespace tandem::sim {
namespace {

struct Arguments {
  std::uint64_t seed = 0, first = 1, seeds = 1;
  double seconds = 0;
  std::string log;
  bool json = false, expect_failure = false, require_marks = false, twice = false;
};

/// Of the seed that runs: a CHECK of the product ends the process, and must name it too.
struct LastWords {
  char replay[128] = "";
  bool is_success = false;
};
LastWords last_words;

extern "C" void on_abort(int) {
  const ssize_t told = write(STDERR_FILENO, last_words.replay, std::strlen(last_words.replay));
  (void)told;
  if (last_words.is_success) _exit(0);
  std::signal(SIGABRT, SIG_DFL);
}

class Campaign {
 public:
  Campaign(Arguments arguments, std::string program)
      : arguments_(std::move(arguments)), program_(std::move(program)), chronicle_(detail()) {}

  int run() {
    last_words.is_success = arguments_.expect_failure;
    std::signal(SIGABRT, &on_abort);
    std::setvbuf(stdout, nullptr, _IOLBF, 0);  // what was told is there when a CHECK ends it
    const bool one = arguments_.seed != 0;
    const std::uint64_t first = one ? arguments_.seed : arguments_.first;
    for (std::uint64_t n = 0; one ? n < 1 : is_wanted(n); ++n) {
      run_seed(first + n);
      if (failures_ != 0 && (arguments_.expect_failure || !arguments_.json)) break;
    }
    summary();
    if (arguments_.expect_failure) return failures_ != 0 ? 0 : 1;
    return failures_ == 0 && (!arguments_.require_marks || missing_marks().empty()) ? 0 : 1;
  }

 private:
  Chronicle::Detail detail() const {
    if (arguments_.log == "full") return Chronicle::Detail::kFull;
    return arguments_.log == "short" ? Chronicle::Detail::kShort : Chronicle::Detail::kNone;
  }
  bool is_wanted(std::uint64_t n) const {
    return arguments_.seconds != 0 ? seconds_since_start() < arguments_.seconds
                                   : n < arguments_.seeds;
  }
  double seconds_since_start() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
  }
  std::string replay(std::uint64_t seed) const {
    return program_ + " --seed " + std::to_string(seed) + " --log full";
  }

  void run_seed(std::uint64_t seed) {
    const Swarm swarm = Swarm::from_seed(seed);
    std::snprintf(last_words.replay, sizeof last_words.replay, "replay: %s\n",
                  replay(seed).c_str());
    const bool told = !arguments_.log.empty() && !arguments_.json;
    if (told) std::printf("seed %llu: %s\n", number(seed), swarm.text().c_str());
    PairChaos chaos(seed, swarm, chronicle_);
    chaos.run();
    std::string problem = chaos.problem();
    if (problem.empty() && arguments_.twice) {
      PairChaos again(seed, swarm, chronicle_);
      again.run();
      if (again.trace() != chaos.trace()) problem = "a second run took another path";
    }
    ++seeds_;
    acknowledged_ += chaos.acknowledged();
    simulated_seconds_ += std::chrono::duration<double>(chaos.time()).count();
    if (problem.empty()) return;
    ++failures_;
    failed_.push_back(
        {{"seed", seed}, {"problem", problem}, {"replay", replay(seed)}, {"swarm", swarm.json()}});
    if (arguments_.json) return;
    std::printf("seed %llu FAILED: %s\n  world: %s\n  replay: %s\n", number(seed), problem.c_str(),
                swarm.text().c_str(), replay(seed).c_str());
  }

  static unsigned long long number(std::uint64_t value) { return value; }

  std::vector<std::string> missing_marks() const {
    std::vector<std::string> missing;
    for (const Mark& mark : all_marks()) {
      if (mark.in_ci && !chronicle_.marks().contains(mark.name)) missing.push_back(mark.name);
    }
    return missing;
  }

  void summary() const {
    if (arguments_.json) {
      nlohmann::json marks = nlohmann::json::object();
      for (const Mark& mark : all_marks()) {
        const auto found = chronicle_.marks().find(mark.name);
        marks[mark.name] = found == chronicle_.marks().end() ? 0 : found->second;
      }
      const nlohmann::json all{{"seeds", seeds_},
                               {"failures", failed_},
                               {"marks", marks},
                               {"acknowledged", acknowledged_},
                               {"simulated_seconds", simulated_seconds_},
                               {"seconds", seconds_since_start()}};
      std::printf("%s\n", all.dump(2).c_str());
      return;
    }
    for (const Mark& mark : all_marks()) {
      const auto found = chronicle_.marks().find(mark.name);
      const std::uint64_t count = found == chronicle_.marks().end() ? 0 : found->second;
      std::printf("%8llu  %-26s %s\n", number(count), mark.name, mark.meaning);
    }
    std::printf(
        "%llu seeds, %llu failed; %zu changes acknowledged in %.0f simulated seconds, %.1f s\n",
        number(seeds_), number(failures_), acknowledged_, simulated_seconds_,
        seconds_since_start());
    if (arguments_.require_marks) {
      for (const auto& name : missing_marks())
        std::printf("NOT REACHED: %s: these seeds prove less than they should\n", name.c_str());
    }
    if (arguments_.expect_failure && failures_ == 0)
      std::printf("NOT CAUGHT: the planted bug passed every seed\n");
  }

  Arguments arguments_;
  std::string program_;
  Chronicle chronicle_;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::uint64_t seeds_ = 0, failures_ = 0;
  std::size_t acknowledged_ = 0;
  double simulated_seconds_ = 0;
  nlohmann::json failed_ = nlohmann::json::array();
};

int main_with(int argc, char** argv) {
  Arguments arguments;
  CLI::App app{
      "Lives of a replicated pair in a simulated world. Each seed draws a world: which "
      "faults strike its disks, network and nodes, and what its operator does; then it "
      "must keep what was promised, and come together again when the faults end."};
  auto* seed =
      app.add_option("--seed", arguments.seed, "run this seed alone: the replay of a failure")
          ->check(CLI::PositiveNumber);
  auto* seeds = app.add_option("--seeds", arguments.seeds, "run so many seeds (1)")->excludes(seed);
  app.add_option("--first", arguments.first, "the first of them (1)")->excludes(seed);
  app.add_option("--for", arguments.seconds, "run seeds for so many seconds")
      ->excludes(seed)
      ->excludes(seeds);
  app.add_option("--log", arguments.log,
                 "short: what the simulation does, and both nodes after each step; full: and what "
                 "the nodes log")
      ->check(CLI::IsMember({"short", "full"}));
  app.add_flag("--json", arguments.json, "the summary as JSON; goes on after a failure");
  app.add_flag("--twice", arguments.twice, "run each seed twice; both must take the same path");
  app.add_flag("--require-marks", arguments.require_marks,
               "fail when a situation that the seeds of the tests reach was not reached");
  app.add_flag("--expect-failure", arguments.expect_failure,
               "succeed when a seed fails: for planted bugs");
  CLI11_PARSE(app, argc, argv);
  return Campaign(arguments, argv[0]).run();
}

}  // namespace
}  // namespace tandem::sim

int main(int argc, char** argv) { return tandem::sim::main_with(argc, argv); }
