// Products of row_blocks.h and then of mixtures.h in one pass: what lies between them, z, stays in the nearest caches.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "mixtures.h"
#include "row_blocks.h"
#include "threads.h"

namespace {

constexpr int64_t nearest_bytes = 1 << 17;  // of z, the largest part of some rows

// y (M, width of y) = z (M, ...) times the matrices, z from x (N, width of x) and T (M, width of t).  Widths::z is that
// of y; row_blocks.h and mixtures.h describe the tables.
template <class R>
struct Coupled {
  Widths widths;
  Mixture<R> mixture;
  const int32_t *first, *second;
  std::vector<std::vector<Segment>> segments;  // of each part, with places that count from its start
  int64_t coupling = 0, mixing = 0;            // multiplications of a row
  int64_t block_rows;
  bool indexed = false;

  Coupled(Widths widths, Table table, const Mixture<R>& mixture, const int32_t* first, const int32_t* second)
      : widths(widths), mixture(mixture), first(first), second(second), segments(mixture.part_count) {
    int64_t most = 1;
    for (int64_t p = 0; p < mixture.part_count; ++p) {
      const Part& part = mixture.parts[p];
      for (Segment s : table)
        if (part.in <= s.out && s.out < part.in + part.rows * part.inner) {
          s.out -= part.in;
          segments[p].push_back(s);
          if (s.columns > 0 && s.end != own_row) indexed = true;
        }
      mixing += int64_t(part.rows) * part.inner * part.outer;
      most = std::max(most, int64_t(part.rows) * part.inner);
    }
    coupling = table.operations();
    const int64_t rows = nearest_bytes / static_cast<int64_t>(sizeof(R)) / most;
    block_rows = std::min(block, std::max<int64_t>(1, rows / rows_at_once) * rows_at_once);
  }

  int64_t scratch() const {
    int64_t most = 0;
    for (int64_t p = 0; p < mixture.part_count; ++p)
      most = std::max(most, int64_t(mixture.parts[p].rows) * mixture.parts[p].inner);
    return block_rows * most;
  }

  // f(segment, row, place in z) for all segments of a part; z (components, rows, inner), its first row is ``begin``.
  template <class F>
  void for_each_segment(int64_t p, int64_t begin, int64_t rows, F f) const {
    const int64_t inner = mixture.parts[p].inner;
    for (int64_t i = 0; i < rows; ++i)
      for (Segment s : segments[p]) {
        s.out_stride = rows * inner;
        f(s, begin + i, i * inner + s.out);
      }
  }

  // z of one part for some rows.
  void couple(int64_t p, int64_t begin, int64_t rows, const R* x, const R* t, R* z) const {
    const Part& part = mixture.parts[p];
    int64_t written = 0;
    for (const Segment& s : segments[p]) written += int64_t(s.rows) * s.width;
    if (written < int64_t(part.rows) * part.inner) std::fill_n(z, rows * part.rows * part.inner, R(0));
    for_each_segment(p, begin, rows, [&](const Segment& s, int64_t e, int64_t place) {
      const R* matrix = t + e * widths.t + s.matrix;
      if (s.columns == 0) {
        z[place] = matrix[0];
        return;
      }
      const R* from = x + row_of(s, e, first, second) * widths.x + s.x;
      by_columns(s.columns, [&](auto known) { forward<known>(s, from, matrix, z + place); });
    });
  }

  // The gradient in z of one part for some rows, from that in y; ``factor`` is transposed.
  void gradient(const Factor<R>& factor, int64_t begin, int64_t rows, const R* g, R* z) const {
    const Part& part = factor.part;  // its ``in`` is the place of y, its ``inner`` the channels of y
    for (int64_t r = 0; r < part.rows; ++r)
      factor.multiply(r, rows, g + begin * widths.z + part.in + r * part.inner, widths.z, z + r * rows * part.outer,
                      part.outer);
  }
};

template <class R>
void coupled(int64_t m, const Coupled<R>& shape, const R* x, const R* t, const R* w, const R* bias, R* y) {
  const auto factors = factors_of(shape.mixture, false, w, bias);
  int64_t written = 0;
  for (const Factor<R>& factor : factors) written += int64_t(factor.part.rows) * factor.part.outer;
  shared(parts_of(m * (shape.mixing + shape.coupling), 4), [&](int number, int all) {
    const Range range = part_of(m, number, all);
    std::vector<R> z(shape.scratch());
    if (written < shape.widths.z) std::fill(y + range.begin * shape.widths.z, y + range.end * shape.widths.z, R(0));
    for (int64_t begin = range.begin; begin < range.end; begin += shape.block_rows) {
      const int64_t rows = std::min(shape.block_rows, range.end - begin);
      for (size_t p = 0; p < factors.size(); ++p) {
        const Part& part = factors[p].part;
        shape.couple(p, begin, rows, x, t, z.data());
        for (int64_t r = 0; r < part.rows; ++r)
          factors[p].multiply(r, rows, &z[r * rows * part.inner], part.inner,
                              y + begin * shape.widths.z + part.out + r * part.outer, shape.widths.z);
      }
    }
  });
}

// f(part of z, gradient in z, first row, rows) for all parts of all blocks of a range of rows.
template <class R, class F>
void for_each_gradient(const Coupled<R>& shape, const std::vector<Factor<R>>& factors, Range range, const R* g, F f) {
  std::vector<R> z(shape.scratch());
  for (int64_t begin = range.begin; begin < range.end; begin += shape.block_rows) {
    const int64_t rows = std::min(shape.block_rows, range.end - begin);
    for (size_t p = 0; p < factors.size(); ++p) {
      shape.gradient(factors[p], begin, rows, g, z.data());
      f(p, z.data(), begin, rows);
    }
  }
}

// The gradients in x (N, width) and in T (M, width), from g (M, width of y): both are made of that in z.
template <class R>
void coupled_gradients(int64_t nodes, int64_t m, const Coupled<R>& shape, const R* g, const R* t, const R* w, const R* x,
                       R* of_x, R* of_t) {
  const auto factors = factors_of<R>(shape.mixture, true, w, nullptr);
  const Widths widths = shape.widths;
  // Rows of x that a part of the work adds to: its own, or those between the least and the greatest of its indices.
  struct Sums {
    int64_t begin = 0, end = 0;
    std::vector<R> values;
  };
  std::vector<Sums> sums(parts_of(m * (shape.mixing + 3 * shape.coupling), shape.indexed ? 2 : 4));
  shared(sums.size(), [&](int number, int all) {
    const Range range = part_of(m, number, all);
    Sums& mine = sums[number];
    R* to = of_x;
    if (!shape.indexed) {
      std::fill(of_x + range.begin * widths.x, of_x + range.end * widths.x, R(0));
    } else if (range.begin < range.end) {
      const auto [low, high] = std::minmax_element(shape.first + range.begin, shape.first + range.end);
      const auto [least, greatest] = std::minmax_element(shape.second + range.begin, shape.second + range.end);
      mine.begin = std::min(*low, *least), mine.end = std::max(*high, *greatest) + 1;
      mine.values.assign((mine.end - mine.begin) * widths.x, R(0));
      to = mine.values.data() - mine.begin * widths.x;
    }
    std::fill(of_t + range.begin * widths.t, of_t + range.end * widths.t, R(0));
    for_each_gradient(shape, factors, range, g, [&](int64_t p, const R* z, int64_t begin, int64_t rows) {
      shape.for_each_segment(p, begin, rows, [&](const Segment& s, int64_t e, int64_t place) {
        const int64_t matrix = e * widths.t + s.matrix;
        if (s.columns == 0) {
          of_t[matrix] += z[place];
          return;
        }
        const int64_t row = row_of(s, e, shape.first, shape.second) * widths.x + s.x;
        by_columns(s.columns, [&](auto known) {
          backward<known>(s, z + place, t + matrix, to + row);
          products<known>(s, z + place, x + row, of_t + matrix);
        });
      });
    });
  });
  if (!shape.indexed) return;
  shared(parts_of(4 * nodes * widths.x, 2), [&](int number, int all) {
    const Range range = part_of(nodes, number, all);
    std::fill(of_x + range.begin * widths.x, of_x + range.end * widths.x, R(0));
    for (const Sums& one : sums)
      for (int64_t n = std::max(range.begin, one.begin); n < std::min(range.end, one.end); ++n)
        for (int64_t c = 0; c < widths.x; ++c) of_x[n * widths.x + c] += one.values[(n - one.begin) * widths.x + c];
  });
}

// The gradient in the weights (numel,), from g (M, width of y), x and T.
template <class R>
void coupled_weights(int64_t m, int64_t numel, const Coupled<R>& shape, const R* g, const R* x, const R* t, R* out) {
  OuterSums<R> outer(shape.mixture, m);
  shared(outer.sums.size(), [&](int number, int all) {
    std::vector<R> mine(outer.starts.back(), R(0)), z(shape.scratch()), end;
    const Range range = part_of(m, number, all);
    for (int64_t begin = range.begin; begin < range.end; begin += shape.block_rows) {
      const int64_t rows = std::min(shape.block_rows, range.end - begin);
      for (int64_t p = 0; p < shape.mixture.part_count; ++p) {
        const Part& part = shape.mixture.parts[p];
        shape.couple(p, begin, rows, x, t, z.data());
        for (int64_t r = 0; r < part.rows; ++r)
          add_outer(part.inner, outer.panels[p], rows, &z[r * rows * part.inner],
                    g + begin * shape.widths.z + part.out + r * part.outer, shape.widths.z, end,
                    &mine[outer.starts[p]]);
      }
    }
    outer.sums[number].swap(mine);
  });
  outer.give(numel, out);
}

}  // namespace
