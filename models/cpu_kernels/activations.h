// Elementwise functions and their slopes.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "orders.h"
#include "threads.h"

namespace {

// Clamped where e^x would be infinite: the sigmoid times infinity is not a number.
inline double exponential(double x) { return std::exp(x > 700.0 ? 700.0 : x); }

// e^x to 1 unit in the last place for |x| < 87, and clamped beyond: reduction by ln 2 in two parts, then a polynomial.
inline float exponential(float x) {
  x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
  const float n = std::nearbyint(x * 1.44269504088896341f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return p * scale;
}

inline double logarithm_of_1_plus(double u) { return std::log1p(u); }

// ln(1 + u) for 0 <= u <= 1, as 2 artanh(u / (2 + u)).
inline float logarithm_of_1_plus(float u) {
  const float t = u / (2.0f + u), s = t * t;
  float p = 1.0f / 15.0f;
  p = p * s + 1.0f / 13.0f;
  p = p * s + 1.0f / 11.0f;
  p = p * s + 1.0f / 9.0f;
  p = p * s + 1.0f / 7.0f;
  p = p * s + 1.0f / 5.0f;
  p = p * s + 1.0f / 3.0f;
  return 2.0f * (t + t * s * p);
}

// s(x) and 1 - s(x), which is not taken as a difference: near s = 1 nothing would be left of it.
template <class R>
struct Sigmoid {
  explicit inline Sigmoid(R x) {
    const R e = exponential(-x);
    s = R(1) / (R(1) + e);
    rest = e * s;
  }
  R s, rest;
};

// Taylor's coefficients of the sigmoid at x, by s' = s (1 - s).
template <class Order, class R>
inline auto sigmoid_series(Order order, R x) {
  const Sigmoid<R> of(x);
  auto s = series_of<R>(order);
  s[0] = of.s;
  for (int j = 0; j < order; ++j) {
    R sum = j == 0 ? of.s * of.rest : (of.rest - of.s) * s[j];
    for (int i = 1; i < j; ++i) sum -= s[i] * s[j - i];
    s[j + 1] = sum / R(j + 1);
  }
  return s;
}

struct Swish {  // x s(x)
  template <class Order, class R>
  static inline R value(Order order, R x) {
    if (order == 0) return x * Sigmoid<R>(x).s;
    const auto s = sigmoid_series(order, x);
    return R(factorial(order)) * (x * s[order] + s[order - 1]);
  }
};

struct ShiftedSoftplus {  // ln(1 + e^x) - ln 2
  template <class Order, class R>
  static inline R value(Order order, R x) {
    if (order == 0) {
      const R positive = x > R(0) ? x : R(0);
      const R size = x > R(0) ? x : -x;
      return positive + (logarithm_of_1_plus(exponential(-size)) - R(0.693147180559945309417));
    }
    return R(factorial(order - 1)) * sigmoid_series(order, x)[order - 1];
  }
};

// y = g f(x) differentiated n times; g = 1 where there is none.
template <class F, class R>
void activation(int64_t count, int n, const R* x, const R* g, R* y) {
  with_known_order(n, [=](auto order) {
    shared(parts_of(16 * count, 4), [=](int part, int parts) {
      const Range range = part_of(count, part, parts);
      const R* __restrict from = x;
      const R* __restrict factor = g;
      R* __restrict to = y;
      if (g == nullptr) {
#pragma GCC ivdep
        for (int64_t i = range.begin; i < range.end; ++i) to[i] = F::value(order, from[i]);
      } else {
#pragma GCC ivdep
        for (int64_t i = range.begin; i < range.end; ++i) to[i] = factor[i] * F::value(order, from[i]);
      }
    });
  });
}

}  // namespace
