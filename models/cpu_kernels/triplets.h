// Sums over the triplets of atoms, and their gradients.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "threads.h"

namespace {

constexpr int64_t triplets_of_a_sum = 2048;  // at least, where each part has a sum of its own
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
  std::vector<std::vector<R>> sums(parts_of(triplets * width * basis, 2, triplets / triplets_of_a_sum));
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
    for (int64_t b = 0; b < basis; ++b) out[f * basis + b] = total_of(sums, b * width + f);
}

}  // namespace
