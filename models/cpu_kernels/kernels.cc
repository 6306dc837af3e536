// Kernels for CPUs that MindSpore calls as custom operators: each does in one pass over memory what takes several of
// MindSpore's operators there.  fused.py knows their derivatives, build.py compiles them.
//
// Letters: N nodes, E edges, P pairs, T triplets, F and I features, B basis functions.  Arrays are dense and row-major,
// of float32 or float64; indices are int32.  The same input gives the same bits for a fixed number of threads.

#include <cstdint>
#include <cstring>

#include "activations.h"
#include "distances.h"
#include "pairs.h"
#include "products.h"
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
  if (is_double(type)) {
    body(double());
  } else {
    body(float());
  }
  return 0;
}

#define ACTIVATION_SLOPE(name, F, order)                                                                         \
  KERNEL(name##_##order) {                                                                                       \
    return by_type(types[0], [&](auto zero) {                                                                    \
      using R = decltype(zero);                                                                                  \
      activation<F, order, R>(size(ranks[0], shapes[0]), REAL(0), REAL(1), REAL(2));                             \
    });                                                                                                          \
  }

#define ACTIVATION(name, F)                                                                                      \
  KERNEL(name##_0) {                                                                                             \
    return by_type(types[0], [&](auto zero) {                                                                    \
      using R = decltype(zero);                                                                                  \
      activation<F, 0, R>(size(ranks[0], shapes[0]), REAL(0), nullptr, REAL(1));                                 \
    });                                                                                                          \
  }                                                                                                              \
  ACTIVATION_SLOPE(name, F, 1)                                                                                   \
  ACTIVATION_SLOPE(name, F, 2)

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
