// Products of row_blocks.h whose channels have a weight each, of every row or of all, and their gradients.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "products.h"
#include "row_blocks.h"
#include "threads.h"

namespace {

constexpr int64_t rows_of_few_sums = 128;  // as rows_of_a_sum, for sums of one row

// The segments of a table with the place of their first weight and the factor of all their weights.  x, T, w and y
// belong to one row; w may have fewer, which then begin again: one row for all, or one for both edges of a pair.
template <class R>
struct WeightedBlocks {
  Widths widths;
  int64_t weights, rows_of_w;
  Table table;
  const int32_t* places;
  const R* factors;

  int64_t operations() const { return table.operations() + 2 * widths.z; }

  // f(segment, its weights in the row of w, its factor) for all segments.
  template <class W, class F>
  void for_each(W* row_of_weights, F f) const {
    for (int64_t k = 0; k < table.count; ++k) f(table.segments[k], row_of_weights + places[k], factors[k]);
  }

  int64_t weights_of(int64_t row) const { return row % rows_of_w * weights; }
};

// y (M, width) from x (M, width), T (M, width) and w (M, C), (M / 2, C) or (1, C).
template <class R>
void weighted_blocks(int64_t rows, const WeightedBlocks<R>& shape, const R* x, const R* t, const R* w, R* y) {
  const Widths widths = shape.widths;
  shared(parts_of(rows * shape.operations(), 4), [&](int part, int parts) {
    const Range range = part_of(rows, part, parts);
    for (int64_t e = range.begin; e < range.end; ++e) {
      if (is_zero(t + e * widths.t, widths.t) || is_zero(w + shape.weights_of(e), shape.weights)) {
        std::fill_n(y + e * widths.z, widths.z, R(0));
        continue;
      }
      shape.for_each(w + shape.weights_of(e), [&](const Segment& s, const R* weights, R factor) {
        const R* from = x + e * widths.x + s.x;
        const R* matrix = t + e * widths.t + s.matrix;
        R* to = y + e * widths.z + s.out;
        by_shape(s, [&](auto rows, auto columns) { forward<columns, rows>(s, from, matrix, to, weights, factor); });
      });
    }
  });
}

// The gradients in x (M, width) and in T (M, width), from g (M, width of y): both are made of that in the products.
template <class R>
void weighted_gradients(int64_t rows, const WeightedBlocks<R>& shape, const R* g, const R* t, const R* w, const R* x,
                        R* of_x, R* of_t) {
  const Widths widths = shape.widths;
  int64_t most = 0;
  for (const Segment& s : shape.table) most = std::max(most, int64_t(s.rows) * s.width);
  shared(parts_of(2 * rows * shape.operations(), 4), [&](int part, int parts) {
    const Range range = part_of(rows, part, parts);
    std::vector<R> scaled(most);
    std::fill(of_x + range.begin * widths.x, of_x + range.end * widths.x, R(0));
    std::fill(of_t + range.begin * widths.t, of_t + range.end * widths.t, R(0));
    for (int64_t e = range.begin; e < range.end; ++e) {
      if (is_zero(w + shape.weights_of(e), shape.weights)) continue;
      const bool fixed = is_zero(t + e * widths.t, widths.t), still = is_zero(x + e * widths.x, widths.x);
      if (fixed && still) continue;
      shape.for_each(w + shape.weights_of(e), [&](const Segment& s, const R* __restrict weights, R factor) {
        for (int i = 0; i < s.rows; ++i) {
          const R* __restrict from = g + e * widths.z + s.out + i * s.out_stride;
          R* __restrict to = scaled.data() + i * s.width;
          for (int c = 0; c < s.width; ++c) to[c] = factor * weights[c] * from[c];
        }
        Segment own = s;
        own.out_stride = s.width;
        const int64_t matrix = e * widths.t + s.matrix, row = e * widths.x + s.x;
        by_shape(s, [&](auto rows, auto columns) {
          if (!fixed) backward<columns, rows>(own, scaled.data(), t + matrix, of_x + row);
          if (!still) products<columns, rows>(own, scaled.data(), x + row, of_t + matrix);
        });
      });
    }
  });
}

// The gradient in w, as w is, from g (M, width of y), x and T.
template <class R>
void weighted_weights(int64_t rows, const WeightedBlocks<R>& shape, const R* g, const R* x, const R* t, R* out) {
  const Widths widths = shape.widths;
  const bool together = shape.rows_of_w == 1;
  const int64_t most = together ? std::max<int64_t>(1, rows / rows_of_few_sums) : shape.rows_of_w;
  std::vector<std::vector<R>> sums(parts_of(rows * shape.operations(), together ? 2 : 4, most));
  shared(sums.size(), [&](int part, int parts) {
    const auto add = [&](int64_t e, R* row) {
      if (is_zero(t + e * widths.t, widths.t)) return;
      shape.for_each(row, [&](const Segment& s, R* to, R factor) {
        const R* from = x + e * widths.x + s.x;
        const R* matrix = t + e * widths.t + s.matrix;
        const R* upper = g + e * widths.z + s.out;
        by_shape(s, [&](auto rows, auto columns) { totals<columns, rows>(s, upper, from, matrix, to, factor); });
      });
    };
    if (together) {
      const Range range = part_of(rows, part, parts);
      sums[part].assign(shape.weights, R(0));
      for (int64_t e = range.begin; e < range.end; ++e) add(e, sums[part].data());
      return;
    }
    const Range range = part_of(shape.rows_of_w, part, parts);
    for (int64_t p = range.begin; p < range.end; ++p) {
      R* const row = out + p * shape.weights;
      std::fill_n(row, shape.weights, R(0));
      for (int64_t e = p; e < rows; e += shape.rows_of_w) add(e, row);
    }
  });
  if (together)
    for (int64_t k = 0; k < shape.weights; ++k) out[k] = total_of(sums, k);
}

}  // namespace
