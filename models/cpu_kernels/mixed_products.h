// Products of row_blocks.h whose matrices are made of a few attributes of each row and whose channels have a weight
// each, z, and behind them those of mixtures.h, or sums of z over the rows of a node, in one pass: neither the matrices
// T nor z are in memory.  With derivatives along tangents of the factors, so that second derivatives are as few passes.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "mixtures.h"
#include "row_blocks.h"
#include "row_lanes.h"
#include "threads.h"

namespace {

constexpr int64_t rows_of_few_sums = 128;  // as rows_of_a_sum, for sums of one row

// A coefficient times this attribute is added to this element of T.
struct Term {
  int32_t element, attribute;
};

// Shapes and tables.  ``layout`` holds six counts: segments, terms, parts, entries, elements of T and numbers of z; then
// the segments, the first weight of each, terms in the order of attributes, parts and entries.  ``numbers`` holds the
// factors of segments, terms and entries.  Without parts y is z.
template <class R>
struct MixedProducts {
  int64_t x, attributes, y;  // widths
  int64_t weights, rows_of_w;
  int64_t rows, nodes;                 // of the attributes; of x and y, where they have rows of their own
  const int32_t *receivers, *senders;  // rows of y and of x that a row belongs to; nullptr for its own
  const int32_t* layout;
  const R* numbers;

  int64_t segment_count() const { return layout[0]; }
  int64_t term_count() const { return layout[1]; }
  int64_t elements() const { return layout[4]; }
  int64_t z() const { return layout[5]; }
  Table table() const { return {reinterpret_cast<const Segment*>(layout + 6), layout[0]}; }
  const int32_t* places() const { return layout + 6 + 9 * segment_count(); }
  const Term* terms() const { return reinterpret_cast<const Term*>(places() + segment_count()); }
  const R* coefficients() const { return numbers + segment_count(); }
  Mixture<R> mixture() const {
    const Part* parts = reinterpret_cast<const Part*>(terms() + term_count());
    return {parts, layout[2], reinterpret_cast<const Entry*>(parts + layout[2]), layout[3],
            coefficients() + term_count()};
  }

  // Rows of x that share a row of w are one unit: a row, or the two edges of a pair; all share one in ``together``.
  bool together() const { return rows_of_w == 1; }
  int64_t units() const { return together() ? rows : rows_of_w; }
  int64_t ways() const { return rows / units(); }
  int64_t row_of_x(int64_t row) const { return senders ? senders[row] : row; }
  int64_t row_of_y(int64_t row) const { return receivers ? receivers[row] : row; }
  bool mixes() const { return layout[2] > 0; }
  const R* row_of_w(const R* w, int64_t unit) const { return w + (together() ? 0 : unit * weights); }

  int64_t operations() const {
    int64_t sum = table().operations() + term_count();
    const Mixture<R> all = mixture();
    for (int64_t p = 0; p < all.part_count; ++p)
      sum += int64_t(all.parts[p].rows) * all.parts[p].inner * all.parts[p].outer;
    return sum;
  }
};

// The three factors of each row besides the mixture; or their tangents.
template <class R>
struct RowFactors {
  const R *x, *a, *w;
};

// The matrices of all parts, or their transposes, for rows side by side.
template <class R>
struct LaneMixture {
  using V = typename Lanes<R>::V;
  std::vector<Part> parts;
  std::vector<int64_t> starts;
  std::vector<R> matrices;

  LaneMixture(const Mixture<R>& mixture, bool transposed, const R* w) : starts(mixture.starts()) {
    const std::vector<R> plain = matrices_of(mixture, w);
    matrices = plain;
    for (int64_t p = 0; p < mixture.part_count; ++p) {
      const Part& part = mixture.parts[p];
      parts.push_back(transposed ? reversed(part) : part);
      if (!transposed) continue;
      for (int64_t i = 0; i < part.inner; ++i)
        for (int64_t j = 0; j < part.outer; ++j)
          matrices[starts[p] + j * part.inner + i] = plain[starts[p] + i * part.outer + j];
    }
  }

  // A few outputs of a few components at once, which share the numbers of the matrix.
  template <int outputs, int components>
  static void add_tile(const Part& part, const V* from, const R* matrix, V* to) {
    const int64_t stride = part.outer, inner = part.inner;
    V sums[components][outputs];
    for (int r = 0; r < components; ++r)
      for (int i = 0; i < outputs; ++i) sums[r][i] = to[r * stride + i];
    for (int64_t k = 0; k < inner; ++k, matrix += stride) {
      V values[components];
      for (int r = 0; r < components; ++r) values[r] = from[r * inner + k];
      for (int i = 0; i < outputs; ++i) {
        const R factor = matrix[i];
        for (int r = 0; r < components; ++r) sums[r][i] += factor * values[r];
      }
    }
    for (int r = 0; r < components; ++r)
      for (int i = 0; i < outputs; ++i) to[r * stride + i] = sums[r][i];
  }

  template <int components>
  static void add_components(const Part& part, const V* from, const R* matrix, V* to) {
    constexpr int most = components == 1 ? 8 : 4;
    int64_t c = 0;
    for (; c + most <= part.outer; c += most) add_tile<most, components>(part, from, matrix + c, to + c);
    for (; c + 2 <= part.outer; c += 2) add_tile<2, components>(part, from, matrix + c, to + c);
    if (c < part.outer) add_tile<1, components>(part, from, matrix + c, to + c);
  }

  // to += from times the matrices
  void add(const V* from, V* to) const {
    for (size_t p = 0; p < parts.size(); ++p) {
      const Part part = parts[p];
      const R* matrix = &matrices[starts[p]];
      for (int64_t r = 0; r < part.rows;) {
        const V* row = from + part.in + r * part.inner;
        V* const out = to + part.out + r * part.outer;
        switch (std::min<int64_t>(part.rows - r, 3)) {
          case 3: add_components<3>(part, row, matrix, out), r += 3; break;
          case 2: add_components<2>(part, row, matrix, out), r += 2; break;
          default: add_components<1>(part, row, matrix, out), r += 1;
        }
      }
    }
  }
};

// Some rows side by side: what is computed of them.
template <class R>
struct ProductLanes {
  using V = typename Lanes<R>::V;
  const MixedProducts<R>& shape;
  const Table table;
  V *x, *a, *w, *x_, *a_, *w_, *y, *t, *t_, *z, *of_x, *of_a, *of_t, *of_w, *scaled;

  explicit ProductLanes(const MixedProducts<R>& shape) : shape(shape), table(shape.table()) {
    int64_t most = 1;
    for (const Segment& s : table) most = std::max(most, int64_t(s.rows) * s.width);
    V** const arrays[] = {&x, &x_, &of_x, &a, &a_, &of_a, &w, &w_, &of_w, &t, &t_, &of_t, &y, &z, &scaled};
    const int64_t sizes[] = {shape.x, shape.attributes, shape.weights, shape.elements()};
    const auto size = [&](int k) { return k < 12 ? sizes[k / 3] : k == 12 ? shape.y : k == 13 ? shape.z() : most; };
    int64_t all = 0;
    for (int k = 0; k < 15; ++k) all += size(k);
    V* place = Lanes<R>::room(all);
    for (int k = 0; k < 15; ++k) *arrays[k] = place, place += size(k);
  }

  // Rows of an array (., width), and the way back for the first few of them.
  static void gather(const int64_t* rows, const R* array, int64_t width, V* to) {
    const R* places[Lanes<R>::count];
    for (int i = 0; i < Lanes<R>::count; ++i) places[i] = array + rows[i] * width;
    Lanes<R>::gather(places, width, to);
  }

  static void scatter(const V* from, int64_t width, const int64_t* rows, int count, R* array) {
    R* places[Lanes<R>::count];
    for (int i = 0; i < count; ++i) places[i] = array + rows[i] * width;
    Lanes<R>::scatter(from, width, places, count);
  }

  void gather_weights(const int64_t* units, const R* array, V* to) const {
    const R* places[Lanes<R>::count];
    for (int i = 0; i < Lanes<R>::count; ++i) places[i] = shape.row_of_w(array, units[i]);
    Lanes<R>::gather(places, shape.weights, to);
  }

  // f(first term, last one) of each attribute in turn.
  template <class F>
  void for_each_attribute(F f) const {
    const Term* terms = shape.terms();
    for (int64_t k = 0, next = 0; k < shape.term_count(); k = next) {
      while (next < shape.term_count() && terms[next].attribute == terms[k].attribute) ++next;
      f(terms[k].attribute, k, next);
    }
  }

  // T of attributes.
  void expand(const V* attributes, V* matrices) const {
    const Term* const terms = shape.terms();
    const R* const coefficients = shape.coefficients();
    std::fill_n(matrices, shape.elements(), V{});
    for_each_attribute([=](int32_t attribute, int64_t begin, int64_t end) {
      const V value = attributes[attribute];
      for (int64_t k = begin; k < end; ++k) matrices[terms[k].element] += coefficients[k] * value;
    });
  }

  // The transpose: of_a of of_t.
  void collect() {
    const Term* const terms = shape.terms();
    const R* const coefficients = shape.coefficients();
    std::fill_n(of_a, shape.attributes, V{});
    for_each_attribute([=, of_a = of_a, of_t = of_t](int32_t attribute, int64_t begin, int64_t end) {
      V sums[2] = {};
      for (int64_t k = begin; k < end; ++k) sums[k & 1] += coefficients[k] * of_t[terms[k].element];
      of_a[attribute] = sums[0] + sums[1];
    });
  }

  // f(rows, columns, segment, place of its weights, its factor) for all segments, the first two as constants or 0.
  // Segments are copies: what is written to vectors might else have changed them.
  template <class F>
  void for_each(F f) const {
    const int32_t* places = shape.places();
    for (int64_t k = 0; k < table.count; ++k)
      by_shape(table.segments[k], [&](auto rows, auto columns) {
        f(rows, columns, Segment(table.segments[k]), places[k], shape.numbers[k]);
      });
  }

  // f(i, c, sum_j T_ij x_jc, the same number of z) for all rows and channels of a segment.
  template <class Rows, class Columns, class F>
  void for_each_product(Rows known_rows, Columns known_columns, const Segment s, const V* x, const V* t, F f) const {
    const int rows = known_rows ? int(known_rows) : s.rows, columns = known_columns ? int(known_columns) : s.columns;
    const V *from = x + s.x, *matrix = t + s.matrix;
    for (int c = 0; c < s.width; ++c, ++from) {
      V kept[known_columns ? int(known_columns) : 1];
      for (int j = 0; j < int(known_columns); ++j) kept[j] = from[j * s.width];
      const V* row = matrix;
      for (int i = 0; i < rows; ++i, row += s.matrix_stride) {
        V sum = {};
        for (int j = 0; j < columns; ++j) sum += row[j] * (known_columns ? kept[j] : from[j * s.width]);
        f(i, c, sum);
      }
    }
  }

  // z += f w T x
  void add_products(const V* features, const V* matrices, const V* weights) {
    for_each([&, z = z](auto rows, auto columns, const Segment s, int32_t place, R factor) {
      const V* const scales = weights + place;
      V* const to = z + s.out;
      for_each_product(rows, columns, s, features, matrices, [=](int i, int c, V sum) {
        to[i * s.out_stride + c] += factor * scales[c] * sum;
      });
    });
  }

  // of_w += f z (T x)
  void add_totals(const V* matrices, const V* features) {
    for_each([&, z = z, of_w = of_w](auto rows, auto columns, const Segment s, int32_t place, R factor) {
      const V* const upper = z + s.out;
      V* const to = of_w + place;
      for_each_product(rows, columns, s, features, matrices, [=](int i, int c, V sum) {
        to[c] += factor * sum * upper[i * s.out_stride + c];
      });
    });
  }

  // of_x += T^T f w z, of_t += f w z x^T
  template <bool with_x>
  void add_gradients(const V* weights, const V* matrices, const V* features) {
    for_each([&, z = z, scaled = scaled, of_x = of_x, of_t = of_t](auto known_rows, auto known_columns, const Segment s,
                                                                   int32_t place, R factor) {
      const int rows = known_rows ? int(known_rows) : s.rows, columns = known_columns ? int(known_columns) : s.columns;
      constexpr int at_once = known_rows ? int(known_rows) : 1;
      const V* const upper = z + s.out;
      for (int c = 0; c < s.width; ++c) {
        const V scale = factor * weights[place + c];
        for (int i = 0; i < rows; ++i) scaled[i * s.width + c] = scale * upper[i * s.out_stride + c];
      }
      for (int j = 0; j < columns; ++j)
        for (int first = 0; first < rows; first += at_once) {
          V elements[at_once], sums[at_once];
          const int64_t place = s.matrix + first * s.matrix_stride + j;
          for (int i = 0; i < at_once; ++i) {
            elements[i] = matrices[place + i * s.matrix_stride];
            sums[i] = of_t[place + i * s.matrix_stride];
          }
          const V *from = features + s.x + j * s.width, *values = scaled + first * s.width;
          V* below = of_x + s.x + j * s.width;
          for (int c = 0; c < s.width; ++c, ++from, ++values, ++below) {
            const V feature = *from;
            V sum = {};
            for (int i = 0; i < at_once; ++i) {
              const V value = values[i * s.width];
              if (with_x) sum += elements[i] * value;
              sums[i] += value * feature;
            }
            if (with_x) *below += sum;
          }
          for (int i = 0; i < at_once; ++i) of_t[place + i * s.matrix_stride] = sums[i];
        }
    });
  }
};

// What differs from row to row of a tangent: nothing, the features alone, or all.
enum Change { nothing, features, everything };

template <class R>
Change change_of_row(const MixedProducts<R>& shape, const RowFactors<R>& tangent, int64_t row) {
  if (!is_zero(shape.row_of_w(tangent.w, row % shape.units()), shape.weights)) return everything;
  if (!is_zero(tangent.a + row * shape.attributes, shape.attributes)) return everything;
  return is_zero(tangent.x + shape.row_of_x(row) * shape.x, shape.x) ? nothing : features;
}

template <class R>
Change change_of(const MixedProducts<R>& shape, const RowFactors<R>& tangent, int64_t unit) {
  Change change = nothing;
  for (int64_t e = unit; e < shape.rows && change != everything; e += shape.units())
    change = std::max(change, change_of_row(shape, tangent, e));
  return change;
}

constexpr auto none_absent = [](int) { return false; };

// The rows of each node.
struct RowsOfNodes {
  std::vector<int32_t> starts, rows;

  RowsOfNodes(int64_t nodes, int64_t count, const int32_t* node_of) : starts(nodes + 1, 0), rows(count) {
    for (int64_t e = 0; e < count; ++e) ++starts[node_of[e] + 1];
    for (int64_t i = 0; i < nodes; ++i) starts[i + 1] += starts[i];
    std::vector<int32_t> next(starts.begin(), starts.end() - 1);
    for (int64_t e = 0; e < count; ++e) rows[next[node_of[e]]++] = static_cast<int32_t>(e);
  }

  int32_t count(int64_t node) const { return starts[node + 1] - starts[node]; }
  int32_t row(int64_t node, int32_t k) const { return rows[starts[node] + k]; }
};

// Rows of a node that a part of the work adds to, between the least and the greatest of its indices.
template <class R>
struct NodeSums {
  int64_t begin = 0, end = 0, width = 0;
  std::vector<R> values, rows;

  // Of the nodes of all ways of some units.
  NodeSums(const MixedProducts<R>& shape, const int32_t* node_of, Range range, int64_t width) : width(width) {
    if (node_of == nullptr || range.begin == range.end) return;
    begin = shape.nodes;
    for (int64_t start = 0; start < shape.rows; start += shape.units()) {
      const int32_t* first = node_of + start;
      const auto [least, greatest] = std::minmax_element(first + range.begin, first + range.end);
      begin = std::min<int64_t>(begin, *least), end = std::max<int64_t>(end, *greatest + 1);
    }
    values.assign((end - begin) * width, R(0));
    rows.resize(Lanes<R>::count * width);
  }

  // Rows side by side, added to those of their nodes.
  void add(const typename Lanes<R>::V* from, const int64_t* nodes, int count) {
    R* places[Lanes<R>::count];
    for (int i = 0; i < count; ++i) places[i] = &rows[i * width];
    Lanes<R>::scatter(from, width, places, count);
    for (int i = 0; i < count; ++i) {
      R* __restrict to = &values[(nodes[i] - begin) * width];
      const R* __restrict row = places[i];
      for (int64_t c = 0; c < width; ++c) to[c] += row[c];
    }
  }
};

// The sums of all parts, out (nodes, width).
template <class R>
void add_up(const std::vector<NodeSums<R>>& sums, int64_t nodes, int64_t width, R* out) {
  shared(parts_of(4 * nodes * width, 2), [&](int part, int parts) {
    const Range range = part_of(nodes, part, parts);
    std::fill(out + range.begin * width, out + range.end * width, R(0));
    for (const NodeSums<R>& one : sums)
      for (int64_t n = std::max(range.begin, one.begin); n < std::min(range.end, one.end); ++n)
        for (int64_t c = 0; c < width; ++c) out[n * width + c] += one.values[(n - one.begin) * width + c];
  });
}

// The sums of each part of the work.
template <class R>
std::vector<NodeSums<R>> node_sums(const MixedProducts<R>& shape, const int32_t* node_of, int parts, int64_t width) {
  std::vector<NodeSums<R>> sums;
  for (int part = 0; part < parts; ++part) sums.emplace_back(shape, node_of, part_of(shape.units(), part, parts), width);
  return sums;
}

// Some rows: their numbers, the units they belong to, and those of x and of y.
template <class R>
struct SomeRows {
  int64_t rows[Lanes<R>::count], units[Lanes<R>::count], x[Lanes<R>::count], y[Lanes<R>::count];

  template <class F>
  SomeRows(const MixedProducts<R>& shape, F row) {
    for (int i = 0; i < Lanes<R>::count; ++i) {
      rows[i] = row(i), units[i] = rows[i] % shape.units();
      x[i] = shape.row_of_x(rows[i]), y[i] = shape.row_of_y(rows[i]);
    }
  }
};

// z += that of (11) or, with a tangent, its derivative along it.  ``absent`` says in which lanes nothing is added.
template <class R, class F>
void add_coupled(ProductLanes<R>& lanes, const RowFactors<R>& at, const RowFactors<R>* tangent, Change change,
                 const SomeRows<R>& some, F absent) {
  const MixedProducts<R>& shape = lanes.shape;
  const auto gather_weights = [&](const R* array, typename Lanes<R>::V* to) {
    lanes.gather_weights(some.units, array, to);
    for (int i = 0; i < Lanes<R>::count; ++i)
      for (int64_t k = 0; k < shape.weights && absent(i); ++k) to[k][i] = 0;
  };
  lanes.gather(some.rows, at.a, shape.attributes, lanes.a);
  gather_weights(at.w, lanes.w);
  lanes.expand(lanes.a, lanes.t);
  if (tangent == nullptr || change == everything) lanes.gather(some.x, at.x, shape.x, lanes.x);
  if (tangent == nullptr) return lanes.add_products(lanes.x, lanes.t, lanes.w);
  lanes.gather(some.x, tangent->x, shape.x, lanes.x_);
  lanes.add_products(lanes.x_, lanes.t, lanes.w);
  if (change == features) return;
  lanes.gather(some.rows, tangent->a, shape.attributes, lanes.a_);
  gather_weights(tangent->w, lanes.w_);
  lanes.expand(lanes.a_, lanes.t_);
  lanes.add_products(lanes.x, lanes.t_, lanes.w);
  lanes.add_products(lanes.x, lanes.t, lanes.w_);
}

// f(units, count, change) for all units of a range, as many as there are lanes at once; g(unit) where nothing changes.
template <class R, class F, class G>
void for_each_change(const MixedProducts<R>& shape, const RowFactors<R>* tangent, Range range, F f, G g) {
  Waiting<R> waiting[2];
  for (int64_t unit = range.begin; unit < range.end; ++unit) {
    const Change change = tangent ? change_of(shape, *tangent, unit) : everything;
    if (change == nothing) {
      g(unit);
    } else {
      waiting[change - 1].add(unit, [&](const int64_t* units, int count) { f(units, count, change); });
    }
  }
  for (int k = 0; k < 2; ++k)
    waiting[k].flush([&](const int64_t* units, int count) { f(units, count, static_cast<Change>(k + 1)); });
}

// y (N, W) of (11) without a mixture, summed over the rows of each node, or its derivative along a tangent.
template <class R>
void summed_products(const MixedProducts<R>& shape, const RowFactors<R>& at, const RowFactors<R>* tangent, R* y) {
  const RowsOfNodes lists(shape.nodes, shape.rows, shape.receivers);
  const auto bounds = fair_rows(shape.nodes, shape.rows, shape.receivers, nullptr,
                                parts_of((tangent ? 2 : 1) * shape.rows * shape.operations(), 4));
  shared(bounds.size() - 1, [&](int part, int) {
    ProductLanes<R> lanes(shape);
    Waiting<R> waiting;
    const auto compute = [&](const int64_t* nodes, int count) {  // a node in each lane, and its rows one after the other
      std::fill_n(lanes.z, shape.z(), typename Lanes<R>::V{});
      int32_t most = 0;
      for (int i = 0; i < count; ++i) most = std::max(most, lists.count(nodes[i]));
      for (int32_t k = 0; k < most; ++k) {
        const auto absent = [&](int i) { return k >= lists.count(nodes[i]); };
        const SomeRows<R> some(shape, [&](int i) { return absent(i) ? 0 : lists.row(nodes[i], k); });
        Change change = tangent ? nothing : everything;
        for (int i = 0; i < count && change != everything; ++i)
          if (!absent(i)) change = std::max(change, change_of_row(shape, *tangent, some.rows[i]));
        if (change != nothing) add_coupled(lanes, at, tangent, change, some, absent);
      }
      lanes.scatter(lanes.z, shape.y, nodes, count, y);
    };
    for (int64_t node = bounds[part]; node < bounds[part + 1]; ++node) waiting.add(node, compute);
    waiting.flush(compute);
  });
}

// y (M, W) of (11), or its derivative along a tangent.
template <class R>
void mixed_products(const MixedProducts<R>& shape, const RowFactors<R>& at, const RowFactors<R>* tangent, const R* b,
                    const R* bias, R* y) {
  using V = typename Lanes<R>::V;
  if (shape.receivers) return summed_products(shape, at, tangent, y);
  const LaneMixture<R> mixture(shape.mixture(), false, b);
  shared(parts_of((tangent ? 2 : 1) * shape.rows * shape.operations(), 4), [&](int part, int parts) {
    ProductLanes<R> lanes(shape);
    const auto compute = [&](const int64_t* units, int count, Change change) {
      for (int64_t way = 0; way < shape.ways(); ++way) {
        const SomeRows<R> some(shape, [&](int i) { return units[i] + way * shape.units(); });
        std::fill_n(lanes.z, shape.z(), V{});
        add_coupled(lanes, at, tangent, change, some, none_absent);
        if (shape.mixes()) {
          for (int64_t k = 0; k < shape.y; ++k) lanes.y[k] = V{} + (bias ? bias[k] : R(0));
          mixture.add(lanes.z, lanes.y);
        }
        lanes.scatter(shape.mixes() ? lanes.y : lanes.z, shape.y, some.rows, count, y);
      }
    };
    for_each_change(shape, tangent, part_of(shape.units(), part, parts), compute, [&](int64_t unit) {
      for (int64_t e = unit; e < shape.rows; e += shape.units()) std::fill_n(y + e * shape.y, shape.y, R(0));
    });
  });
}

// The gradients in x, a and w, as they are, of g (M or N, W) times (11), or of g times its tangent.
template <class R>
void mixed_product_gradients(const MixedProducts<R>& shape, const RowFactors<R>& at, const RowFactors<R>* tangent,
                             const R* b, const R* g, R* of_x, R* of_a, R* of_w) {
  using V = typename Lanes<R>::V;
  const LaneMixture<R> transposed(shape.mixture(), true, b);
  const bool together = shape.together(), summed = shape.senders != nullptr;
  const int64_t most = together ? std::max<int64_t>(1, shape.rows / rows_of_few_sums) : shape.units();
  const int parts =
      parts_of((tangent ? 4 : 3) * shape.rows * shape.operations(), together || summed ? 2 : 4, most);
  std::vector<std::vector<R>> totals(parts);
  auto sums = node_sums(shape, shape.senders, summed ? parts : 0, shape.x);
  shared(parts, [&](int part, int) {
    ProductLanes<R> lanes(shape);
    if (together) totals[part].assign(shape.weights, R(0));
    const auto compute = [&](const int64_t* units, int count, Change change) {
      std::fill_n(lanes.of_w, shape.weights, V{});
      lanes.gather_weights(units, at.w, lanes.w);
      const bool whole = tangent && change == everything;
      if (whole) lanes.gather_weights(units, tangent->w, lanes.w_);
      for (int64_t way = 0; way < shape.ways(); ++way) {
        const SomeRows<R> some(shape, [&](int i) { return units[i] + way * shape.units(); });
        lanes.gather(some.y, g, shape.y, shape.mixes() ? lanes.y : lanes.z);
        if (shape.mixes()) {
          std::fill_n(lanes.z, shape.z(), V{});
          transposed.add(lanes.y, lanes.z);
        }
        lanes.gather(some.rows, at.a, shape.attributes, lanes.a);
        lanes.expand(lanes.a, lanes.t);
        std::fill_n(lanes.of_x, shape.x, V{});
        std::fill_n(lanes.of_t, shape.elements(), V{});
        if (!tangent || whole) lanes.gather(some.x, at.x, shape.x, lanes.x);
        if (tangent) lanes.gather(some.x, tangent->x, shape.x, lanes.x_);
        if (!tangent) {
          lanes.template add_gradients<true>(lanes.w, lanes.t, lanes.x);
          lanes.add_totals(lanes.t, lanes.x);
        } else if (!whole) {
          lanes.template add_gradients<false>(lanes.w, lanes.t, lanes.x_);
          lanes.add_totals(lanes.t, lanes.x_);
        } else {
          lanes.gather(some.rows, tangent->a, shape.attributes, lanes.a_);
          lanes.expand(lanes.a_, lanes.t_);
          lanes.template add_gradients<true>(lanes.w, lanes.t_, lanes.x_);
          lanes.template add_gradients<true>(lanes.w_, lanes.t, lanes.x);
          lanes.add_totals(lanes.t, lanes.x_);
          lanes.add_totals(lanes.t_, lanes.x);
        }
        lanes.collect();
        lanes.scatter(lanes.of_a, shape.attributes, some.rows, count, of_a);
        if (!summed) {
          lanes.scatter(lanes.of_x, shape.x, some.rows, count, of_x);
        } else if (!tangent || whole) {
          sums[part].add(lanes.of_x, some.x, count);
        }
      }
      if (!together) return lanes.scatter(lanes.of_w, shape.weights, units, count, of_w);
      for (int64_t k = 0; k < shape.weights; ++k)
        for (int i = 0; i < count; ++i) totals[part][k] += lanes.of_w[k][i];
    };
    for_each_change(shape, tangent, part_of(shape.units(), part, parts), compute, [&](int64_t unit) {
      for (int64_t e = unit; e < shape.rows; e += shape.units()) {
        if (!summed) std::fill_n(of_x + e * shape.x, shape.x, R(0));
        std::fill_n(of_a + e * shape.attributes, shape.attributes, R(0));
      }
      if (!together) std::fill_n(of_w + unit * shape.weights, shape.weights, R(0));
    });
  });
  if (summed) add_up(sums, shape.nodes, shape.x, of_x);
  if (together)
    for (int64_t k = 0; k < shape.weights; ++k) of_w[k] = total_of(totals, k);
}

// The gradient in the mixture's weights (numel,) of g (M or N, W) times (11), or times its tangent.
template <class R>
void mixed_product_mixtures(int64_t numel, const MixedProducts<R>& shape, const RowFactors<R>& at,
                            const RowFactors<R>* tangent, const R* g, R* out) {
  const Mixture<R> mixture = shape.mixture();
  OuterSums<R> outer(mixture, shape.rows);
  shared(outer.sums.size(), [&](int part, int parts) {
    ProductLanes<R> lanes(shape);
    std::vector<R> mine(outer.starts.back(), R(0)), z(block * shape.z()), upper(block * shape.y), few, end;
    int64_t filled = 0;
    const auto add = [&] {
      for (int64_t p = 0; p < mixture.part_count; ++p)
        add_component_outers(mixture.parts[p], outer.panels[p], filled, z.data(), shape.z(), upper.data(), shape.y, few,
                             end, &mine[outer.starts[p]]);
      filled = 0;
    };
    const auto compute = [&](const int64_t* units, int count, Change change) {
      int64_t places[Lanes<R>::count];
      for (int64_t way = 0; way < shape.ways(); ++way) {
        const SomeRows<R> some(shape, [&](int i) { return units[i] + way * shape.units(); });
        for (int i = 0; i < Lanes<R>::count; ++i) places[i] = filled + i;
        std::fill_n(lanes.z, shape.z(), typename Lanes<R>::V{});
        add_coupled(lanes, at, tangent, change, some, none_absent);
        lanes.scatter(lanes.z, shape.z(), places, count, z.data());
        for (int i = 0; i < count; ++i) std::copy_n(g + some.y[i] * shape.y, shape.y, &upper[places[i] * shape.y]);
        filled += count;
        if (filled + Lanes<R>::count > block) add();
      }
    };
    for_each_change(shape, tangent, part_of(shape.units(), part, parts), compute, [](int64_t) {});
    if (filled) add();
    outer.sums[part].swap(mine);
  });
  outer.give(numel, out);
}

}  // namespace
