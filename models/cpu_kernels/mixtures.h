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

// ``tile_of`` with as many vectors as a panel of this width needs.
template <int most, class R>
void narrow_tile_of(int64_t width, int64_t rows, int64_t steps, const R* a, int64_t down, int64_t along, const R* b,
                    int64_t stride, const R* start, int64_t start_stride, R* c, int64_t c_stride) {
  if constexpr (most > 1) {
    if (width <= (most - 1) * Wide<R>::lanes)
      return narrow_tile_of<most - 1>(width, rows, steps, a, down, along, b, stride, start, start_stride, c, c_stride);
  }
  tile_of<most>(rows, steps, a, down, along, b, stride, start, start_stride, c, c_stride);
}

// out (M, out_width) = bias + z (M, in_width) times the matrices, or without bias times their transposes.
template <class R>
void mixed(int64_t m, int64_t in_width, int64_t out_width, bool transposed, const Mixture<R>& mixture, const R* z,
           const R* w, const R* bias, R* out) {
  constexpr int64_t panel = Wide<R>::panel;
  const auto starts = mixture.starts();
  std::vector<R> matrices(starts.back(), R(0));
  for_each_weight(mixture, matrices.data(), [w](R& to, int64_t from, R factor) { to += factor * w[from]; });
  std::vector<Part> parts(mixture.part_count);
  std::vector<std::vector<R>> packed(parts.size()), start(parts.size());
  int64_t operations = 0, results = 0;
  for (size_t p = 0; p < parts.size(); ++p) {
    const Part& part = parts[p] = transposed ? reversed(mixture.parts[p]) : mixture.parts[p];
    const int64_t panels = (part.outer + panel - 1) / panel, outer = mixture.parts[p].outer;
    packed[p].resize(panels * part.inner * panel);
    pack<R>(part.inner, part.outer, &matrices[starts[p]], transposed ? 1 : outer, transposed ? outer : 1,
            packed[p].data());
    start[p].resize(part.rows * panels * panel, R(0));
    if (bias != nullptr)
      for (int64_t r = 0; r < part.rows; ++r)
        std::copy_n(bias + part.out + r * part.outer, part.outer, &start[p][r * panels * panel]);
    operations += int64_t(part.rows) * part.inner * part.outer;
    results += int64_t(part.rows) * part.outer;
  }
  shared(parts_of(m * operations, 4), [&](int number, int all) {
    const Range range = part_of(m, number, all);
    if (results < out_width) std::fill(out + range.begin * out_width, out + range.end * out_width, R(0));
    R edge[rows_at_once * panel];
    for (int64_t first = range.begin; first < range.end; first += block) {
      const int64_t last = std::min(first + block, range.end);
      for (size_t p = 0; p < parts.size(); ++p) {
        const Part& part = parts[p];
        const int64_t panels = (part.outer + panel - 1) / panel;
        for (int64_t k = 0; k < panels; ++k)
          for (int64_t r = 0; r < part.rows; ++r)
            for (int64_t i = first; i < last; i += rows_at_once) {
              const int64_t rows = std::min<int64_t>(rows_at_once, last - i);
              const int64_t width = std::min(panel, part.outer - k * panel);
              const bool whole = width % Wide<R>::lanes == 0;
              R* to = out + i * out_width + part.out + r * part.outer + k * panel;
              narrow_tile_of<vectors>(width, rows, part.inner, z + i * in_width + part.in + r * part.inner, in_width,
                                      int64_t(1), &packed[p][k * part.inner * panel], panel,
                                      &start[p][(r * panels + k) * panel], int64_t(0), whole ? to : edge,
                                      whole ? out_width : panel);
              if (!whole)
                for (int64_t row = 0; row < rows; ++row) std::copy_n(edge + row * panel, width, to + row * out_width);
            }
      }
    }
  });
}

// The gradient in the weights: those parts of sum z^T g that belong to each; z (M, in_width), g (M, out_width).
template <class R>
void mixed_weights(int64_t m, int64_t in_width, int64_t out_width, int64_t numel, const Mixture<R>& mixture, const R* g,
                   const R* z, R* out) {
  constexpr int64_t panel = Wide<R>::panel;
  std::vector<int64_t> starts(1, 0);  // of sums (inner, panels of outer)
  int64_t operations = 0;
  for (int64_t p = 0; p < mixture.part_count; ++p) {
    const Part& part = mixture.parts[p];
    starts.push_back(starts[p] + part.inner * ((part.outer + panel - 1) / panel) * panel);
    operations += int64_t(part.rows) * part.inner * part.outer;
  }
  std::vector<std::vector<R>> sums(parts_of(m * operations, 2, std::max<int64_t>(1, m / rows_of_a_sum)));
  shared(sums.size(), [&](int number, int all) {
    std::vector<R> mine(starts.back(), R(0)), copy(block * panel, R(0));
    const Range range = part_of(m, number, all);
    for (int64_t first = range.begin; first < range.end; first += block) {
      const int64_t steps = std::min(block, range.end - first);
      for (int64_t p = 0; p < mixture.part_count; ++p) {
        const Part& part = mixture.parts[p];
        const int64_t panels = (part.outer + panel - 1) / panel;
        for (int64_t r = 0; r < part.rows; ++r)
          for (int64_t k = 0; k < panels; ++k) {
            const int64_t width = std::min(panel, part.outer - k * panel);
            const R* from = g + first * out_width + part.out + r * part.outer + k * panel;
            for (int64_t i = 0; i < steps; ++i) std::copy_n(from + i * out_width, width, &copy[i * panel]);
            for (int64_t j = 0; j < part.inner; j += rows_at_once) {
              R* c = &mine[starts[p] + j * panels * panel + k * panel];
              narrow_tile_of<vectors>(width, std::min<int64_t>(rows_at_once, part.inner - j), steps,
                                      z + first * in_width + part.in + r * part.inner + j, int64_t(1), in_width,
                                      copy.data(), panel, c, panels * panel, c, panels * panel);
            }
          }
      }
    }
    sums[number].swap(mine);
  });
  const auto compact = mixture.starts();
  std::vector<R> matrices(compact.back());
  for (int64_t p = 0; p < mixture.part_count; ++p) {
    const Part& part = mixture.parts[p];
    const int64_t stride = (part.outer + panel - 1) / panel * panel;
    for (int64_t j = 0; j < part.inner; ++j)
      for (int64_t i = 0; i < part.outer; ++i)
        matrices[compact[p] + j * part.outer + i] = total_of(sums, starts[p] + j * stride + i);
  }
  std::fill(out, out + numel, R(0));
  for_each_weight(mixture, matrices.data(), [out](R& from, int64_t to, R factor) { out[to] += factor * from; });
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
