// Kernels for CPUs that MindSpore calls as custom operators: each does in one pass over memory what takes several of
// MindSpore's operators there.  fused.py knows their derivatives, build.py compiles them.
//
// Letters: N nodes, E edges, P pairs, T triplets, F and I features, B basis functions.  Arrays are dense and row-major,
// of float32 or float64; indices are int32.  The same input gives the same bits for a fixed number of threads.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
static inline void relax() { _mm_pause(); }
#else
static inline void relax() {}
#endif

namespace {

// ---------------------------------------------------------------------------------------------------- threads

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

// How many parts a kernel of so many operations is cut into: more than threads, so that a late one gets less to do.
int parts_of(int64_t operations, int for_each_thread) {
  if (operations < worth_sharing) return 1;
  const int threads = helpers().threads;
  return threads == 1 ? 1 : threads * for_each_thread;
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

// ------------------------------------------------------------------------------------------------ activations

inline double exponential(double x) { return std::exp(x); }

// e^x to 1 unit in the last place for |x| < 87, and clamped beyond: reduction by ln 2 in two parts, then a polynomial.
inline float exponential(float x) {
  x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
  const float n = std::nearbyint(x * 1.44269504088896341f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return p * scale;
}

inline double logarithm_of_1_plus(double u) { return std::log1p(u); }

// ln(1 + u) for 0 <= u <= 1, as 2 artanh(u / (2 + u)).
inline float logarithm_of_1_plus(float u) {
  const float t = u / (2.0f + u), s = t * t;
  float p = 1.0f / 15.0f;
  p = p * s + 1.0f / 13.0f;
  p = p * s + 1.0f / 11.0f;
  p = p * s + 1.0f / 9.0f;
  p = p * s + 1.0f / 7.0f;
  p = p * s + 1.0f / 5.0f;
  p = p * s + 1.0f / 3.0f;
  return 2.0f * (t + t * s * p);
}

template <class R>
inline R sigmoid(R x) {
  return R(1) / (R(1) + exponential(-x));
}

struct Swish {  // x s(x)
  template <int order, class R>
  static inline R value(R x) {
    const R s = sigmoid(x), s1 = s * (R(1) - s);
    if (order == 0) return x * s;
    if (order == 1) return s + x * s1;
    return s1 * (R(2) + x * (R(1) - R(2) * s));
  }
};

struct ShiftedSoftplus {  // ln(1 + e^x) - ln 2
  template <int order, class R>
  static inline R value(R x) {
    if (order == 0) {
      const R positive = x > R(0) ? x : R(0);
      const R size = x > R(0) ? x : -x;
      return positive + (logarithm_of_1_plus(exponential(-size)) - R(0.693147180559945309417));
    }
    const R s = sigmoid(x);
    return order == 1 ? s : s * (R(1) - s);
  }
};

template <class F, int order, class R>
void activation(int64_t count, const R* x, const R* g, R* y) {
  shared(parts_of(16 * count, 4), [=](int part, int parts) {
    const Range range = part_of(count, part, parts);
    const R* __restrict from = x;
    const R* __restrict factor = g;
    R* __restrict to = y;
#pragma GCC ivdep
    for (int64_t i = range.begin; i < range.end; ++i) {
      const R value = F::template value<order>(from[i]);
      to[i] = order == 0 ? value : factor[i] * value;
    }
  });
}

// ------------------------------------------------------------------------------------------------------ pairs

// out[first] += c w x[second] and out[second] += c w x[first]; out (N, F), x (N, F), w (P, F), c (P).
template <class R>
void pair_sum(int64_t nodes, int64_t pairs, int64_t width, const R* x, const R* w, const R* c, const int32_t* first,
              const int32_t* second, R* out) {
  const auto bounds = fair_rows(nodes, pairs, first, second, parts_of(8 * pairs * width, 2));
  shared(bounds.size() - 1, [&](int part, int) {
    const int64_t begin = bounds[part], end = bounds[part + 1];
    std::fill(out + begin * width, out + end * width, R(0));
    for (int64_t p = 0; p < pairs; ++p) {
      const int64_t i = first[p], j = second[p];
      const R scale = c[p];
      const R* __restrict filter = w + p * width;
      if (i >= begin && i < end) {
        R* __restrict to = out + i * width;
        const R* from = x + j * width;
#pragma GCC ivdep
        for (int64_t f = 0; f < width; ++f) to[f] += scale * filter[f] * from[f];
      }
      if (j >= begin && j < end) {
        R* __restrict to = out + j * width;
        const R* from = x + i * width;
#pragma GCC ivdep
        for (int64_t f = 0; f < width; ++f) to[f] += scale * filter[f] * from[f];
      }
    }
  });
}

// out = c (g[first] x[second] + g[second] x[first]); out (P, F).
template <class R>
void pair_filters(int64_t pairs, int64_t width, const R* g, const R* x, const R* c, const int32_t* first,
                  const int32_t* second, R* out) {
  shared(parts_of(8 * pairs * width, 4), [=](int part, int parts) {
    const Range range = part_of(pairs, part, parts);
    for (int64_t p = range.begin; p < range.end; ++p) {
      const int64_t i = first[p] * width, j = second[p] * width;
      R* __restrict to = out + p * width;
      const R scale = c[p];
#pragma GCC ivdep
      for (int64_t f = 0; f < width; ++f) to[f] = scale * (g[i + f] * x[j + f] + g[j + f] * x[i + f]);
    }
  });
}

// out = sum_f w (g[first] x[second] + g[second] x[first]); out (P).
template <class R>
void pair_scales(int64_t pairs, int64_t width, const R* g, const R* x, const R* w, const int32_t* first,
                 const int32_t* second, R* out) {
  shared(parts_of(8 * pairs * width, 4), [=](int part, int parts) {
    const Range range = part_of(pairs, part, parts);
    for (int64_t p = range.begin; p < range.end; ++p) {
      const int64_t i = first[p] * width, j = second[p] * width;
      const R* filter = w + p * width;
      R sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t f = 0; f < width; ++f) sum += filter[f] * (g[i + f] * x[j + f] + g[j + f] * x[i + f]);
      out[p] = sum;
    }
  });
}

// --------------------------------------------------------------------------------------------------- triplets

constexpr int usual_basis = 8;  // B of DimeNet++: loops of known length

template <class R>
std::vector<R> transposed(const R* matrix, int64_t rows, int64_t columns) {
  std::vector<R> result(rows * columns);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t k = 0; k < columns; ++k) result[k * rows + i] = matrix[i * columns + k];
  return result;
}

// Filters of one triplet, sum_b r_b w_b for every feature; w is (B, I).
template <int known, class R>
inline R filter(const R* __restrict r, const R* __restrict w, int64_t width, int64_t basis, int64_t f) {
  R sum = 0;
  for (int64_t b = 0; b < (known ? known : basis); ++b) sum += r[b] * w[b * width + f];
  return sum;
}

// out[to_t] += x[from_t] (W r_t); out and x (E, I), r (T, B), w (B, I).
template <int known, class R>
void triplet_sum(int64_t edges, int64_t triplets, int64_t width, int64_t basis, const R* x, const R* r, const R* w,
                 const int32_t* from, const int32_t* to, R* out) {
  const auto bounds = fair_rows(edges, triplets, to, nullptr, parts_of(triplets * width * basis, 2));
  shared(bounds.size() - 1, [&](int part, int) {
    const int64_t begin = bounds[part], end = bounds[part + 1];
    std::fill(out + begin * width, out + end * width, R(0));
    for (int64_t t = 0; t < triplets; ++t) {
      if (to[t] < begin || to[t] >= end) continue;
      R* __restrict sum = out + to[t] * width;
      const R* __restrict source = x + from[t] * width;
      const R* __restrict row = r + t * basis;
#pragma GCC ivdep
      for (int64_t f = 0; f < width; ++f) sum[f] += source[f] * filter<known>(row, w, width, basis, f);
    }
  });
}

// out_t = W^T (g[to_t] x[from_t]); out (T, B).
template <int known, class R>
void triplet_rows(int64_t triplets, int64_t width, int64_t basis, const R* g, const R* x, const R* w,
                  const int32_t* from, const int32_t* to, R* out) {
  shared(parts_of(triplets * width * basis, 4), [=](int part, int parts) {
    const Range range = part_of(triplets, part, parts);
    std::vector<R> product(width);
    R* __restrict q = product.data();
    for (int64_t t = range.begin; t < range.end; ++t) {
      const R* __restrict upper = g + to[t] * width;
      const R* __restrict source = x + from[t] * width;
      for (int64_t f = 0; f < width; ++f) q[f] = upper[f] * source[f];
      for (int64_t b = 0; b < (known ? known : basis); ++b) {
        const R* __restrict column = w + b * width;
        R sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t f = 0; f < width; ++f) sum += q[f] * column[f];
        out[t * basis + b] = sum;
      }
    }
  });
}

// out = sum_t (g[to_t] x[from_t]) r_t^T; out (I, B).
template <int known, class R>
void triplet_weights(int64_t triplets, int64_t width, int64_t basis, const R* g, const R* x, const R* r,
                     const int32_t* from, const int32_t* to, R* out) {
  std::vector<std::vector<R>> sums(parts_of(triplets * width * basis, 2));
  shared(sums.size(), [&](int part, int parts) {
    std::vector<R> mine(width * basis, R(0));
    R* __restrict sum = mine.data();
    const Range range = part_of(triplets, part, parts);
    for (int64_t t = range.begin; t < range.end; ++t) {
      const R* __restrict upper = g + to[t] * width;
      const R* __restrict source = x + from[t] * width;
      const R* __restrict row = r + t * basis;
#pragma GCC ivdep
      for (int64_t f = 0; f < width; ++f) {
        const R product = upper[f] * source[f];
        for (int64_t b = 0; b < (known ? known : basis); ++b) sum[b * width + f] += row[b] * product;
      }
    }
    sums[part].swap(mine);
  });
  for (int64_t f = 0; f < width; ++f)
    for (int64_t b = 0; b < basis; ++b) {
      R total = 0;
      for (const auto& one : sums) total += one[b * width + f];
      out[f * basis + b] = total;
    }
}

// --------------------------------------------------------------------------------------- products of matrices

// MindSpore's own products run as fast on one core, but gain little from a second one.

#if defined(__AVX512F__)
constexpr int vector_bytes = 64, vectors = 4, rows_at_once = 6;
#elif defined(__AVX__)
constexpr int vector_bytes = 32, vectors = 2, rows_at_once = 6;
#else
constexpr int vector_bytes = 16, vectors = 4, rows_at_once = 6;
#endif
constexpr int64_t block = 96;  // rows that stay in the nearest caches

template <class R>
struct Wide {
  typedef R type __attribute__((vector_size(vector_bytes), aligned(alignof(R)), may_alias));
  static constexpr int64_t lanes = vector_bytes / sizeof(R), panel = lanes * vectors;
};

// c (rows, panel) = start + a b over so many steps; element (r, k) of a lies at a[r * down + k * along], row k of b at
// b[k * stride].  ``start`` is one row for all (start_stride 0) or (rows, start_stride).
template <int rows, class R>
inline void tile(int64_t steps, const R* __restrict a, int64_t down, int64_t along, const R* __restrict b,
                 int64_t stride, const R* start, int64_t start_stride, R* c, int64_t c_stride) {
  using V = typename Wide<R>::type;
  constexpr int64_t lanes = Wide<R>::lanes;
  V sum[rows][vectors];
  for (int r = 0; r < rows; ++r)
    for (int v = 0; v < vectors; ++v)
      sum[r][v] = *reinterpret_cast<const V*>(start + r * start_stride + v * lanes);
  for (int64_t k = 0; k < steps; ++k) {
    V row[vectors];
    for (int v = 0; v < vectors; ++v) row[v] = *reinterpret_cast<const V*>(b + k * stride + v * lanes);
    for (int r = 0; r < rows; ++r) {
      const R factor = a[r * down + k * along];
      for (int v = 0; v < vectors; ++v) sum[r][v] += factor * row[v];
    }
  }
  for (int r = 0; r < rows; ++r)
    for (int v = 0; v < vectors; ++v) *reinterpret_cast<V*>(c + r * c_stride + v * lanes) = sum[r][v];
}

template <class R>
void tile_of(int64_t rows, int64_t steps, const R* a, int64_t down, int64_t along, const R* b, int64_t stride,
             const R* start, int64_t start_stride, R* c, int64_t c_stride) {
  switch (rows) {
    case 6: return tile<6, R>(steps, a, down, along, b, stride, start, start_stride, c, c_stride);
    case 5: return tile<5, R>(steps, a, down, along, b, stride, start, start_stride, c, c_stride);
    case 4: return tile<4, R>(steps, a, down, along, b, stride, start, start_stride, c, c_stride);
    case 3: return tile<3, R>(steps, a, down, along, b, stride, start, start_stride, c, c_stride);
    case 2: return tile<2, R>(steps, a, down, along, b, stride, start, start_stride, c, c_stride);
    default: return tile<1, R>(steps, a, down, along, b, stride, start, start_stride, c, c_stride);
  }
}

// out (M, N) = bias + x (M, K) b; element (k, n) of b lies at b[k * b_down + n * b_along].
template <class R>
void multiply(int64_t m, int64_t k, int64_t n, const R* x, const R* b, int64_t b_down, int64_t b_along, const R* bias,
              R* out) {
  constexpr int64_t panel = Wide<R>::panel;
  const int64_t panels = (n + panel - 1) / panel;
  std::vector<R> packed(panels * k * panel, R(0)), start(panels * panel, R(0));
  for (int64_t j = 0; j < n; ++j)
    for (int64_t i = 0; i < k; ++i)
      packed[(j / panel * k + i) * panel + j % panel] = b[i * b_down + j * b_along];
  if (bias != nullptr) std::copy(bias, bias + n, start.begin());
  shared(parts_of(m * k * n, 4), [&](int part, int parts) {
    const Range range = part_of(m, part, parts);
    R edge[rows_at_once * panel];
    for (int64_t first = range.begin; first < range.end; first += block)
      for (int64_t p = 0; p < panels; ++p) {
        const int64_t width = std::min(panel, n - p * panel), last = std::min(first + block, range.end);
        for (int64_t i = first; i < last; i += rows_at_once) {
          const int64_t rows = std::min<int64_t>(rows_at_once, last - i);
          R* c = width == panel ? out + i * n + p * panel : edge;
          tile_of(rows, k, x + i * k, k, int64_t(1), &packed[p * k * panel], panel, &start[p * panel], int64_t(0), c,
                  width == panel ? n : panel);
          if (width < panel)
            for (int64_t r = 0; r < rows; ++r)
              std::copy(edge + r * panel, edge + r * panel + width, out + (i + r) * n + p * panel);
        }
      }
  });
}

// out (N, K) = g^T x with g (M, N), x (M, K): each thread sums over its rows.
template <class R>
void outer(int64_t m, int64_t n, int64_t k, const R* g, const R* x, R* out) {
  constexpr int64_t panel = Wide<R>::panel;
  const int64_t panels = (k + panel - 1) / panel, stride = panels * panel;
  std::vector<std::vector<R>> sums(parts_of(m * k * n, 2));
  shared(sums.size(), [&](int part, int parts) {
    std::vector<R> mine(n * stride, R(0)), copy(k % panel ? block * panel : 0, R(0));
    const Range range = part_of(m, part, parts);
    for (int64_t first = range.begin; first < range.end; first += block) {
      const int64_t steps = std::min(block, range.end - first);
      for (int64_t p = 0; p < panels; ++p) {
        const int64_t width = std::min(panel, k - p * panel);
        const R* b = x + first * k + p * panel;
        if (width < panel)
          for (int64_t i = 0; i < steps; ++i) std::copy(b + i * k, b + i * k + width, copy.data() + i * panel);
        for (int64_t j = 0; j < n; j += rows_at_once) {
          R* c = mine.data() + j * stride + p * panel;
          tile_of(std::min<int64_t>(rows_at_once, n - j), steps, g + first * n + j, int64_t(1), n,
                  width < panel ? copy.data() : b, width < panel ? panel : k, c, stride, c, stride);
        }
      }
    }
    sums[part].swap(mine);
  });
  for (int64_t j = 0; j < n; ++j)
    for (int64_t i = 0; i < k; ++i) {
      R total = 0;
      for (const auto& one : sums) total += one[j * stride + i];
      out[j * k + i] = total;
    }
}

// out (N) = sum of the rows of g (M, N).
template <class R>
void column_sums(int64_t m, int64_t n, const R* g, R* out) {
  std::vector<std::vector<R>> sums(parts_of(4 * m * n, 2));
  shared(sums.size(), [&](int part, int parts) {
    std::vector<R> mine(n, R(0));
    R* __restrict sum = mine.data();
    const Range range = part_of(m, part, parts);
    for (int64_t i = range.begin; i < range.end; ++i) {
      const R* __restrict row = g + i * n;
      for (int64_t j = 0; j < n; ++j) sum[j] += row[j];
    }
    sums[part].swap(mine);
  });
  for (int64_t j = 0; j < n; ++j) {
    R total = 0;
    for (const auto& one : sums) total += one[j];
    out[j] = total;
  }
}

bool is_double(const char* type) { return std::strcmp(type, "float64") == 0; }

int64_t size(int rank, const int64_t* shape) {
  int64_t result = 1;
  for (int i = 0; i < rank; ++i) result *= shape[i];
  return result;
}

}  // namespace

// ---------------------------------------------------------------------------------------------- what is called

// How many threads share a kernel; only counts before the first one.
extern "C" void set_threads(int threads) { wanted_threads.store(std::max(1, threads)); }

#define KERNEL(name)                                                                                             \
  extern "C" int name(int, [[maybe_unused]] void** data, [[maybe_unused]] int* ranks,                            \
                      [[maybe_unused]] int64_t** shapes, [[maybe_unused]] const char** types, void*, void*)
#define REAL(index) static_cast<R*>(data[index])
#define INDEX(index) static_cast<const int32_t*>(data[index])

// Calls body<float> or body<double>, by the type of the first input.
template <class Body>
int by_type(const char* type, Body body) {
  if (is_double(type)) {
    body(double());
  } else {
    body(float());
  }
  return 0;
}

#define ACTIVATION(name, F)                                                                                      \
  KERNEL(name##_0) {                                                                                             \
    return by_type(types[0], [&](auto zero) {                                                                    \
      using R = decltype(zero);                                                                                  \
      activation<F, 0, R>(size(ranks[0], shapes[0]), REAL(0), nullptr, REAL(1));                                 \
    });                                                                                                          \
  }                                                                                                              \
  KERNEL(name##_1) {                                                                                             \
    return by_type(types[0], [&](auto zero) {                                                                    \
      using R = decltype(zero);                                                                                  \
      activation<F, 1, R>(size(ranks[0], shapes[0]), REAL(0), REAL(1), REAL(2));                                 \
    });                                                                                                          \
  }                                                                                                              \
  KERNEL(name##_2) {                                                                                             \
    return by_type(types[0], [&](auto zero) {                                                                    \
      using R = decltype(zero);                                                                                  \
      activation<F, 2, R>(size(ranks[0], shapes[0]), REAL(0), REAL(1), REAL(2));                                 \
    });                                                                                                          \
  }

ACTIVATION(swish, Swish)
ACTIVATION(shifted_softplus, ShiftedSoftplus)

KERNEL(pair_sum) {  // x (N, F), w (P, F), c (P, 1), first, second -> (N, F)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    pair_sum<R>(shapes[0][0], shapes[1][0], shapes[0][1], REAL(0), REAL(1), REAL(2), INDEX(3), INDEX(4), REAL(5));
  });
}

KERNEL(pair_filters) {  // g, x (N, F), c (P, 1), first, second -> (P, F)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    pair_filters<R>(shapes[2][0], shapes[0][1], REAL(0), REAL(1), REAL(2), INDEX(3), INDEX(4), REAL(5));
  });
}

KERNEL(pair_scales) {  // g, x (N, F), w (P, F), first, second -> (P, 1)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    pair_scales<R>(shapes[2][0], shapes[0][1], REAL(0), REAL(1), REAL(2), INDEX(3), INDEX(4), REAL(5));
  });
}

KERNEL(triplet_sum) {  // x (E, I), r (T, B), w (I, B), from, to -> (E, I)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    const int64_t width = shapes[0][1], basis = shapes[1][1];
    const auto w = transposed(REAL(2), width, basis);
    const auto call = basis == usual_basis ? triplet_sum<usual_basis, R> : triplet_sum<0, R>;
    call(shapes[0][0], shapes[1][0], width, basis, REAL(0), REAL(1), w.data(), INDEX(3), INDEX(4), REAL(5));
  });
}

KERNEL(triplet_rows) {  // g, x (E, I), w (I, B), from, to -> (T, B)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    const int64_t width = shapes[0][1], basis = shapes[2][1];
    const auto w = transposed(REAL(2), width, basis);
    const auto call = basis == usual_basis ? triplet_rows<usual_basis, R> : triplet_rows<0, R>;
    call(shapes[3][0], width, basis, REAL(0), REAL(1), w.data(), INDEX(3), INDEX(4), REAL(5));
  });
}

KERNEL(triplet_weights) {  // g, x (E, I), r (T, B), from, to -> (I, B)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    const int64_t width = shapes[0][1], basis = shapes[2][1];
    const auto call = basis == usual_basis ? triplet_weights<usual_basis, R> : triplet_weights<0, R>;
    call(shapes[3][0], width, basis, REAL(0), REAL(1), REAL(2), INDEX(3), INDEX(4), REAL(5));
  });
}

KERNEL(linear) {  // x (M, K), w (N, K), b (N,) -> (M, N)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    multiply<R>(shapes[0][0], shapes[0][1], shapes[1][0], REAL(0), REAL(1), 1, shapes[0][1], REAL(2), REAL(3));
  });
}

KERNEL(linear_without_bias) {  // x (M, K), w (N, K) -> (M, N)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    multiply<R>(shapes[0][0], shapes[0][1], shapes[1][0], REAL(0), REAL(1), 1, shapes[0][1], nullptr, REAL(2));
  });
}

KERNEL(linear_inputs) {  // g (M, N), w (N, K) -> (M, K)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    multiply<R>(shapes[0][0], shapes[0][1], shapes[1][1], REAL(0), REAL(1), shapes[1][1], 1, nullptr, REAL(2));
  });
}

KERNEL(linear_weights) {  // g (M, N), x (M, K) -> (N, K)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    outer<R>(shapes[0][0], shapes[0][1], shapes[1][1], REAL(0), REAL(1), REAL(2));
  });
}

KERNEL(column_sums) {  // g (M, N) -> (N,)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    column_sums<R>(shapes[0][0], shapes[0][1], REAL(0), REAL(1));
  });
}
