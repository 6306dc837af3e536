// Threads that share the work of a kernel.

#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

#if defined(__x86_64__)
inline void relax() { _mm_pause(); }
#else
inline void relax() {}
#endif

// Numbers too small for full precision are 0 in this thread from now on: they take a hundred times as long, and a trained
// network with gates and swishes makes many of them.  A thread that has run one kernel keeps this for other operators.
inline void flush_denormals() {
  static thread_local bool known = false;
  if (known) return;
  known = true;
  if (syscall(SYS_gettid) == getpid()) return;  // the thread of Python, whose numbers are not ours
#if defined(__x86_64__)
  _mm_setcsr(_mm_getcsr() | 0x8040);  // flush to zero, denormals are zero
#elif defined(__aarch64__)
  uint64_t control;
  asm volatile("mrs %0, fpcr" : "=r"(control));
  asm volatile("msr fpcr, %0" ::"r"(control | uint64_t(1) << 24));
#endif
}

constexpr auto patience = std::chrono::microseconds(500);  // a helper that waits longer sleeps

// Threads that help with the parts of a kernel.  The caller takes parts too and only waits for those that somebody has
// begun: a helper that comes late, on a machine with other work, delays nothing.
class Helpers {
 public:
  explicit Helpers(int threads) : threads(threads) {
    for (int i = 1; i < threads; ++i) std::thread([this] { serve(); }).detach();
  }

  // work(part, parts) for every part, in any order; alone where another kernel has the helpers.
  void run(int parts, const std::function<void(int, int)>& work) {
    std::unique_lock<std::mutex> mine(busy_, std::try_to_lock);
    if (!mine.owns_lock()) {
      for (int part = 0; part < parts; ++part) work(part, parts);
      return;
    }
    work_ = &work;
    done_.store(0, std::memory_order_relaxed);
    const uint64_t round = (state_.load(std::memory_order_relaxed) >> 32) + 1;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      state_.store(round << 32 | static_cast<uint64_t>(parts) << 16, std::memory_order_release);
    }
    if (asleep_.load() > 0) wake_.notify_all();
    while (take_part()) {
    }
    while (done_.load(std::memory_order_acquire) < parts) relax();
  }

  const int threads;

 private:
  // Does one part of what is to be done; false if all are taken.
  bool take_part() {
    uint64_t state = state_.load(std::memory_order_acquire);
    for (;;) {
      const int next = state & 0xffff, parts = state >> 16 & 0xffff;
      if (next >= parts) return false;
      if (state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel)) {
        (*work_)(next, parts);
        done_.fetch_add(1, std::memory_order_release);
        return true;
      }
    }
  }

  void serve() {
    flush_denormals();
    for (;;) {
      const uint64_t round = state_.load(std::memory_order_acquire) >> 32;
      if (take_part()) continue;
      const auto same = [&] { return state_.load(std::memory_order_acquire) >> 32 == round; };
      const auto start = std::chrono::steady_clock::now();
      while (same()) {
        for (int i = 0; i < 32 && same(); ++i) relax();
        if (std::chrono::steady_clock::now() - start < patience) continue;
        std::unique_lock<std::mutex> lock(mutex_);
        asleep_.fetch_add(1);
        wake_.wait(lock, [&] { return !same(); });
        asleep_.fetch_sub(1);
      }
    }
  }

  const std::function<void(int, int)>* work_ = nullptr;
  std::mutex busy_, mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> state_{0};  // 32 bits count the rounds, 16 its parts, 16 the parts that are taken
  std::atomic<int> done_{0}, asleep_{0};
};

std::atomic<int> wanted_threads{1};

// Never destroyed: its threads live as long as the process.  A forked child has none of them and makes its own.
Helpers& helpers() {
  static std::mutex mutex;
  static Helpers* made = nullptr;
  static pid_t owner = 0;
  std::lock_guard<std::mutex> lock(mutex);
  if (made == nullptr || owner != getpid()) {
    made = new Helpers(wanted_threads.load());
    owner = getpid();
  }
  return *made;
}

constexpr int64_t worth_sharing = 1 << 20;  // multiplications, some 20 microseconds; less is not worth a helper

constexpr int64_t smallest_part = worth_sharing / 4;

// How many parts a kernel of so many operations is cut into: more than threads, so that a late one gets less to do, but
// none too small, and not more than ``most``.
int parts_of(int64_t operations, int for_each_thread, int64_t most = 1 << 15) {
  if (operations < worth_sharing) return 1;
  const int threads = helpers().threads;
  if (threads == 1) return 1;
  const int64_t wanted = static_cast<int64_t>(threads) * for_each_thread;
  return static_cast<int>(std::max<int64_t>(1, std::min({wanted, operations / smallest_part, most})));
}

// work(part, parts) for every part.
void shared(int parts, const std::function<void(int, int)>& work) {
  if (parts == 1) return work(0, 1);
  helpers().run(parts, work);
}

struct Range {
  int64_t begin, end;
};

Range part_of(int64_t count, int part, int parts) { return {count * part / parts, count * (part + 1) / parts}; }

// Boundaries of ranges of rows that get about equally many of the entries of one or two indices.
std::vector<int64_t> fair_rows(int64_t rows, int64_t entries, const int32_t* first, const int32_t* second, int parts) {
  std::vector<int64_t> bounds(parts + 1, rows);
  bounds[0] = 0;
  if (parts == 1) return bounds;
  std::vector<int32_t> count(rows, 0);
  for (int64_t e = 0; e < entries; ++e) ++count[first[e]];
  if (second != nullptr)
    for (int64_t e = 0; e < entries; ++e) ++count[second[e]];
  const int64_t all = second != nullptr ? 2 * entries : entries;
  int64_t sum = 0;
  int part = 1;
  for (int64_t row = 0; row < rows && part < parts; ++row) {
    sum += count[row];
    while (part < parts && sum * parts >= all * part) bounds[part++] = row + 1;
  }
  return bounds;
}

// Number i of all parts' own sums, added up in the order of the parts.
template <class R>
R total_of(const std::vector<std::vector<R>>& sums, int64_t i) {
  R total = 0;
  for (const auto& one : sums) total += one[i];
  return total;
}

}  // namespace
