// Products of small matrices, one set of each row, with blocks of features, and their gradients.

#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "products.h"
#include "threads.h"

namespace {

// z (rows, width) = T (rows, columns) x (columns, width) within one row of z, T and x: where they lie there.  Without
// columns z is the number in T itself.
struct Segment {
  int32_t x, columns, width;
  int32_t matrix, matrix_stride, rows;
  int32_t out, out_stride;
  int32_t end;  // which row of x: that of the first index, of the second one, or the row of T itself
};

enum End { at_first, at_second, own_row };

struct Table {
  const Segment* segments;
  int64_t count;

  const Segment* begin() const { return segments; }
  const Segment* end() const { return segments + count; }
  int64_t operations() const {
    int64_t sum = 0;
    for (const Segment& s : *this) sum += int64_t(s.rows) * std::max(s.columns, 1) * s.width;
    return sum;
  }
  int64_t results() const {
    int64_t sum = 0;
    for (const Segment& s : *this) sum += int64_t(s.rows) * s.width;
    return sum;
  }
};

// The arrays of the three kernels: rows of x and T and z; their widths.
struct Widths {
  int64_t x, t, z;
};

inline int64_t row_of(const Segment& s, int64_t row, const int32_t* first, const int32_t* second) {
  return s.end == own_row ? row : s.end == at_first ? first[row] : second[row];
}

// Whether a row of numbers holds nothing but zeros, which is soon known of one that does not.  Rows of what a displaced
// atom changes are zero for all edges but its own, and what is linear in them needs no products there.
template <class R>
inline bool is_zero(const R* row, int64_t width) {
  constexpr int64_t at_once = 16;
  for (int64_t k = 0; k < width; k += at_once) {
    const int64_t end = std::min(width, k + at_once);
    R sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = k; i < end; ++i) sum += row[i] < 0 ? -row[i] : row[i];
    if (!(sum == 0)) return false;
  }
  return true;
}

// f(V, c) for vectors V of channels from c on, as wide as they fit, and for the last channels one by one.
template <class R, int bytes = vector_bytes, class F>
inline void over_channels(int width, F f, int c = 0) {
  typedef R V __attribute__((vector_size(bytes), aligned(alignof(R)), may_alias));
  constexpr int lanes = bytes / sizeof(R);
  for (; c + lanes <= width; c += lanes) f(V(), c);
  if constexpr (bytes > 16) {
    over_channels<R, bytes / 2>(width, f, c);
  } else {
    for (; c < width; ++c) f(R(), c);
  }
}

template <class V, class R>
inline V& at(R* place) {
  return *reinterpret_cast<V*>(place);
}

template <class V, class R>
inline V value_at(const R* place) {
  return *reinterpret_cast<const V*>(place);
}

// x of one segment for the channels of V from c on, whose products with rows of T are asked for one by one; ``known``
// columns are kept, any number of them is read again for each row.
template <int known, class V, class R>
struct Columns {
  const Segment& s;
  const R* x;
  int c;
  V kept[known ? known : 1];

  Columns(const Segment& s, const R* x, int c) : s(s), x(x), c(c) {
    for (int j = 0; j < known; ++j) kept[j] = value_at<V>(x + j * s.width + c);
  }

  V times(const R* row) const {
    V sum = {};
    if (known) {
      for (int j = 0; j < known; ++j) sum += row[j] * kept[j];
    } else {
      for (int j = 0; j < s.columns; ++j) sum += row[j] * value_at<V>(x + j * s.width + c);
    }
    return sum;
  }
};

// z = T x of one segment; ``known`` columns, or any number of them.
template <int known, class R>
inline void forward(const Segment& s, const R* x, const R* t, R* z) {
  over_channels<R>(s.width, [&](auto zero, int c) {
    using V = decltype(zero);
    const Columns<known, V, R> columns(s, x, c);
    for (int i = 0; i < s.rows; ++i) at<V>(z + i * s.out_stride + c) = columns.times(t + i * s.matrix_stride);
  });
}

// x += T^T z of one segment.
template <int known, class R>
inline void backward(const Segment& s, const R* z, const R* t, R* x) {
  over_channels<R>(s.width, [&](auto zero, int c) {
    using V = decltype(zero);
    constexpr int kept = known ? known : 1;
    for (int first = 0; first < s.columns; first += kept) {
      V sums[kept];
      for (int j = 0; j < kept; ++j) sums[j] = value_at<V>(x + (first + j) * s.width + c);
      for (int i = 0; i < s.rows; ++i) {
        const V from = value_at<V>(z + i * s.out_stride + c);
        for (int j = 0; j < kept; ++j) sums[j] += t[i * s.matrix_stride + first + j] * from;
      }
      for (int j = 0; j < kept; ++j) at<V>(x + (first + j) * s.width + c) = sums[j];
    }
  });
}

// The sum of the lanes of a vector, by halves, or the number itself.
template <class R, class V>
inline R total(V vector) {
  if constexpr (std::is_same_v<V, R>) {
    return vector;
  } else if constexpr (sizeof(V) == sizeof(R)) {  // a vector of one number
    return vector[0];
  } else if constexpr (sizeof(V) == 2 * sizeof(R)) {
    return vector[0] + vector[1];
  } else {
    typedef R Half __attribute__((vector_size(sizeof(V) / 2), aligned(alignof(R)), may_alias));
    const R* lanes = reinterpret_cast<const R*>(&vector);
    return total<R>(value_at<Half>(lanes) + value_at<Half>(lanes + sizeof(Half) / sizeof(R)));
  }
}

// T += z x^T of one segment.
template <int known, class R>
inline void products(const Segment& s, const R* z, const R* x, R* t) {
  using V = typename Wide<R>::type;
  constexpr int lanes = Wide<R>::lanes, most = known ? known : 1;
  const int whole = s.width / lanes * lanes;
  for (int i = 0; i < s.rows; ++i, t += s.matrix_stride, z += s.out_stride)
    for (int j = 0; j < s.columns; j += most) {
      V sums[most] = {};
      for (int c = 0; c < whole; c += lanes) {
        const V row = value_at<V>(z + c);
        for (int k = 0; k < most; ++k) sums[k] += row * value_at<V>(x + (j + k) * s.width + c);
      }
      for (int k = 0; k < most; ++k) t[j + k] += total<R>(sums[k]);
      over_channels<R, vector_bytes / 2>(s.width, [&](auto zero, int c) {
        using Few = decltype(zero);
        for (int k = 0; k < most; ++k)
          t[j + k] += total<R>(value_at<Few>(z + c) * value_at<Few>(x + (j + k) * s.width + c));
      }, whole);
    }
}

// f with the number of columns that degrees to 3 have, as a constant.
template <class F>
inline void by_columns(int columns, F f) {
  switch (columns) {
    case 1: return f(std::integral_constant<int, 1>());
    case 3: return f(std::integral_constant<int, 3>());
    case 5: return f(std::integral_constant<int, 5>());
    case 7: return f(std::integral_constant<int, 7>());
    default: return f(std::integral_constant<int, 0>());
  }
}

// f with the numbers of rows and of columns that degrees to 2 have as constants, or with 0 for any number of both.
template <class F>
inline void by_shape(const Segment& s, F f) {
  const auto with_rows = [&](auto columns) {
    switch (s.rows) {
      case 1: return f(std::integral_constant<int, 1>(), columns);
      case 3: return f(std::integral_constant<int, 3>(), columns);
      case 5: return f(std::integral_constant<int, 5>(), columns);
      default: return f(std::integral_constant<int, 0>(), std::integral_constant<int, 0>());
    }
  };
  switch (s.columns) {
    case 1: return with_rows(std::integral_constant<int, 1>());
    case 3: return with_rows(std::integral_constant<int, 3>());
    case 5: return with_rows(std::integral_constant<int, 5>());
    default: return f(std::integral_constant<int, 0>(), std::integral_constant<int, 0>());
  }
}

// z (M, width) from x (N, width) and T (M, width).
template <class R>
void block_product(int64_t rows, Widths widths, Table table, const R* x, const R* t, const int32_t* first,
                   const int32_t* second, R* z) {
  const bool some_are_zero = table.results() < widths.z;
  shared(parts_of(rows * table.operations(), 4), [=](int part, int parts) {
    const Range range = part_of(rows, part, parts);
    for (int64_t e = range.begin; e < range.end; ++e) {
      const R* matrices = t + e * widths.t;
      R* to = z + e * widths.z;
      if (some_are_zero) std::fill(to, to + widths.z, R(0));
      for (const Segment& s : table) {
        if (s.columns == 0) {
          to[s.out] = matrices[s.matrix];
          continue;
        }
        const R* from = x + row_of(s, e, first, second) * widths.x + s.x;
        by_columns(s.columns, [&](auto known) { forward<known>(s, from, matrices + s.matrix, to + s.out); });
      }
    }
  });
}

// The gradient in x (N, width), from z (M, width) and T (M, width).
template <class R>
void block_transpose(int64_t nodes, int64_t rows, Widths widths, Table table, const R* z, const R* t,
                     const int32_t* first, const int32_t* second, R* x) {
  const auto add = [&](const Segment& s, int64_t e, R* to) {
    const R *from = z + e * widths.z + s.out, *matrix = t + e * widths.t + s.matrix;
    by_columns(s.columns, [&](auto known) { backward<known>(s, from, matrix, to + s.x); });
  };
  const int parts = parts_of(rows * table.operations(), 2);
  const bool own = std::all_of(table.begin(), table.end(), [](const Segment& s) { return s.end == own_row; });
  if (own) {
    return shared(parts, [&](int part, int all) {
      const Range range = part_of(rows, part, all);
      std::fill(x + range.begin * widths.x, x + range.end * widths.x, R(0));
      for (int64_t e = range.begin; e < range.end; ++e)
        for (const Segment& s : table) add(s, e, x + e * widths.x);
    });
  }
  const auto bounds = fair_rows(nodes, rows, first, second, parts);
  shared(bounds.size() - 1, [&](int part, int) {
    const int64_t begin = bounds[part], end = bounds[part + 1];
    std::fill(x + begin * widths.x, x + end * widths.x, R(0));
    for (int64_t e = 0; e < rows; ++e)
      for (const Segment& s : table) {
        const int64_t row = row_of(s, e, first, second);
        if (row >= begin && row < end) add(s, e, x + row * widths.x);
      }
  });
}

// The gradient in T (M, width), from z (M, width) and x (N, width).
template <class R>
void block_matrices(int64_t rows, Widths widths, Table table, const R* z, const R* x, const int32_t* first,
                    const int32_t* second, R* t) {
  shared(parts_of(2 * rows * table.operations(), 4), [=](int part, int parts) {
    const Range range = part_of(rows, part, parts);
    std::fill(t + range.begin * widths.t, t + range.end * widths.t, R(0));
    for (int64_t e = range.begin; e < range.end; ++e)
      for (const Segment& s : table) {
        R* __restrict matrix = t + e * widths.t + s.matrix;
        const R* __restrict g = z + e * widths.z + s.out;
        if (s.columns == 0) {
          matrix[0] += g[0];
          continue;
        }
        const R* __restrict from = x + row_of(s, e, first, second) * widths.x + s.x;
        by_columns(s.columns, [&](auto known) { products<known>(s, g, from, matrix); });
      }
  });
}

}  // namespace
