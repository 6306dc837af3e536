// Kernels for CPUs that MindSpore calls as custom operators: each does in one pass over memory what takes several of
// MindSpore's operators there.  fused.py knows their derivatives, build.py compiles them.
//
// Letters: N nodes, E edges, P pairs, T triplets, F and I features, B basis functions.  Arrays are dense and row-major,
// of float32 or float64; indices are int32.  The same input gives the same bits for a fixed number of threads.

#include <cstdint>
#include <cstring>

#include "activations.h"
#include "couplings.h"
#include "distances.h"
#include "envelopes.h"
#include "gates.h"
#include "harmonics.h"
#include "mixed_products.h"
#include "mixtures.h"
#include "pairs.h"
#include "products.h"
#include "row_blocks.h"
#include "threads.h"
#include "triplets.h"

namespace {

bool is_double(const char* type) { return std::strcmp(type, "float64") == 0; }

int64_t size(int rank, const int64_t* shape) {
  int64_t result = 1;
  for (int i = 0; i < rank; ++i) result *= shape[i];
  return result;
}

}  // namespace

// How many threads share a kernel; only counts before the first one.
extern "C" void set_threads(int threads) { wanted_threads.store(std::max(1, threads)); }

#define KERNEL(name)                                                                                             \
  extern "C" int name(int, [[maybe_unused]] void** data, [[maybe_unused]] int* ranks,                            \
                      [[maybe_unused]] int64_t** shapes, [[maybe_unused]] const char** types, void*, void*)
#define REAL(index) static_cast<R*>(data[index])
#define INDEX(index) static_cast<const int32_t*>(data[index])

// Calls body<float> or body<double>, by the type of the first input.
template <class Body>
int by_type(const char* type, Body body) {
  flush_denormals();
  if (is_double(type)) {
    body(double());
  } else {
    body(float());
  }
  return 0;
}

#define ACTIVATION(name, F)  /* x -> the same; x, g, order () -> the same */                                      \
  KERNEL(name) {                                                                                                 \
    return by_type(types[0], [&](auto zero) {                                                                    \
      using R = decltype(zero);                                                                                  \
      activation<F, R>(size(ranks[0], shapes[0]), 0, REAL(0), nullptr, REAL(1));                                 \
    });                                                                                                          \
  }                                                                                                              \
  KERNEL(name##_slopes) {                                                                                        \
    return by_type(types[0], [&](auto zero) {                                                                    \
      using R = decltype(zero);                                                                                  \
      activation<F, R>(size(ranks[0], shapes[0]), *INDEX(2), REAL(0), REAL(1), REAL(3));                         \
    });                                                                                                          \
  }

ACTIVATION(swish, Swish)
ACTIVATION(shifted_softplus, ShiftedSoftplus)

KERNEL(pair_vectors) {  // x (N, 3), shift (P, 3), first, second -> (P, 3)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    pair_vectors<R>(shapes[1][0], REAL(0), REAL(1), INDEX(2), INDEX(3), REAL(4));
  });
}

KERNEL(pair_differences) {  // g (P, 3), first, second, any (N, 3) -> (N, 3)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    pair_differences<R>(shapes[3][0], shapes[0][0], REAL(0), INDEX(1), INDEX(2), REAL(4));
  });
}

KERNEL(lengths) {  // r (P, 3) -> (P, 1)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    lengths<R>(shapes[0][0], REAL(0), REAL(1));
  });
}

KERNEL(along_directions) {  // r (P, 3), g (P, 1) -> (P, 3)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    along_directions<R>(shapes[0][0], REAL(0), REAL(1), REAL(2));
  });
}

KERNEL(parts_along) {  // r, h (P, 3) -> (P, 1)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    parts_along<R>(shapes[0][0], REAL(0), REAL(1), REAL(2));
  });
}

KERNEL(parts_across) {  // r (P, 3), g (P, 1), h (P, 3) -> (P, 3)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    parts_across<R>(shapes[0][0], REAL(0), REAL(1), REAL(2), REAL(3));
  });
}

KERNEL(gaussians) {  // d (P, 1), offsets, coefficients (K,) -> (P, K)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    gaussians<R>(shapes[0][0], shapes[1][0], 0, REAL(0), nullptr, REAL(1), REAL(2), REAL(3));
  });
}

KERNEL(gaussian_slopes) {  // d, s (P, 1), offsets, coefficients (K,), order () -> (P, K)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    gaussians<R>(shapes[0][0], shapes[2][0], *INDEX(4), REAL(0), REAL(1), REAL(2), REAL(3), REAL(5));
  });
}

KERNEL(gaussian_sums) {  // d (P, 1), g (P, K), offsets, coefficients (K,), order () -> (P, 1)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    gaussian_sums<R>(shapes[0][0], shapes[2][0], *INDEX(4), REAL(0), REAL(1), REAL(2), REAL(3), REAL(5));
  });
}

KERNEL(cosine_cutoff_0) {  // d (P, 1), frequency () -> (P, 1)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    cosine_cutoff<0, R>(size(ranks[0], shapes[0]), REAL(0), nullptr, *REAL(1), REAL(2));
  });
}

// d, g (P, 1), frequency () -> (P, 1)
#define CUTOFF_SLOPE(order)                                                                                      \
  KERNEL(cosine_cutoff_##order) {                                                                                \
    return by_type(types[0], [&](auto zero) {                                                                    \
      using R = decltype(zero);                                                                                  \
      cosine_cutoff<order, R>(size(ranks[0], shapes[0]), REAL(0), REAL(1), *REAL(2), REAL(3));                   \
    });                                                                                                          \
  }

CUTOFF_SLOPE(1)
CUTOFF_SLOPE(2)

KERNEL(envelope) {  // d (P, 1), exponent (), numbers (1,) -> (P, 1)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    envelopes<R>(size(ranks[0], shapes[0]), REAL(0), nullptr, *INDEX(1), 0, REAL(2), REAL(3));
  });
}

KERNEL(envelope_slopes) {  // d, t (P, 1), exponent (), numbers (1,), order () -> (P, 1)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    envelopes<R>(size(ranks[0], shapes[0]), REAL(0), REAL(1), *INDEX(2), *INDEX(4), REAL(3), REAL(5));
  });
}

// Of width K, from the inputs layout and numbers.
#define PAIR_FUNCTIONS(K, layout) PairFunctions<R>(K, INDEX(layout), REAL(layout + 1))

KERNEL(pair_functions) {  // d, s (P, 1), y (P, K), layout (3,), numbers (K - waves + 2,), order () -> (P, K)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    pair_functions<R>(PAIR_FUNCTIONS(shapes[2][1], 3), shapes[0][0], *INDEX(5), REAL(0), REAL(1), nullptr, REAL(2),
                      REAL(6));
  });
}

KERNEL(scaled_pair_functions) {  // d, s, t (P, 1), y (P, K), layout, numbers, order () -> (P, K)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    pair_functions<R>(PAIR_FUNCTIONS(shapes[3][1], 4), shapes[0][0], *INDEX(6), REAL(0), REAL(1), REAL(2), REAL(3),
                      REAL(7));
  });
}

KERNEL(pair_function_sums) {  // d, s (P, 1), y, z (P, K), layout, numbers, order () -> (P, 1)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    pair_function_sums<R>(PAIR_FUNCTIONS(shapes[2][1], 4), shapes[0][0], *INDEX(6), REAL(0), REAL(1), nullptr, REAL(2),
                          REAL(3), REAL(7));
  });
}

KERNEL(scaled_pair_function_sums) {  // d, s, t (P, 1), y, z (P, K), layout, numbers, order () -> (P, 1)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    pair_function_sums<R>(PAIR_FUNCTIONS(shapes[3][1], 5), shapes[0][0], *INDEX(7), REAL(0), REAL(1), REAL(2), REAL(3),
                          REAL(4), REAL(8));
  });
}

KERNEL(pair_sum) {  // x (N, F), w (P, F), c (P, 1), first, second -> (N, F)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    pair_sum<R>(shapes[0][0], shapes[1][0], shapes[0][1], REAL(0), REAL(1), REAL(2), INDEX(3), INDEX(4), REAL(5));
  });
}

KERNEL(pair_filters) {  // g, x (N, F), c (P, 1), first, second -> (P, F)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    pair_filters<R>(shapes[2][0], shapes[0][1], REAL(0), REAL(1), REAL(2), INDEX(3), INDEX(4), REAL(5));
  });
}

KERNEL(pair_scales) {  // g, x (N, F), w (P, F), first, second -> (P, 1)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    pair_scales<R>(shapes[2][0], shapes[0][1], REAL(0), REAL(1), REAL(2), INDEX(3), INDEX(4), REAL(5));
  });
}

KERNEL(triplet_sum) {  // x (E, I), r (T, B), w (I, B), from, to -> (E, I)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    const int64_t width = shapes[0][1], basis = shapes[1][1];
    const auto w = transposed(REAL(2), width, basis);
    const auto call = basis == usual_basis ? triplet_sum<usual_basis, R> : triplet_sum<0, R>;
    call(shapes[0][0], shapes[1][0], width, basis, REAL(0), REAL(1), w.data(), INDEX(3), INDEX(4), REAL(5));
  });
}

KERNEL(triplet_rows) {  // g, x (E, I), w (I, B), from, to -> (T, B)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    const int64_t width = shapes[0][1], basis = shapes[2][1];
    const auto w = transposed(REAL(2), width, basis);
    const auto call = basis == usual_basis ? triplet_rows<usual_basis, R> : triplet_rows<0, R>;
    call(shapes[3][0], width, basis, REAL(0), REAL(1), w.data(), INDEX(3), INDEX(4), REAL(5));
  });
}

KERNEL(triplet_weights) {  // g, x (E, I), r (T, B), from, to -> (I, B)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    const int64_t width = shapes[0][1], basis = shapes[2][1];
    const auto call = basis == usual_basis ? triplet_weights<usual_basis, R> : triplet_weights<0, R>;
    call(shapes[3][0], width, basis, REAL(0), REAL(1), REAL(2), INDEX(3), INDEX(4), REAL(5));
  });
}

KERNEL(linear) {  // x (M, K), w (N, K), b (N,) -> (M, N)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    multiply<R>(shapes[0][0], shapes[0][1], shapes[1][0], REAL(0), REAL(1), 1, shapes[0][1], REAL(2), REAL(3));
  });
}

KERNEL(linear_without_bias) {  // x (M, K), w (N, K) -> (M, N)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    multiply<R>(shapes[0][0], shapes[0][1], shapes[1][0], REAL(0), REAL(1), 1, shapes[0][1], nullptr, REAL(2));
  });
}

KERNEL(linear_inputs) {  // g (M, N), w (N, K) -> (M, K)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    multiply<R>(shapes[0][0], shapes[0][1], shapes[1][1], REAL(0), REAL(1), shapes[1][1], 1, nullptr, REAL(2));
  });
}

KERNEL(linear_weights) {  // g (M, N), x (M, K) -> (N, K)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    outer<R>(shapes[0][0], shapes[0][1], shapes[1][1], REAL(0), REAL(1), REAL(2));
  });
}

KERNEL(column_sums) {  // g (M, N) -> (N,)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    column_sums<R>(shapes[0][0], shapes[0][1], REAL(0), REAL(1));
  });
}

// Tables of int32 with a struct in each row.
#define TABLE(Struct, index) static_cast<const Struct*>(data[index]), shapes[index][0]

KERNEL(block_product) {  // x (N, F), T (M, K), first, second, table (S, 9), any (., W) -> (M, W)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    block_product<R>(shapes[1][0], {shapes[0][1], shapes[1][1], shapes[5][1]}, {TABLE(Segment, 4)}, REAL(0), REAL(1),
                     INDEX(2), INDEX(3), REAL(6));
  });
}

KERNEL(block_transpose) {  // z (M, W), T (M, K), first, second, table (S, 9), any (N, .), any (., F) -> (N, F)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    block_transpose<R>(shapes[5][0], shapes[1][0], {shapes[6][1], shapes[1][1], shapes[0][1]}, {TABLE(Segment, 4)},
                       REAL(0), REAL(1), INDEX(2), INDEX(3), REAL(7));
  });
}

KERNEL(block_matrices) {  // z (M, W), x (N, F), first, second, table (S, 9), any (M, K) -> (M, K)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    block_matrices<R>(shapes[0][0], {shapes[1][1], shapes[5][1], shapes[0][1]}, {TABLE(Segment, 4)}, REAL(0), REAL(1),
                      INDEX(2), INDEX(3), REAL(6));
  });
}

// Weights of rank 2 are those of each row.
KERNEL(mixed) {  // z (M, K), w (numel,) or (M, numel), b (N,), parts (P, 5), entries (S, 7), factors (S,) -> (M, N)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    const Mixture<R> mixture{TABLE(Part, 3), TABLE(Entry, 4), REAL(5)};
    const int64_t m = shapes[0][0], k = shapes[0][1], n = shapes[2][0];
    if (ranks[1] == 1) return mixed<R>(m, k, n, false, mixture, REAL(0), REAL(1), REAL(2), REAL(6));
    mixed_by_row<of_result, R>(m, k, n, shapes[1][1], mixture, REAL(0), REAL(1), REAL(6), REAL(2));
  });
}

KERNEL(mixed_without_bias) {  // z (M, K), w, parts, entries, factors as above, any (., N) -> (M, N)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    const Mixture<R> mixture{TABLE(Part, 2), TABLE(Entry, 3), REAL(4)};
    const int64_t m = shapes[0][0], k = shapes[0][1], n = shapes[5][1];
    if (ranks[1] == 1) return mixed<R>(m, k, n, false, mixture, REAL(0), REAL(1), nullptr, REAL(6));
    mixed_by_row<of_result, R>(m, k, n, shapes[1][1], mixture, REAL(0), REAL(1), REAL(6), nullptr);
  });
}

KERNEL(mixed_inputs) {  // g (M, N), w, parts, entries, factors as above, any (., K) -> (M, K)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    const Mixture<R> mixture{TABLE(Part, 2), TABLE(Entry, 3), REAL(4)};
    const int64_t m = shapes[0][0], n = shapes[0][1], k = shapes[5][1];
    if (ranks[1] == 1) return mixed<R>(m, n, k, true, mixture, REAL(0), REAL(1), nullptr, REAL(6));
    mixed_by_row<of_inputs, R>(m, k, n, shapes[1][1], mixture, REAL(6), REAL(1), REAL(0), nullptr);
  });
}

KERNEL(mixed_weights) {  // g (M, N), z (M, K), parts, entries, factors as above, any (numel,) or (M, numel) -> as this
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    const Mixture<R> mixture{TABLE(Part, 2), TABLE(Entry, 3), REAL(4)};
    const int64_t m = shapes[0][0], n = shapes[0][1], k = shapes[1][1];
    if (ranks[5] == 1) return mixed_weights<R>(m, k, n, shapes[5][0], mixture, REAL(0), REAL(1), REAL(6));
    mixed_by_row<of_weights, R>(m, k, n, shapes[5][1], mixture, REAL(1), REAL(6), REAL(0), nullptr);
  });
}

// The tables of the next three kernels are their inputs 4 to 11: first, second, all segments (S, 9), those with an x, parts
// (P, 5), entries (S, 7), factors (S,), any (., W).
#define COUPLED(F, K, segments)                                                                                  \
  Coupled<R>({F, K, shapes[11][1]}, {TABLE(Segment, segments)}, {TABLE(Part, 8), TABLE(Entry, 9), REAL(10)},     \
             INDEX(4), INDEX(5))

KERNEL(coupled) {  // x (N, F), T (M, K), w (numel,), b (W,), tables -> (M, W)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    coupled<R>(shapes[1][0], COUPLED(shapes[0][1], shapes[1][1], 6), REAL(0), REAL(1), REAL(2), REAL(3), REAL(12));
  });
}

KERNEL(coupled_gradients) {  // g (M, W), T (M, K), w (numel,), x (N, F), tables -> (N, F), (M, K)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    coupled_gradients<R>(shapes[3][0], shapes[1][0], COUPLED(shapes[3][1], shapes[1][1], 6), REAL(0), REAL(1), REAL(2),
                         REAL(3), REAL(12), REAL(13));
  });
}

KERNEL(coupled_weights) {  // g (M, W), x (N, F), T (M, K), any (numel,), tables -> (numel,)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    coupled_weights<R>(shapes[0][0], shapes[3][0], COUPLED(shapes[1][1], shapes[2][1], 6), REAL(0), REAL(1), REAL(2),
                       REAL(12));
  });
}

// Shapes of (11) from the inputs x, a, w and the width of y; its last tables, from one input on, are receivers and senders
// (M,), or (1,) where rows are their own, layout and numbers.
#define ENDS(index) (shapes[index][0] > 1 ? INDEX(index) : nullptr)
#define MIXED_PRODUCTS(x, W, tables)                                                                             \
  MixedProducts<R> {                                                                                             \
    shapes[x][1], shapes[x + 1][1], W, shapes[x + 2][1], shapes[x + 2][0], shapes[x + 1][0], shapes[x][0],       \
        ENDS(tables), ENDS(tables + 1), INDEX(tables + 2), REAL(tables + 3)                                      \
  }
#define ROW_FACTORS(x) RowFactors<R>{REAL(x), REAL(x + 1), REAL(x + 2)}

KERNEL(mixed_products) {  // x (M or N, F), a (M, A), w (M, M / 2 or 1, C), B (numel,), b (W,), tables -> (M or N, W)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    mixed_products<R>(MIXED_PRODUCTS(0, shapes[4][0], 5), ROW_FACTORS(0), nullptr, REAL(3), REAL(4), REAL(9));
  });
}

KERNEL(mixed_tangents) {  // x, a, w, B, the tangents of x, a and w, tables, any (., W) -> (M or N, W)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    const RowFactors<R> tangent = ROW_FACTORS(4);
    mixed_products<R>(MIXED_PRODUCTS(0, shapes[11][1], 7), ROW_FACTORS(0), &tangent, REAL(3), nullptr, REAL(12));
  });
}

KERNEL(mixed_gradients) {  // g (M or N, W), x, a, w, B, tables -> as x, a and w
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    mixed_product_gradients<R>(MIXED_PRODUCTS(1, shapes[0][1], 5), ROW_FACTORS(1), nullptr, REAL(4), REAL(0), REAL(9),
                               REAL(10), REAL(11));
  });
}

KERNEL(mixed_gradient_tangents) {  // g, x, a, w, B, the tangents of x, a and w, tables -> as x, a and w
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    const RowFactors<R> tangent = ROW_FACTORS(5);
    mixed_product_gradients<R>(MIXED_PRODUCTS(1, shapes[0][1], 8), ROW_FACTORS(1), &tangent, REAL(4), REAL(0),
                               REAL(12), REAL(13), REAL(14));
  });
}

KERNEL(mixed_mixtures) {  // g, x, a, w, tables, any (numel,) -> (numel,)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    mixed_product_mixtures<R>(shapes[8][0], MIXED_PRODUCTS(1, shapes[0][1], 4), ROW_FACTORS(1), nullptr, REAL(0),
                              REAL(9));
  });
}

KERNEL(mixed_mixture_tangents) {  // g, x, a, w, the tangents of x, a and w, tables, any (numel,) -> (numel,)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    const RowFactors<R> tangent = ROW_FACTORS(4);
    mixed_product_mixtures<R>(shapes[11][0], MIXED_PRODUCTS(1, shapes[0][1], 7), ROW_FACTORS(1), &tangent, REAL(0),
                              REAL(12));
  });
}

// A row of a gate, from the widths of its input and of its result.
Gated gated(int64_t in, int64_t out, const Run* runs, int64_t count) {
  int64_t columns = 0;
  for (int64_t k = 0; k < count; ++k) columns += runs[k].length;
  return {out - columns, in - out, columns, runs, count};
}

// How many tangents (n M, F) stand beside rows (M, F).
int tangents(const int64_t* all, const int64_t* rows) { return rows[0] == 0 ? 0 : static_cast<int>(all[0] / rows[0]); }

KERNEL(gate) {  // y (M, F), runs (S, 3), constants (2,), any (., G) -> (M, G)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    const Gated shape = gated(shapes[0][1], shapes[3][1], TABLE(Run, 1));
    gate_tangents<R>(shapes[0][0], 0, shape, REAL(2), REAL(0), REAL(0), REAL(4));
  });
}

KERNEL(gate_tangents) {  // y (M, F), v (n M, F), runs (S, 3), constants (2,), any (., G) -> (M, G)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    const Gated shape = gated(shapes[0][1], shapes[4][1], TABLE(Run, 2));
    gate_tangents<R>(shapes[0][0], tangents(shapes[1], shapes[0]), shape, REAL(3), REAL(0), REAL(1), REAL(5));
  });
}

KERNEL(gate_slopes) {  // y (M, F), d (M, G), runs (S, 3), constants (2,) -> (M, F)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    const Gated shape = gated(shapes[0][1], shapes[1][1], TABLE(Run, 2));
    gate_slopes<R>(shapes[0][0], 0, shape, REAL(3), REAL(0), REAL(0), REAL(1), REAL(4));
  });
}

KERNEL(gate_slope_tangents) {  // y (M, F), v (n M, F), d (M, G), runs (S, 3), constants (2,) -> (M, F)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    const Gated shape = gated(shapes[0][1], shapes[2][1], TABLE(Run, 3));
    gate_slopes<R>(shapes[0][0], tangents(shapes[1], shapes[0]), shape, REAL(4), REAL(0), REAL(1), REAL(2), REAL(5));
  });
}

// The table, whose size is known, and the numbers of harmonics.
#define HARMONICS(table) INDEX(table), shapes[table][0], REAL(table + 1)

KERNEL(harmonics) {  // r (M, 3), table (S,), numbers, any (., W) -> (M, W)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    harmonic_tangents<R>(shapes[0][0], 0, HARMONICS(1), REAL(0), REAL(0), REAL(4));
  });
}

KERNEL(harmonics_tangents) {  // r (M, 3), v (n M, 3), table (S,), numbers, any (., W) -> (M, W)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    harmonic_tangents<R>(shapes[0][0], tangents(shapes[1], shapes[0]), HARMONICS(2), REAL(0), REAL(1), REAL(5));
  });
}

KERNEL(harmonics_slopes) {  // r (M, 3), d (M, W), table (S,), numbers -> (M, 3)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    harmonic_slopes<R>(shapes[0][0], 0, HARMONICS(2), REAL(0), REAL(0), REAL(1), REAL(4));
  });
}

KERNEL(harmonics_slope_tangents) {  // r (M, 3), v (n M, 3), d (M, W), table (S,), numbers -> (M, 3)
  return by_type(types[0], [&](auto zero) {
    using R = decltype(zero);
    harmonic_slopes<R>(shapes[0][0], tangents(shapes[1], shapes[0]), HARMONICS(3), REAL(0), REAL(1), REAL(2), REAL(5));
  });
}
