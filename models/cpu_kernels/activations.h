// Elementwise functions and their slopes.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

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

struct Swish {  // x s(x)
  template <int order, class R>
  static inline R value(R x) {
    const Sigmoid<R> of(x);
    if (order == 0) return x * of.s;
    if (order == 1) return of.s + x * (of.s * of.rest);
    return of.s * of.rest * (R(2) + x * (of.rest - of.s));
  }
};

struct ShiftedSoftplus {  // ln(1 + e^x) - ln 2
  template <int order, class R>
  static inline R value(R x) {
    if (order == 0) {
      const R positive = x > R(0) ? x : R(0);
      const R size = x > R(0) ? x : -x;
      return positive + (logarithm_of_1_plus(exponential(-size)) - R(0.693147180559945309417));
    }
    const Sigmoid<R> of(x);
    return order == 1 ? of.s : of.s * of.rest;
  }
};

template <class F, int order, class R>
void activation(int64_t count, const R* x, const R* g, R* y) {
  shared(parts_of(16 * count, 4), [=](int part, int parts) {
    const Range range = part_of(count, part, parts);
    const R* __restrict from = x;
    const R* __restrict factor = g;
    R* __restrict to = y;
#pragma GCC ivdep
    for (int64_t i = range.begin; i < range.end; ++i) {
      const R value = F::template value<order>(from[i]);
      to[i] = order == 0 ? value : factor[i] * value;
    }
  });
}

}  // namespace
