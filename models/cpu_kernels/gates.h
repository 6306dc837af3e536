// Gates: scalars that multiply runs of columns, behind their activation.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "activations.h"
#include "orders.h"
#include "threads.h"

namespace {

// Columns that are multiplied by as many scalars beside each other.
struct Run {
  int32_t column, length, scalar;
};

// A row of scalars, gates and columns to scalars and columns.
struct Gated {
  int64_t scalars, gates, columns;
  const Run* runs;
  int64_t count;

  int64_t in() const { return scalars + gates + columns; }
  int64_t out() const { return scalars + columns; }
};

// Of each gate g: the order-th derivative of c sigmoid(g) times all its tangents, the derivative before it times all
// tangents, and this times all but one of them, for each; out (tangents + 2, gates).
template <class Order, class R>
inline void gate_factors(Order order, int tangents, int64_t gates, R constant, const R* __restrict g,
                         const R* __restrict v, int64_t stride, R* __restrict out) {
#pragma GCC ivdep
  for (int64_t k = 0; k < gates; ++k) {
    const auto s = sigmoid_series(order, g[k]);
    const R high = constant * R(factorial(order)) * s[order];
    const R low = order == 0 ? R(0) : constant * R(factorial(order - 1)) * s[order - 1];
    R all = 1;
    for (int i = 0; i < tangents; ++i) all *= v[i * stride + k];
    out[k] = high * all;
    out[gates + k] = low * all;
    for (int i = 0; i < tangents; ++i) {
      R others = low;
      for (int j = 0; j < tangents; ++j) others *= j == i ? R(1) : v[j * stride + k];
      out[(2 + i) * gates + k] = others;
    }
  }
}

// c silu(s) differentiated, times all tangents and d; d = 1 where there is none.
template <class Order, class R>
inline void gated_scalars(Order order, int tangents, int64_t scalars, R constant, const R* __restrict s,
                          const R* __restrict v, int64_t stride, const R* __restrict d, R* __restrict out) {
#pragma GCC ivdep
  for (int64_t k = 0; k < scalars; ++k) {
    R product = constant * Swish::value(order, s[k]);
    for (int i = 0; i < tangents; ++i) product *= v[i * stride + k];
    out[k] = d == nullptr ? product : d[k] * product;
  }
}

// (c silu(s), c' sigmoid(g) x) of each row y, differentiated along n tangents v (n, M, in); constants c and c'.
template <class R>
void gate_tangents(int64_t rows, int n, Gated shape, const R* constants, const R* y, const R* v, R* out) {
  const int64_t stride = rows * shape.in(), before = shape.scalars + shape.gates;
  with_known_order(n, [=](auto order) {
    shared(parts_of(4 * (order + 1) * rows * shape.in(), 4), [=](int part, int parts) {
      const Range range = part_of(rows, part, parts);
      const int tangents = order;
      std::vector<R> factors((tangents + 2) * shape.gates);
      for (int64_t row = range.begin; row < range.end; ++row) {
        const R *from = y + row * shape.in(), *along = v + row * shape.in();
        R* __restrict to = out + row * shape.out();
        gated_scalars<decltype(order), R>(order, tangents, shape.scalars, constants[0], from, along, stride, nullptr,
                                          to);
        gate_factors(order, tangents, shape.gates, constants[1], from + shape.scalars, along + shape.scalars, stride,
                     factors.data());
        to += shape.scalars;
        for (int64_t k = 0; k < shape.count; ++k) {
          const Run run = shape.runs[k];
          const R* __restrict factor = factors.data() + run.scalar;
          const R *__restrict x = from + before + run.column, *__restrict tangent = along + before + run.column;
          for (int c = 0; c < run.length; ++c) {
            R sum = factor[c] * x[c];
            for (int i = 0; i < tangents; ++i) sum += factor[(2 + i) * shape.gates + c] * tangent[i * stride + c];
            to[run.column + c] = sum;
          }
        }
      }
    });
  });
}

// The gradient in y of ``gate_tangents``, for a cotangent d (M, out) of its result.
template <class R>
void gate_slopes(int64_t rows, int n, Gated shape, const R* constants, const R* y, const R* v, const R* d, R* out) {
  const int64_t stride = rows * shape.in(), gates = shape.gates, before = shape.scalars + gates;
  with_known_order(n + 1, [=](auto order) {
    shared(parts_of(8 * order * rows * shape.in(), 4), [=](int part, int parts) {
      const Range range = part_of(rows, part, parts);
      const int tangents = order - 1;
      std::vector<R> factors((tangents + 2) * gates), totals((tangents + 1) * gates);
      for (int64_t row = range.begin; row < range.end; ++row) {
        const R *from = y + row * shape.in(), *along = v + row * shape.in(), *g = d + row * shape.out();
        R* __restrict to = out + row * shape.in();
        gated_scalars<decltype(order), R>(order, tangents, shape.scalars, constants[0], from, along, stride, g, to);
        gate_factors(order, tangents, gates, constants[1], from + shape.scalars, along + shape.scalars, stride,
                     factors.data());
        std::fill(totals.begin(), totals.end(), R(0));
        g += shape.scalars, to += shape.scalars;
        for (int64_t k = 0; k < shape.count; ++k) {
          const Run run = shape.runs[k];
          const R *__restrict upper = g + run.column, *__restrict factor = factors.data() + gates + run.scalar;
          const R *__restrict x = from + before + run.column, *__restrict tangent = along + before + run.column;
          R *__restrict total = totals.data() + run.scalar, *__restrict column = to + gates + run.column;
          for (int c = 0; c < run.length; ++c) {
            column[c] = factor[c] * upper[c];
            total[c] += upper[c] * x[c];
            for (int i = 0; i < tangents; ++i) total[(1 + i) * gates + c] += upper[c] * tangent[i * stride + c];
          }
        }
        for (int64_t k = 0; k < gates; ++k) {
          R sum = factors[k] * totals[k];
          for (int i = 0; i < tangents; ++i) sum += factors[(2 + i) * gates + k] * totals[(1 + i) * gates + k];
          to[k] = sum;
        }
      }
    });
  });
}

}  // namespace
