// Scalars that multiply runs of columns, and gates: such scalars behind their activation.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "activations.h"
#include "products.h"
#include "threads.h"

namespace {

// Columns that are multiplied by as many scalars beside each other.
struct Run {
  int32_t column, length, scalar;
};

// out (M, width) = factor s[scalar] x[column]; s (M, scalars) or (1, scalars), x (M, width).
template <class R>
void scaled_columns(int64_t rows, int64_t rows_of_s, int64_t scalars, int64_t width, const Run* runs, int64_t count,
                    const R* factors, const R* s, const R* x, R* out) {
  const int64_t stride = rows_of_s == 1 ? 0 : scalars;
  shared(parts_of(4 * rows * width, 4), [=](int part, int parts) {
    const Range range = part_of(rows, part, parts);
    for (int64_t i = range.begin; i < range.end; ++i)
      for (int64_t k = 0; k < count; ++k) {
        const R* __restrict scale = s + i * stride + runs[k].scalar;
        const R* __restrict from = x + i * width + runs[k].column;
        R* __restrict to = out + i * width + runs[k].column;
        const R factor = factors[k];
        for (int c = 0; c < runs[k].length; ++c) to[c] = factor * scale[c] * from[c];
      }
  });
}

// out[scalar] = sum of factor g[column] x[column]; out (M, scalars), or the sum of all rows, g and x (M, width).
template <class R>
void column_totals(int64_t rows, int64_t rows_of_out, int64_t scalars, int64_t width, const Run* runs, int64_t count,
                   const R* factors, const R* g, const R* x, R* out) {
  const auto add = [=](int64_t i, R* totals) {
    for (int64_t k = 0; k < count; ++k) {
      const R* __restrict upper = g + i * width + runs[k].column;
      const R* __restrict from = x + i * width + runs[k].column;
      R* __restrict to = totals + runs[k].scalar;
      const R factor = factors[k];
      for (int c = 0; c < runs[k].length; ++c) to[c] += factor * upper[c] * from[c];
    }
  };
  const bool together = rows_of_out == 1;
  const int64_t most = together ? std::max<int64_t>(1, rows / rows_of_a_sum) : rows;
  std::vector<std::vector<R>> sums(parts_of(4 * rows * width, together ? 2 : 4, most));
  shared(sums.size(), [&](int part, int parts) {
    const Range range = part_of(rows, part, parts);
    if (together) {
      sums[part].assign(scalars, R(0));
      for (int64_t i = range.begin; i < range.end; ++i) add(i, sums[part].data());
      return;
    }
    std::fill(out + range.begin * scalars, out + range.end * scalars, R(0));
    for (int64_t i = range.begin; i < range.end; ++i) add(i, out + i * scalars);
  });
  if (together)
    for (int64_t k = 0; k < scalars; ++k) out[k] = total_of(sums, k);
}

// A row of scalars, gates and columns to scalars and columns.
struct Gated {
  int64_t scalars, gates, columns;
  const Run* runs;
  int64_t count;

  int64_t in() const { return scalars + gates + columns; }
  int64_t out() const { return scalars + columns; }
};

// (c silu(s), c' sigmoid(g) x) of each row; constants c and c'.
template <class R>
void gate(int64_t rows, Gated shape, const R* constants, const R* y, R* out) {
  shared(parts_of(4 * rows * shape.in(), 4), [=](int part, int parts) {
    const Range range = part_of(rows, part, parts);
    std::vector<R> buffer(shape.gates);
    R* __restrict scale = buffer.data();
    for (int64_t i = range.begin; i < range.end; ++i) {
      const R* __restrict from = y + i * shape.in();
      R* __restrict to = out + i * shape.out();
      for (int64_t k = 0; k < shape.scalars; ++k) to[k] = constants[0] * Swish::value<0>(from[k]);
      for (int64_t k = 0; k < shape.gates; ++k) scale[k] = constants[1] * Sigmoid<R>(from[shape.scalars + k]).s;
      from += shape.scalars + shape.gates, to += shape.scalars;
      for (int64_t k = 0; k < shape.count; ++k) {
        const Run run = shape.runs[k];
        for (int c = 0; c < run.length; ++c) to[run.column + c] = scale[run.scalar + c] * from[run.column + c];
      }
    }
  });
}

// The gradient of ``gate`` in y, for a cotangent d of its result.
template <class R>
void gate_slopes(int64_t rows, Gated shape, const R* constants, const R* y, const R* d, R* out) {
  shared(parts_of(8 * rows * shape.in(), 4), [=](int part, int parts) {
    const Range range = part_of(rows, part, parts);
    std::vector<R> scales(shape.gates), totals(shape.gates);
    R *__restrict scale = scales.data(), *__restrict total = totals.data();
    for (int64_t i = range.begin; i < range.end; ++i) {
      const R* __restrict from = y + i * shape.in();
      const R* __restrict g = d + i * shape.out();
      R* __restrict to = out + i * shape.in();
      for (int64_t k = 0; k < shape.scalars; ++k) to[k] = constants[0] * g[k] * Swish::value<1>(from[k]);
      from += shape.scalars, to += shape.scalars, g += shape.scalars;
      for (int64_t k = 0; k < shape.gates; ++k) scale[k] = constants[1] * Sigmoid<R>(from[k]).s, total[k] = 0;
      for (int64_t k = 0; k < shape.count; ++k) {
        const Run run = shape.runs[k];
        for (int c = 0; c < run.length; ++c) {
          to[shape.gates + run.column + c] = scale[run.scalar + c] * g[run.column + c];
          total[run.scalar + c] += g[run.column + c] * from[shape.gates + run.column + c];
        }
      }
      for (int64_t k = 0; k < shape.gates; ++k) to[k] = scale[k] * Sigmoid<R>(from[k]).rest * total[k];
    }
  });
}

}  // namespace
