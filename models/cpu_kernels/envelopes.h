// Functions of a distance under a polynomial envelope, differentiated any number of times.
//
// What a pair has for all its functions is computed in double: it is little, and differences of it are divided by d.

#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "activations.h"
#include "distances.h"
#include "orders.h"
#include "threads.h"

namespace {

// series *= a + b e.
template <class Order, class Series>
inline void times_line(Order order, double a, double b, Series& series) {
  for (int j = order; j > 0; --j) series[j] = a * series[j] + b * series[j - 1];
  series[0] *= a;
}

// series /= a + e.
template <class Order, class Series>
inline void over_line(Order order, double a, Series& series) {
  const double inverse = 1 / a;
  series[0] *= inverse;
  for (int j = 1; j <= order; ++j) series[j] = (series[j] - series[j - 1]) * inverse;
}

// f(d)^power at d + e, where f = (1 - x)^3 sum_(k <= exponent) (k + 1)(k + 2) / 2 x^k with x = d / cutoff < 1.
template <class Order>
inline auto envelope_series(Order order, double d, double cutoff, int exponent, int power) {
  const double slope = 1 / cutoff, x = d * slope, rest = (cutoff - d) * slope;
  auto f = series_of<double>(order), result = series_of<double>(order);
  for (int k = exponent; k >= 0; --k) {  // Horner
    times_line(order, x, slope, f);
    f[0] += 0.5 * (k + 1) * (k + 2);
  }
  for (int k = 0; k < 3; ++k) times_line(order, rest, -slope, f);
  result[0] = 1;
  for (int k = 0; k < power; ++k)
    for (int j = order; j >= 0; --j) {
      double sum = 0;
      for (int i = 0; i <= j; ++i) sum += f[i] * result[j - i];
      result[j] = sum;
    }
  return result;
}

// out = t f(d) differentiated, 0 from the cutoff on; d and t (P), t = 1 where there is none, numbers the cutoff.
template <class R>
void envelopes(int64_t pairs, const R* d, const R* t, int exponent, int n, const R* numbers, R* out) {
  const double cutoff = numbers[0];
  with_known_order(n, [=](auto order) {
    const double size = factorial(order);
    shared(parts_of(int64_t(8) * (exponent + 4) * (order + 1) * pairs, 4), [=](int part, int parts) {
      const Range range = part_of(pairs, part, parts);
      for (int64_t p = range.begin; p < range.end; ++p) {
        if (d[p] >= numbers[0]) {
          out[p] = 0;
          continue;
        }
        const double value = size * envelope_series(order, d[p], cutoff, exponent, 1)[order];
        out[p] = t == nullptr ? R(value) : t[p] * R(value);
      }
    });
  });
}

// The functions e_k of (13): f(d)^power sin(k pi d / cutoff) / (k d) for k = 1 ... waves, and then f(d)^power
// exp(sharpness (s d - centre_k)^2).
template <class R>
struct PairFunctions {
  int64_t waves, width;
  int exponent, power;
  const R* numbers;  // cutoff, sharpness and centres

  // Layout has the number of waves, the exponent and the power.
  PairFunctions(int64_t width, const int32_t* layout, const R* numbers)
      : waves(layout[0]), width(width), exponent(layout[1]), power(layout[2]), numbers(numbers) {}

  // The functions of one pair, each differentiated; buffer has room for twice as many numbers as there are waves.
  template <class Order>
  void differentiated(Order order, R d, R s, R* __restrict buffer, R* __restrict out) const {
    if (d >= numbers[0]) {
      std::fill(out, out + width, R(0));
      return;
    }
    auto weights = envelope_series(order, d, numbers[0], exponent, power);
    const double size = factorial(order);
    for (int j = 0; j <= order; ++j) weights[j] *= size;
    gaussian_part(order, weights, s * d, s, out + waves);
    over_line(order, d, weights);
    wave_part(order, weights, d, buffer, out);
  }

 private:
  // sum_j weights_(n - j) G_j of Taylor's coefficients of exp(c (y + s e)^2): (j + 1) G_(j + 1) = 2 c s (y G_j +
  // s G_(j - 1)).
  template <class Order, class Series>
  void gaussian_part(Order order, const Series& weights, R reduced, R s, R* __restrict out) const {
    const R sharpness = numbers[1], *centres = numbers + 2;
#pragma GCC ivdep
    for (int64_t k = 0; k < width - waves; ++k) {
      const R y = reduced - centres[k];
      R last = 0, now = exponential(sharpness * y * y), sum = R(weights[order]) * now;
      for (int j = 0; j < order; ++j) {
        const R next = R(2) * sharpness * s * (y * now + s * last) / R(j + 1);
        last = now, now = next;
        sum += R(weights[order - j - 1]) * now;
      }
      out[k] = sum;
    }
  }

  // The same of sin(k (w d + w e)) / k, where the sines of multiples of w d follow from each other.
  template <class Order, class Series>
  void wave_part(Order order, const Series& weights, double d, R* __restrict buffer, R* __restrict out) const {
    const double w = 3.14159265358979323846 / numbers[0], sine = std::sin(w * d), cosine = std::cos(w * d);
    R *__restrict sines = buffer, *__restrict cosines = buffer + waves;
    double s = sine, c = cosine;
    for (int64_t k = 0; k < waves; ++k) {
      sines[k] = s, cosines[k] = c;
      const double next = s * cosine + c * sine;
      c = c * cosine - s * sine, s = next;
    }
#pragma GCC ivdep
    for (int64_t k = 0; k < waves; ++k) {
      const R number = R(int32_t(k) + 1), frequency = number * R(w);
      R now = sines[k], other = cosines[k], sum = R(weights[order]) * now;
      for (int j = 0; j < order; ++j) {
        const R next = frequency * other / R(j + 1);
        other = -frequency * now / R(j + 1), now = next;
        sum += R(weights[order - j - 1]) * now;
      }
      out[k] = sum / number;
    }
  }
};

// use(p, e) with the functions e of every pair, differentiated n times.
template <class R, class Use>
void for_pairs(const PairFunctions<R>& functions, int64_t pairs, int n, const R* d, const R* s, Use use) {
  with_known_order(n, [=, &functions](auto order) {
    shared(parts_of(cost_of_a_gaussian * pairs * (functions.width + 8), 4), [=, &functions](int part, int parts) {
      const Range range = part_of(pairs, part, parts);
      std::vector<R> buffer(2 * functions.waves + functions.width);
      R* e = buffer.data() + 2 * functions.waves;
      for (int64_t p = range.begin; p < range.end; ++p) {
        functions.differentiated(order, d[p], s[p], buffer.data(), e);
        use(p, e);
      }
    });
  });
}

// out = t y_k e_k; d, s and t (P), t = 1 where there is none, y and out (P, K).
template <class R>
void pair_functions(const PairFunctions<R>& functions, int64_t pairs, int n, const R* d, const R* s, const R* t,
                    const R* y, R* out) {
  for_pairs(functions, pairs, n, d, s, [=, width = functions.width](int64_t p, const R* __restrict e) {
    const R* __restrict from = y + p * width;
    R* __restrict to = out + p * width;
    const R scale = t == nullptr ? R(1) : t[p];
    for (int64_t k = 0; k < width; ++k) to[k] = scale * from[k] * e[k];
  });
}

// out = t sum_k y_k z_k e_k; y and z (P, K), out (P).
template <class R>
void pair_function_sums(const PairFunctions<R>& functions, int64_t pairs, int n, const R* d, const R* s, const R* t,
                        const R* y, const R* z, R* out) {
  for_pairs(functions, pairs, n, d, s, [=, width = functions.width](int64_t p, const R* __restrict e) {
    const R *__restrict one = y + p * width, *__restrict other = z + p * width;
    R sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < width; ++k) sum += one[k] * other[k] * e[k];
    out[p] = t == nullptr ? sum : t[p] * sum;
  });
}

}  // namespace
