// Spherical harmonics of vectors, or of their directions, differentiated along any number of tangents.
//
// A number here is a polynomial in e_1 ... e_n with e_i^2 = 0, one coefficient for each subset of them: every function of
// r + sum v_i e_i has its mixed derivative at the set of all.  Several vectors stand side by side, one in each lane.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "threads.h"

namespace {

constexpr int vectors_at_once = 16;

// P_(degree + 1, m) gets a coefficient times P_(degree, i) r_j.
struct HarmonicTerm {
  int32_t degree, i, j, m;
};

template <class R>
class Harmonics {
 public:
  // Table has the largest degree, whether vectors are divided by their lengths, and terms by degree; numbers have a
  // factor of each degree and the coefficients of the terms.
  Harmonics(const int32_t* table, int64_t size, const R* numbers, int tangents)
      : lmax_(table[0]),
        normalize_(table[1] != 0),
        terms_(reinterpret_cast<const HarmonicTerm*>(table + 2)),
        count_((size - 2) / 4),
        factors_(numbers),
        coefficients_(numbers + lmax_ + 1),
        tangents_(tangents),
        subsets_(1 << tangents),
        buffer_((2 + 3 + width()) * subsets_ * vectors_at_once) {}

  int width() const { return (lmax_ + 1) * (lmax_ + 1); }

  // Of vectors r and tangents v, (3) of lanes each, to width() of lanes.
  void operator()(const R* r, const R* const* v, R* out) {
    directions(r, v);
    polynomials();
    const int all = subsets_ - 1;
    for (int degree = 0, place = 0; degree <= lmax_; ++degree)
      for (int m = 0; m <= 2 * degree; ++m, ++place)
        for (int l = 0; l < lanes; ++l) {
          const R constant = tangents_ == 0 ? R(1) : R(0);  // P_0
          out[place * lanes + l] = factors_[degree] * (degree == 0 ? constant : polynomial(place)[all * lanes + l]);
        }
  }

 private:
  static constexpr int lanes = vectors_at_once;

  R* squared() { return buffer_.data(); }
  R* inverse() { return buffer_.data() + subsets_ * lanes; }
  // The first three are P_1, the direction; their places are those in the result.
  R* polynomial(int place) { return buffer_.data() + (2 + place) * subsets_ * lanes; }

  // to[set] += factor a[part] b[set without part] for all parts of a set.
  void multiply(int set, R factor, const R* a, const R* b, R* __restrict to) const {
    R sum[lanes] = {};
    for (int part = set;; part = (part - 1) & set) {
      const R *x = a + part * lanes, *y = b + (set & ~part) * lanes;
      for (int l = 0; l < lanes; ++l) sum[l] += x[l] * y[l];
      if (part == 0) break;
    }
    for (int l = 0; l < lanes; ++l) to[set * lanes + l] += factor * sum[l];
  }

  // P_1 = r, or r q^(-1/2) with q = r^2.
  void directions(const R* r, const R* const* v) {
    std::fill(buffer_.begin(), buffer_.end(), R(0));
    if (normalize_) roots(r, v);
    for (int a = 0; a < 3; ++a) {
      R* u = polynomial(1 + a);
      for (int set = 0; set < subsets_; ++set)
        for (int l = 0; l < lanes; ++l) {
          if (!normalize_) {
            if (set == 0) u[l] = r[a * lanes + l];
            continue;
          }
          u[set * lanes + l] = r[a * lanes + l] * inverse()[set * lanes + l];
        }
      for (int i = 0; i < tangents_; ++i)
        for (int set = 1 << i; set < subsets_; ++set) {
          if (!(set >> i & 1) || (!normalize_ && set != 1 << i)) continue;
          const R* root = inverse() + (set & ~(1 << i)) * lanes;
          for (int l = 0; l < lanes; ++l) u[set * lanes + l] += v[i][a * lanes + l] * (normalize_ ? root[l] : R(1));
        }
    }
  }

  // w = q^(-1/2), from q w' = -q' w / 2; all 0 where q = 0.
  void roots(const R* r, const R* const* v) {
    R *q = squared(), *w = inverse(), per_square[lanes];
    for (int a = 0; a < 3; ++a)
      for (int l = 0; l < lanes; ++l) {
        q[l] += r[a * lanes + l] * r[a * lanes + l];
        for (int i = 0; i < tangents_; ++i) {
          q[(1 << i) * lanes + l] += R(2) * r[a * lanes + l] * v[i][a * lanes + l];
          for (int j = 0; j < i; ++j)
            q[(1 << i | 1 << j) * lanes + l] += R(2) * v[i][a * lanes + l] * v[j][a * lanes + l];
        }
      }
    for (int l = 0; l < lanes; ++l) {
      w[l] = q[l] <= R(0) ? R(0) : R(1) / std::sqrt(q[l]);
      per_square[l] = q[l] <= R(0) ? R(0) : R(1) / q[l];
    }
    for (int set = 1; set < subsets_; ++set) {
      const int first = set & -set, rest = set & ~first;
      R sum[lanes] = {};
      for (int part = rest;; part = (part - 1) & rest) {
        const R *slope = q + (part | first) * lanes, *other = w + (rest & ~part) * lanes;
        for (int l = 0; l < lanes; ++l) sum[l] -= R(0.5) * slope[l] * other[l];
        if (part == 0) break;
        const R *value = q + part * lanes, *root = w + (set & ~part) * lanes;
        for (int l = 0; l < lanes; ++l) sum[l] -= value[l] * root[l];
      }
      for (int l = 0; l < lanes; ++l) w[set * lanes + l] = sum[l] * per_square[l];
    }
  }

  // The higher degrees; of the highest, the set of all is enough.
  void polynomials() {
    for (int64_t k = 0; k < count_; ++k) {
      const HarmonicTerm term = terms_[k];
      const int from = term.degree * term.degree, to = (term.degree + 1) * (term.degree + 1);
      for (int set = term.degree + 1 == lmax_ ? subsets_ - 1 : 0; set < subsets_; ++set)
        multiply(set, coefficients_[k], polynomial(from + term.i), polynomial(1 + term.j), polynomial(to + term.m));
    }
  }

  const int lmax_;
  const bool normalize_;
  const HarmonicTerm* terms_;
  const int64_t count_;
  const R *factors_, *coefficients_;
  const int tangents_, subsets_;
  std::vector<R> buffer_;
};

// Vectors (., 3) from a row on, one in each lane; the last of few fills the rest.
template <class R>
void vectors_to_lanes(const R* rows, int few, R* lanes) {
  for (int l = 0; l < vectors_at_once; ++l)
    for (int a = 0; a < 3; ++a) lanes[a * vectors_at_once + l] = rows[3 * std::min(l, few - 1) + a];
}

// use(row, few, r, v) with several vectors and their n tangents (n, M, 3) in lanes, and room for one tangent more in v.
template <class R, class Use>
void for_vectors(Range range, int64_t rows, int n, const R* r, const R* v, Use use) {
  constexpr int lanes = vectors_at_once;
  std::vector<R> vectors(3 * lanes * (n + 2));
  std::vector<const R*> tangents;
  for (int i = 0; i <= n; ++i) tangents.push_back(vectors.data() + 3 * lanes * (i + 1));
  for (int64_t row = range.begin; row < range.end; row += lanes) {
    const int few = static_cast<int>(std::min<int64_t>(lanes, range.end - row));
    vectors_to_lanes(r + 3 * row, few, vectors.data());
    for (int i = 0; i < n; ++i)
      vectors_to_lanes(v + 3 * (i * rows + row), few, vectors.data() + 3 * lanes * (i + 1));
    use(row, few, vectors.data(), tangents.data(), vectors.data() + 3 * lanes * (n + 1));
  }
}

// out (M, W) = D_1 ... D_n Y(r) for tangents v (n, M, 3).
template <class R>
void harmonic_tangents(int64_t rows, int n, const int32_t* table, int64_t size, const R* numbers, const R* r,
                       const R* v, R* out) {
  constexpr int lanes = vectors_at_once;
  const int64_t width = (table[0] + 1) * (table[0] + 1);
  shared(parts_of((width << n) * 16 * rows, 4), [=](int part, int parts) {
    Harmonics<R> harmonics(table, size, numbers, n);
    std::vector<R> found(width * lanes);
    for_vectors(part_of(rows, part, parts), rows, n, r, v,
                [&](int64_t row, int few, const R* x, const R* const* along, R*) {
      harmonics(x, along, found.data());
      for (int l = 0; l < few; ++l)
        for (int64_t k = 0; k < width; ++k) out[(row + l) * width + k] = found[k * lanes + l];
    });
  });
}

// out (M, 3) = the gradient in r of d . D_1 ... D_n Y(r); d (M, W).
template <class R>
void harmonic_slopes(int64_t rows, int n, const int32_t* table, int64_t size, const R* numbers, const R* r, const R* v,
                     const R* d, R* out) {
  constexpr int lanes = vectors_at_once;
  const int64_t width = (table[0] + 1) * (table[0] + 1);
  shared(parts_of((width << n) * 96 * rows, 4), [=](int part, int parts) {
    Harmonics<R> harmonics(table, size, numbers, n + 1);
    std::vector<R> found(width * lanes);
    for_vectors(part_of(rows, part, parts), rows, n, r, v,
                [&](int64_t row, int few, const R* x, const R* const* along, R* last) {
      for (int a = 0; a < 3; ++a) {  // the derivative along each axis
        std::fill(last, last + 3 * lanes, R(0));
        std::fill(last + a * lanes, last + (a + 1) * lanes, R(1));
        harmonics(x, along, found.data());
        for (int l = 0; l < few; ++l) {
          R sum = 0;
          for (int64_t k = 0; k < width; ++k) sum += d[(row + l) * width + k] * found[k * lanes + l];
          out[3 * (row + l) + a] = sum;
        }
      }
    });
  });
}

}  // namespace
