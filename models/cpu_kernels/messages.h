// Sums over the neighbours of a node of what weighted_blocks.h computes of each edge, and their gradients.
//
// Edge e and edge e + P, its reverse, have one row of weights.

#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "products.h"
#include "row_blocks.h"
#include "threads.h"
#include "weighted_blocks.h"

namespace {

// The edges of each node, those of node i from starts[i] to starts[i + 1].
struct EdgesOfNodes {
  std::vector<int32_t> starts, edges;

  EdgesOfNodes(int64_t nodes, int64_t count, const int32_t* node_of) : starts(nodes + 1, 0), edges(count) {
    for (int64_t e = 0; e < count; ++e) ++starts[node_of[e] + 1];
    for (int64_t i = 0; i < nodes; ++i) starts[i + 1] += starts[i];
    std::vector<int32_t> next(starts.begin(), starts.end() - 1);
    for (int64_t e = 0; e < count; ++e) edges[next[node_of[e]]++] = static_cast<int32_t>(e);
  }
};

struct Edges {
  int64_t nodes, count, pairs;
  const int32_t *receivers, *senders;

  int64_t pair_of(int64_t e) const { return e < pairs ? e : e - pairs; }
};

// y += factor w (T x) of one segment; rows and columns that are constants, or any number of both.
template <int rows, int columns, class R>
inline void add_message(const Segment& s, const R* x, const R* t, const R* w, R factor, R* y) {
  const int count = rows ? rows : s.rows;
  over_channels<R>(s.width, [&](auto zero, int c) {
    using V = decltype(zero);
    const Columns<columns, V, R> values(s, x, c);
    const V scale = factor * value_at<V>(w + c);
    for (int i = 0; i < count; ++i) at<V>(y + i * s.out_stride + c) += scale * values.times(t + i * s.matrix_stride);
  });
}

// x += factor w (T^T g) of one segment.
template <int rows, int columns, class R>
inline void add_transposed(const Segment& s, const R* g, const R* t, const R* w, R factor, R* x) {
  const int count = rows ? rows : s.rows;
  constexpr int kept = columns ? columns : 1;
  over_channels<R>(s.width, [&](auto zero, int c) {
    using V = decltype(zero);
    const V scale = factor * value_at<V>(w + c);
    for (int first = 0; first < s.columns; first += kept) {
      V sums[kept] = {};
      for (int i = 0; i < count; ++i) {
        const V from = value_at<V>(g + i * s.out_stride + c);
        for (int j = 0; j < kept; ++j) sums[j] += t[i * s.matrix_stride + first + j] * from;
      }
      for (int j = 0; j < kept; ++j) at<V>(x + (first + j) * s.width + c) += scale * sums[j];
    }
  });
}

// f(node, its edges) in parts of about equal work, after ``out`` (nodes, width) has been set to 0.
template <class R, class F>
void for_edges_of_nodes(const Edges& edges, const int32_t* node_of, int64_t operations, int64_t width, R* out, F f) {
  const EdgesOfNodes lists(edges.nodes, edges.count, node_of);
  const auto bounds = fair_rows(edges.nodes, edges.count, node_of, nullptr, parts_of(edges.count * operations, 4));
  shared(bounds.size() - 1, [&](int part, int) {
    for (int64_t node = bounds[part]; node < bounds[part + 1]; ++node) {
      R* row = out + node * width;
      std::fill(row, row + width, R(0));
      for (int32_t k = lists.starts[node]; k < lists.starts[node + 1]; ++k) f(lists.edges[k], row);
    }
  });
}

// y (N, width) from x (N, width), T (E, width) and w (P, C).
template <class R>
void messages(const Edges& edges, const WeightedBlocks<R>& shape, const R* x, const R* t, const R* w, R* y) {
  const Widths widths = shape.widths;
  for_edges_of_nodes(edges, edges.receivers, shape.operations(), widths.z, y, [&](int64_t e, R* row) {
    const R *from = x + edges.senders[e] * widths.x, *matrices = t + e * widths.t;
    const R* const row_of_w = w + edges.pair_of(e) * shape.weights;
    if (is_zero(matrices, widths.t) || is_zero(row_of_w, shape.weights)) return;
    shape.for_each(row_of_w, [&](const Segment& s, const R* weights, R factor) {
      by_shape(s, [&](auto rows, auto columns) {
        add_message<rows, columns>(s, from + s.x, matrices + s.matrix, weights, factor, row + s.out);
      });
    });
  });
}

// The gradient in x (N, width), from g (N, width), T and w.
template <class R>
void message_senders(const Edges& edges, const WeightedBlocks<R>& shape, const R* g, const R* t, const R* w, R* x) {
  const Widths widths = shape.widths;
  for_edges_of_nodes(edges, edges.senders, shape.operations(), widths.x, x, [&](int64_t e, R* row) {
    const R *from = g + edges.receivers[e] * widths.z, *matrices = t + e * widths.t;
    const R* const row_of_w = w + edges.pair_of(e) * shape.weights;
    if (is_zero(matrices, widths.t) || is_zero(row_of_w, shape.weights)) return;
    shape.for_each(row_of_w, [&](const Segment& s, const R* weights, R factor) {
      by_shape(s, [&](auto rows, auto columns) {
        add_transposed<rows, columns>(s, from + s.out, matrices + s.matrix, weights, factor, row + s.x);
      });
    });
  });
}

// The gradient of one edge and segment is added to that of T.
template <int rows, int columns, class R>
inline void add_to_matrices(const Segment& s, const R* g, const R* x, const R* w, R factor, R* of_t) {
  using V = typename Wide<R>::type;
  constexpr int lanes = Wide<R>::lanes, most = columns ? columns : 1;
  const int whole = s.width / lanes * lanes, count = rows ? rows : s.rows;
  for (int i = 0; i < count; ++i)
    for (int first = 0; first < s.columns; first += most) {
      const R* const upper = g + i * s.out_stride;
      const R* const lower = x + first * s.width;
      V sums[most] = {};
      R rest[most] = {};
      for (int c = 0; c < whole; c += lanes) {
        const V scaled = value_at<V>(upper + c) * value_at<V>(w + c);
        for (int j = 0; j < most; ++j) sums[j] += scaled * value_at<V>(lower + j * s.width + c);
      }
      over_channels<R, vector_bytes / 2>(s.width, [&](auto zero, int c) {
        using Few = decltype(zero);
        const Few scaled = value_at<Few>(upper + c) * value_at<Few>(w + c);
        for (int j = 0; j < most; ++j) rest[j] += total<R>(scaled * value_at<Few>(lower + j * s.width + c));
      }, whole);
      for (int j = 0; j < most; ++j) of_t[i * s.matrix_stride + first + j] += factor * (total<R>(sums[j]) + rest[j]);
    }
}

// The gradient of one edge and segment is added to that of w.
template <int rows, int columns, class R>
inline void add_to_weights(const Segment& s, const R* g, const R* x, const R* t, R factor, R* of_w) {
  const int count = rows ? rows : s.rows;
  over_channels<R>(s.width, [&](auto zero, int c) {
    using V = decltype(zero);
    const Columns<columns, V, R> values(s, x, c);
    V sum = {};
    for (int i = 0; i < count; ++i)
      sum += values.times(t + i * s.matrix_stride) * value_at<V>(g + i * s.out_stride + c);
    at<V>(of_w + c) += factor * sum;
  });
}

// f(edge, row of its pair in w, segment, number of the segment) for both edges of each pair, of one pair after another,
// but for those whose given row of numbers (edge, pair) of a width is zero.
template <class R, class B, class Z, class F>
void for_pairs(const Edges& edges, const WeightedBlocks<R>& shape, B begin, Z row, int64_t width, F f) {
  shared(parts_of(edges.count * shape.operations(), 4), [&](int part, int parts) {
    const Range range = part_of(edges.pairs, part, parts);
    for (int64_t p = range.begin; p < range.end; ++p) {
      begin(p);
      for (int64_t e = p; e < edges.count; e += edges.pairs) {
        if (is_zero(row(e, p), width)) continue;
        for (int64_t k = 0; k < shape.table.count; ++k) f(e, p, shape.table.segments[k], k);
      }
    }
  });
}

// The gradient in T (E, width), from g (N, width), x and w.
template <class R>
void message_matrices(const Edges& edges, const WeightedBlocks<R>& shape, const R* g, const R* x, const R* w, R* of_t) {
  const Widths widths = shape.widths;
  const auto begin = [&](int64_t p) {
    for (int64_t e = p; e < edges.count; e += edges.pairs) std::fill_n(of_t + e * widths.t, widths.t, R(0));
  };
  const auto row = [&](int64_t, int64_t p) { return w + p * shape.weights; };
  for_pairs(edges, shape, begin, row, shape.weights, [&](int64_t e, int64_t p, const Segment& s, int64_t k) {
    const R *upper = g + edges.receivers[e] * widths.z, *lower = x + edges.senders[e] * widths.x;
    const R* const weights = w + p * shape.weights + shape.places[k];
    by_shape(s, [&](auto rows, auto columns) {
      add_to_matrices<rows, columns>(s, upper + s.out, lower + s.x, weights, shape.factors[k],
                                     of_t + e * widths.t + s.matrix);
    });
  });
}

// The gradient in w (P, C), from g (N, width), x and T.
template <class R>
void message_weights(const Edges& edges, const WeightedBlocks<R>& shape, const R* g, const R* x, const R* t, R* of_w) {
  const Widths widths = shape.widths;
  const auto begin = [&](int64_t p) { std::fill_n(of_w + p * shape.weights, shape.weights, R(0)); };
  const auto row = [&](int64_t e, int64_t) { return t + e * widths.t; };
  for_pairs(edges, shape, begin, row, widths.t, [&](int64_t e, int64_t p, const Segment& s, int64_t k) {
    const R *upper = g + edges.receivers[e] * widths.z, *lower = x + edges.senders[e] * widths.x;
    R* const weights = of_w + p * shape.weights + shape.places[k];
    by_shape(s, [&](auto rows, auto columns) {
      add_to_weights<rows, columns>(s, upper + s.out, lower + s.x, t + e * widths.t + s.matrix, shape.factors[k],
                                    weights);
    });
  });
}

}  // namespace
