// Products of a tall matrix and a small one, and their gradients.
//
// MindSpore's own products run as fast on one core, but gain little from a second one.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "threads.h"

namespace {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64, vectors = 4, rows_at_once = 6;
#elif defined(__AVX__)
constexpr int vector_bytes = 32, vectors = 2, rows_at_once = 6;
#else
constexpr int vector_bytes = 16, vectors = 4, rows_at_once = 6;
#endif
constexpr int64_t rows_of_a_sum = 512;  // at least, where each part has a sum of its own that must be added up
constexpr int64_t block = 96;  // rows that stay in the nearest caches

template <class R>
struct Wide {
  typedef R type __attribute__((vector_size(vector_bytes), aligned(alignof(R)), may_alias));
  static constexpr int64_t lanes = vector_bytes / sizeof(R), panel = lanes * vectors;
};

// c (rows, vectors lanes) = start + a b over so many steps; element (r, k) of a lies at a[r * down + k * along], row
// k of b at b[k * stride].  ``start`` is one row for all (start_stride 0) or (rows, start_stride).
template <int rows, int vectors, class R>
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

template <int vectors, class R>
void tile_of(int64_t rows, int64_t steps, const R* a, int64_t down, int64_t along, const R* b, int64_t stride,
             const R* start, int64_t start_stride, R* c, int64_t c_stride) {
  switch (rows) {
    case 6: return tile<6, vectors, R>(steps, a, down, along, b, stride, start, start_stride, c, c_stride);
    case 5: return tile<5, vectors, R>(steps, a, down, along, b, stride, start, start_stride, c, c_stride);
    case 4: return tile<4, vectors, R>(steps, a, down, along, b, stride, start, start_stride, c, c_stride);
    case 3: return tile<3, vectors, R>(steps, a, down, along, b, stride, start, start_stride, c, c_stride);
    case 2: return tile<2, vectors, R>(steps, a, down, along, b, stride, start, start_stride, c, c_stride);
    default: return tile<1, vectors, R>(steps, a, down, along, b, stride, start, start_stride, c, c_stride);
  }
}

// b (K, N) as panels of its columns, (panels, K, panel), with zeros after the last column; element (i, j) of b lies at
// b[i * down + j * along].  Sixteen columns at once stay in the nearest cache whichever way b lies.
template <class R>
void pack(int64_t k, int64_t n, const R* b, int64_t down, int64_t along, R* packed) {
  constexpr int64_t panel = Wide<R>::panel, few = 16;
  for (int64_t first = 0; first < n; first += panel, packed += k * panel) {
    const int64_t width = std::min(panel, n - first);
    if (width < panel) std::fill(packed, packed + k * panel, R(0));
    for (int64_t start = 0; start < width; start += few) {
      const int64_t end = std::min(start + few, width);
      for (int64_t i = 0; i < k; ++i)
        for (int64_t j = start; j < end; ++j) packed[i * panel + j] = b[i * down + (first + j) * along];
    }
  }
}

// out (M, N) = bias + x (M, K) b; element (k, n) of b lies at b[k * b_down + n * b_along].
template <class R>
void multiply(int64_t m, int64_t k, int64_t n, const R* x, const R* b, int64_t b_down, int64_t b_along, const R* bias,
              R* out) {
  constexpr int64_t panel = Wide<R>::panel;
  const int64_t panels = (n + panel - 1) / panel;
  thread_local std::vector<R> kept;  // memory that is not asked for and cleared again at every call
  if (static_cast<int64_t>(kept.size()) < panels * k * panel) kept.resize(panels * k * panel);
  R* const packed = kept.data();
  pack(k, n, b, b_down, b_along, packed);
  std::vector<R> start(panels * panel, R(0));
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
          tile_of<vectors>(rows, k, x + i * k, k, int64_t(1), packed + p * k * panel, panel, &start[p * panel],
                           int64_t(0), c, width == panel ? n : panel);
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
  std::vector<std::vector<R>> sums(parts_of(m * k * n, 2, m / rows_of_a_sum));
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
          tile_of<vectors>(std::min<int64_t>(rows_at_once, n - j), steps, g + first * n + j, int64_t(1), n,
                           width < panel ? copy.data() : b, width < panel ? panel : k, c, stride, c, stride);
        }
      }
    }
    sums[part].swap(mine);
  });
  for (int64_t j = 0; j < n; ++j)
    for (int64_t i = 0; i < k; ++i) out[j * k + i] = total_of(sums, j * stride + i);
}

// out (N) = sum of the rows of g (M, N).
template <class R>
void column_sums(int64_t m, int64_t n, const R* g, R* out) {
  std::vector<std::vector<R>> sums(parts_of(4 * m * n, 2, m / rows_of_a_sum));
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
  for (int64_t j = 0; j < n; ++j) out[j] = total_of(sums, j);
}

}  // namespace
