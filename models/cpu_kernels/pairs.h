// Sums over the pairs of atoms, and their gradients.

#pragma once

#include <algorithm>
#include <cstdint>

#include "threads.h"

namespace {

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

}  // namespace
