// Vectors of pairs, their lengths, and functions of a length, with derivatives.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "activations.h"
#include "orders.h"
#include "threads.h"

namespace {

// out = x[second] + shift - x[first]; x (N, 3), shift and out (P, 3).
template <class R>
void pair_vectors(int64_t pairs, const R* x, const R* shift, const int32_t* first, const int32_t* second, R* out) {
  for (int64_t p = 0; p < pairs; ++p) {
    const R *from = x + 3 * second[p], *to = x + 3 * first[p];
    for (int64_t a = 3 * p, k = 0; k < 3; ++k) out[a + k] = from[k] + shift[a + k] - to[k];
  }
}

// out[second] += g and out[first] -= g; g (P, 3), out (N, 3).
template <class R>
void pair_differences(int64_t nodes, int64_t pairs, const R* g, const int32_t* first, const int32_t* second, R* out) {
  std::fill(out, out + 3 * nodes, R(0));
  for (int64_t p = 0; p < pairs; ++p) {
    R *from = out + 3 * second[p], *to = out + 3 * first[p];
    for (int64_t k = 0; k < 3; ++k) {
      from[k] += g[3 * p + k];
      to[k] -= g[3 * p + k];
    }
  }
}

// The length d of a vector, 1 / d and the direction r / d; for the zero vector 1 / d and the direction are 0.
template <class R>
struct Direction {
  explicit inline Direction(const R* r) {
    const R squared = r[0] * r[0] + r[1] * r[1] + r[2] * r[2];
    length = std::sqrt(squared);
    inverse = squared > R(0) ? R(1) / length : R(0);
    for (int k = 0; k < 3; ++k) u[k] = r[k] * inverse;
  }
  inline R along(const R* h) const { return u[0] * h[0] + u[1] * h[1] + u[2] * h[2]; }
  R length, inverse, u[3];
};

template <class R>
void lengths(int64_t pairs, const R* r, R* out) {
  for (int64_t p = 0; p < pairs; ++p) out[p] = Direction<R>(r + 3 * p).length;
}

// out = g u; g (P), out (P, 3).
template <class R>
void along_directions(int64_t pairs, const R* r, const R* g, R* out) {
  for (int64_t p = 0; p < pairs; ++p) {
    const Direction<R> of(r + 3 * p);
    for (int k = 0; k < 3; ++k) out[3 * p + k] = g[p] * of.u[k];
  }
}

// out = u . h; h (P, 3), out (P).
template <class R>
void parts_along(int64_t pairs, const R* r, const R* h, R* out) {
  for (int64_t p = 0; p < pairs; ++p) out[p] = Direction<R>(r + 3 * p).along(h + 3 * p);
}

// out = g (h - u (u . h)) / d; g (P), h and out (P, 3).
template <class R>
void parts_across(int64_t pairs, const R* r, const R* g, const R* h, R* out) {
  for (int64_t p = 0; p < pairs; ++p) {
    const Direction<R> of(r + 3 * p);
    const R along = of.along(h + 3 * p);
    for (int k = 0; k < 3; ++k) out[3 * p + k] = g[p] * of.inverse * (h[3 * p + k] - of.u[k] * along);
  }
}

// e^(c y^2) differentiated n times, by P'' = 2 c y P' + 2 c n P of Hermite's polynomials.
template <class R>
inline R gaussian(R y, R c, int order) {
  R last = 0, now = exponential(c * y * y);
  for (int n = 0; n < order; ++n) {
    const R next = R(2) * c * (y * now + R(n) * last);
    last = now;
    now = next;
  }
  return now;
}

constexpr int64_t cost_of_a_gaussian = 16;

// out = s_p e_k(d_p) differentiated; d and s (P), s = 1 where there is none; offsets and coefficients (K), out (P, K).
template <class R>
void gaussians(int64_t pairs, int64_t width, int n, const R* d, const R* s, const R* offsets, const R* coefficients,
               R* out) {
  with_known_order(n, [=](auto order) {
    shared(parts_of(cost_of_a_gaussian * pairs * width, 4), [=](int part, int parts) {
      const Range range = part_of(pairs, part, parts);
      for (int64_t p = range.begin; p < range.end; ++p) {
        R* __restrict to = out + p * width;
        const R distance = d[p], scale = s == nullptr ? R(1) : s[p];
#pragma GCC ivdep
        for (int64_t k = 0; k < width; ++k) to[k] = scale * gaussian(distance - offsets[k], coefficients[k], order);
      }
    });
  });
}

// out = sum_k g_k e_k(d) differentiated; g (P, K), d and out (P).
template <class R>
void gaussian_sums(int64_t pairs, int64_t width, int n, const R* d, const R* g, const R* offsets,
                   const R* coefficients, R* out) {
  with_known_order(n, [=](auto order) {
    shared(parts_of(cost_of_a_gaussian * pairs * width, 4), [=](int part, int parts) {
      const Range range = part_of(pairs, part, parts);
      for (int64_t p = range.begin; p < range.end; ++p) {
        const R* factor = g + p * width;
        R sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t k = 0; k < width; ++k) sum += factor[k] * gaussian(d[p] - offsets[k], coefficients[k], order);
        out[p] = sum;
      }
    });
  });
}

// out = g f(d) differentiated, f(d) = (cos(w d) + 1) / 2 with w = frequency; g = 1 where there is none.
template <int order, class R>
void cosine_cutoff(int64_t count, const R* d, const R* g, R frequency, R* out) {
  for (int64_t p = 0; p < count; ++p) {
    const R x = frequency * d[p], half = R(0.5);
    if (order == 0) out[p] = half * std::cos(x) + half;
    if (order == 1) out[p] = -half * frequency * std::sin(x) * g[p];
    if (order == 2) out[p] = -half * frequency * frequency * std::cos(x) * g[p];
  }
}

}  // namespace
