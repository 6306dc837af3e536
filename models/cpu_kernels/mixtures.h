// Products of parts of each row with matrices that are made of one flat vector of weights, and their gradients.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "products.h"
#include "threads.h"

namespace {

// Part of a row of z, (rows, inner), that a matrix (inner, outer) takes to a part of the result, (rows, outer).
struct Part {
  int32_t in, rows, inner, outer, out;
};

// A factor times (rows, columns) of the weights is added to the matrix of a part from (row, column) on.
struct Entry {
  int32_t part, row, column, weight, stride, rows, columns;
};

template <class R>
struct Mixture {
  const Part* parts;
  int64_t part_count;
  const Entry* entries;
  int64_t entry_count;
  const R* factors;

  // Where the matrix of each part begins when all of them lie one after the other, and how many numbers they are.
  std::vector<int64_t> starts() const {
    std::vector<int64_t> result(1, 0);
    for (int64_t p = 0; p < part_count; ++p) result.push_back(result[p] + int64_t(parts[p].inner) * parts[p].outer);
    return result;
  }
};

inline Part reversed(const Part& p) { return {p.out, p.rows, p.outer, p.inner, p.in}; }

// f(a, b) for every element a of the matrices, (inner, outer) each, and the weight b that it is made of.
template <class R, class F>
void for_each_weight(const Mixture<R>& mixture, R* matrices, F f) {
  const auto starts = mixture.starts();
  for (int64_t k = 0; k < mixture.entry_count; ++k) {
    const Entry& entry = mixture.entries[k];
    const int64_t outer = mixture.parts[entry.part].outer;
    for (int64_t u = 0; u < entry.rows; ++u) {
      R* __restrict row = matrices + starts[entry.part] + (entry.row + u) * outer + entry.column;
      const int64_t weight = entry.weight + u * entry.stride;
      for (int64_t v = 0; v < entry.columns; ++v) f(row[v], weight + v, mixture.factors[k]);
    }
  }
}

// The matrices of all parts, one after the other, (inner, outer) each.
template <class R>
std::vector<R> matrices_of(const Mixture<R>& mixture, const R* w) {
  std::vector<R> matrices(mixture.starts().back(), R(0));
  for_each_weight(mixture, matrices.data(), [w](R& to, int64_t from, R factor) { to += factor * w[from]; });
  return matrices;
}

// Columns that are computed at once: as many vectors as they need.
struct Panel {
  int64_t first, width;
  int vectors;
};

// Panels of about the same width: a tile with few vectors has few sums under way.
template <class R>
std::vector<Panel> panels_of(int64_t columns) {
  constexpr int64_t lanes = Wide<R>::lanes;
  const int64_t all = (columns + lanes - 1) / lanes, count = (all + vectors - 1) / vectors;
  std::vector<Panel> panels;
  for (int64_t k = 0; k < count; ++k) {
    const int64_t first = all * k / count * lanes, last = all * (k + 1) / count * lanes;
    panels.push_back({first, std::min(last, columns) - first, static_cast<int>((last - first) / lanes)});
  }
  return panels;
}

template <class R>
int64_t padded(const Panel& panel) {
  return panel.vectors * Wide<R>::lanes;
}

template <class R>
int64_t padded(const std::vector<Panel>& panels) {
  return panels.empty() ? 0 : panels.back().first + padded<R>(panels.back());
}

// ``tile_of`` for this number of vectors.
template <int most, class R, class... Arguments>
void tile_of_vectors(int count, int64_t rows, Arguments... arguments) {
  if constexpr (most > 1) {
    if (count < most) return tile_of_vectors<most - 1, R>(count, rows, arguments...);
  }
  tile_of<most, R>(rows, arguments...);
}

// What the product with the matrix of one part needs: the matrix in panels, and what is added to each of its results.
template <class R>
struct Factor {
  Part part;
  std::vector<Panel> panels;
  std::vector<R> matrix, start;

  // Element (i, j) of the matrix lies at b[i * down + j * along].
  Factor(const Part& part, const R* b, int64_t down, int64_t along, const R* bias)
      : part(part), panels(panels_of<R>(part.outer)) {
    const int64_t width = padded<R>(panels);
    matrix.assign(part.inner * width, R(0));
    for (const Panel& panel : panels) {
      R* to = &matrix[part.inner * panel.first];
      for (int64_t i = 0; i < part.inner; ++i)
        for (int64_t j = 0; j < panel.width; ++j)
          to[i * padded<R>(panel) + j] = b[i * down + (panel.first + j) * along];
    }
    start.assign(part.rows * width, R(0));
    if (bias != nullptr)
      for (int64_t r = 0; r < part.rows; ++r)
        std::copy_n(bias + part.out + r * part.outer, part.outer, &start[r * width]);
  }

  // Rows of the result for component r of the part; z (rows, z_width), out (rows, out_width).
  void multiply(int64_t r, int64_t rows, const R* z, int64_t z_width, R* out, int64_t out_width) const {
    R edge[rows_at_once * vectors * Wide<R>::lanes];
    const R* first = &start[r * padded<R>(panels)];
    for (const Panel& panel : panels) {
      const int64_t stride = padded<R>(panel);
      const bool whole = panel.width == stride;
      for (int64_t i = 0; i < rows; i += rows_at_once) {
        const int64_t count = std::min<int64_t>(rows_at_once, rows - i);
        R* to = out + i * out_width + panel.first;
        tile_of_vectors<vectors, R>(panel.vectors, count, part.inner, z + i * z_width, z_width, int64_t(1),
                                    &matrix[part.inner * panel.first], stride, first + panel.first, int64_t(0),
                                    whole ? to : edge, whole ? out_width : stride);
        if (!whole)
          for (int64_t row = 0; row < count; ++row) std::copy_n(edge + row * stride, panel.width, to + row * out_width);
      }
    }
  }
};

// The products with the matrices of all parts, or with their transposes.
template <class R>
std::vector<Factor<R>> factors_of(const Mixture<R>& mixture, bool transposed, const R* w, const R* bias) {
  const auto starts = mixture.starts();
  const std::vector<R> matrices = matrices_of(mixture, w);
  std::vector<Factor<R>> factors;
  for (int64_t p = 0; p < mixture.part_count; ++p) {
    const Part& part = mixture.parts[p];
    if (transposed) {
      factors.emplace_back(reversed(part), &matrices[starts[p]], 1, part.outer, nullptr);
    } else {
      factors.emplace_back(part, &matrices[starts[p]], part.outer, 1, bias);
    }
  }
  return factors;
}

// out (M, out_width) = bias + z (M, in_width) times the matrices, or without bias times their transposes.
template <class R>
void mixed(int64_t m, int64_t in_width, int64_t out_width, bool transposed, const Mixture<R>& mixture, const R* z,
           const R* w, const R* bias, R* out) {
  const auto factors = factors_of(mixture, transposed, w, bias);
  int64_t operations = 0, results = 0;
  for (const Factor<R>& factor : factors) {
    operations += int64_t(factor.part.rows) * factor.part.inner * factor.part.outer;
    results += int64_t(factor.part.rows) * factor.part.outer;
  }
  shared(parts_of(m * operations, 4), [&](int number, int all) {
    const Range range = part_of(m, number, all);
    if (results < out_width) std::fill(out + range.begin * out_width, out + range.end * out_width, R(0));
    for (int64_t first = range.begin; first < range.end; first += block)
      for (const Factor<R>& factor : factors)
        for (int64_t r = 0; r < factor.part.rows; ++r)
          factor.multiply(r, std::min(block, range.end - first),
                          z + first * in_width + factor.part.in + r * factor.part.inner, in_width,
                          out + first * out_width + factor.part.out + r * factor.part.outer, out_width);
  });
}

// sum (inner, padded outer) += z^T g of one component of a part; z (rows, inner), g (rows, g_width).
template <class R>
void add_outer(int64_t inner, const std::vector<Panel>& panels, int64_t rows, const R* z, const R* g, int64_t g_width,
               std::vector<R>& end, R* sum) {
  const int64_t stride = padded<R>(panels), last_width = padded<R>(panels.back());
  end.resize(rows * last_width, R(0));  // what the last panel reads must not lie behind the end of g
  for (int64_t i = 0; i < rows; ++i)
    std::copy_n(g + i * g_width + panels.back().first, panels.back().width, end.data() + i * last_width);
  for (int64_t j = 0; j < inner; j += rows_at_once)
    for (const Panel& panel : panels) {
      const bool last = &panel == &panels.back();
      R* to = sum + j * stride + panel.first;
      tile_of_vectors<vectors, R>(panel.vectors, std::min<int64_t>(rows_at_once, inner - j), rows, z + j, int64_t(1),
                                  inner, last ? end.data() : g + panel.first, last ? last_width : g_width, to, stride,
                                  to, stride);
    }
}

// The same summed over the components of a part; z (rows, z_width), g (rows, g_width).
template <class R>
void add_component_outers(const Part& part, const std::vector<Panel>& panels, int64_t rows, const R* z, int64_t z_width,
                          const R* g, int64_t g_width, std::vector<R>& few, std::vector<R>& end, R* sum) {
  few.resize(rows * part.inner);  // rows of z far apart would be fetched one by one
  for (int64_t r = 0; r < part.rows; ++r) {
    for (int64_t i = 0; i < rows; ++i)
      std::copy_n(z + i * z_width + part.in + r * part.inner, part.inner, &few[i * part.inner]);
    add_outer(part.inner, panels, rows, few.data(), g + part.out + r * part.outer, g_width, end, sum);
  }
}

// Sums z^T g for all parts, as many as there are threads with a sum of their own.
template <class R>
struct OuterSums {
  const Mixture<R>& mixture;
  std::vector<std::vector<Panel>> panels;
  std::vector<int64_t> starts;  // of the parts in a sum
  int64_t operations = 0;
  std::vector<std::vector<R>> sums;

  OuterSums(const Mixture<R>& mixture, int64_t m) : mixture(mixture), starts(1, 0) {
    for (int64_t p = 0; p < mixture.part_count; ++p) {
      const Part& part = mixture.parts[p];
      panels.push_back(panels_of<R>(part.outer));
      starts.push_back(starts[p] + part.inner * padded<R>(panels[p]));
      operations += int64_t(part.rows) * part.inner * part.outer;
    }
    sums.resize(parts_of(m * operations, 2, std::max<int64_t>(1, m / block)));
  }

  // The total of the sums, given to the weights (numel).
  void give(int64_t numel, R* out) const {
    const auto compact = mixture.starts();
    std::vector<R> matrices(compact.back());
    for (int64_t p = 0; p < mixture.part_count; ++p) {
      const int64_t outer = mixture.parts[p].outer, stride = padded<R>(panels[p]);
      for (int64_t j = 0; j < mixture.parts[p].inner; ++j)
        for (int64_t i = 0; i < outer; ++i)
          matrices[compact[p] + j * outer + i] = total_of(sums, starts[p] + j * stride + i);
    }
    std::fill(out, out + numel, R(0));
    for_each_weight(mixture, matrices.data(), [out](R& from, int64_t to, R factor) { out[to] += factor * from; });
  }
};

// The gradient in the weights: those parts of sum z^T g that belong to each; z (M, in_width), g (M, out_width).
template <class R>
void mixed_weights(int64_t m, int64_t in_width, int64_t out_width, int64_t numel, const Mixture<R>& mixture, const R* g,
                   const R* z, R* out) {
  OuterSums<R> outer(mixture, m);
  shared(outer.sums.size(), [&](int number, int all) {
    std::vector<R> mine(outer.starts.back(), R(0)), few, end;
    const Range range = part_of(m, number, all);
    for (int64_t first = range.begin; first < range.end; first += block) {
      const int64_t rows = std::min(block, range.end - first);
      for (int64_t p = 0; p < mixture.part_count; ++p)
        add_component_outers(mixture.parts[p], outer.panels[p], rows, z + first * in_width, in_width,
                             g + first * out_width, out_width, few, end, &mine[outer.starts[p]]);
    }
    outer.sums[number].swap(mine);
  });
  outer.give(numel, out);
}

// The same with weights (M, numel) of each row: what each reads and adds is w, z and y, or two of them for the third.
enum Target { of_result, of_inputs, of_weights };

template <Target target, class R>
void mixed_by_row(int64_t m, int64_t in_width, int64_t out_width, int64_t numel, const Mixture<R>& mixture, R* z, R* w,
                  R* y, const R* bias) {
  int64_t operations = 0;
  for (int64_t k = 0; k < mixture.entry_count; ++k)
    operations += int64_t(mixture.entries[k].rows) * mixture.entries[k].columns;
  shared(parts_of(4 * m * operations, 4), [&](int number, int all) {
    const Range range = part_of(m, number, all);
    for (int64_t i = range.begin; i < range.end; ++i) {
      R *from = z + i * in_width, *weights = w + i * numel, *to = y + i * out_width;
      if (target == of_inputs) std::fill_n(from, in_width, R(0));
      if (target == of_weights) std::fill_n(weights, numel, R(0));
      if (target == of_result) std::fill_n(to, out_width, R(0));
      if (target == of_result && bias != nullptr) std::copy_n(bias, out_width, to);
      for (int64_t k = 0; k < mixture.entry_count; ++k) {
        const Entry& entry = mixture.entries[k];
        const Part& part = mixture.parts[entry.part];
        const R factor = mixture.factors[k];
        for (int64_t u = 0; u < entry.rows; ++u)
          for (int64_t r = 0; r < part.rows; ++r) {
            R* __restrict row = weights + entry.weight + u * entry.stride;
            R* __restrict result = to + part.out + r * part.outer + entry.column;
            R& input = from[part.in + r * part.inner + entry.row + u];
            const R scale = factor * input;
            R sum = 0;
            if (target == of_result)
              for (int64_t v = 0; v < entry.columns; ++v) result[v] += scale * row[v];
            if (target == of_weights)
              for (int64_t v = 0; v < entry.columns; ++v) row[v] += scale * result[v];
            if (target == of_inputs) {
#pragma omp simd reduction(+ : sum)
              for (int64_t v = 0; v < entry.columns; ++v) sum += row[v] * result[v];
              input += factor * sum;
            }
          }
      }
    }
  });
}

}  // namespace
