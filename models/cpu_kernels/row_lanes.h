// Rows side by side: number k of all of them in one vector, a row in each lane.  What is done to one row is then done to
// as many at once as a vector has lanes, however few channels an irrep has, and sums over channels stay in their lanes.

#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "products.h"

namespace {

template <class R>
struct Lanes {
  using V = typename Wide<R>::type;
  static constexpr int count = Wide<R>::lanes;

  // Two rows of h x h blocks exchange the blocks beside the diagonal.
  template <int h, size_t... i>
  static void exchange(V& a, V& b, std::index_sequence<i...>) {
#if defined(__clang__)
    const V first = __builtin_shufflevector(a, b, (i & h ? count + i - h : i)...);
    b = __builtin_shufflevector(a, b, (i & h ? count + i : i + h)...);
#else
    using Index = std::conditional_t<sizeof(R) == 4, int32_t, int64_t>;
    typedef Index Order __attribute__((vector_size(vector_bytes)));
    const V first = __builtin_shuffle(a, b, Order{(Index)(i & h ? count + i - h : i)...});
    b = __builtin_shuffle(a, b, Order{(Index)(i & h ? count + i : i + h)...});
#endif
    a = first;
  }

  template <int h = 1>
  static void transpose(V (&square)[count]) {
    for (int i = 0; i < count; ++i)
      if (!(i & h)) exchange<h>(square[i], square[i + h], std::make_index_sequence<count>());
    if constexpr (2 * h < count) transpose<2 * h>(square);
  }

  // to (width) of vectors, from as many rows of numbers as there are lanes.
  static void gather(const R* const* rows, int64_t width, V* to) {
    int64_t c = 0;
    for (; c + count <= width; c += count) {
      V square[count];
      for (int i = 0; i < count; ++i) square[i] = *reinterpret_cast<const V*>(rows[i] + c);
      transpose(square);
      for (int i = 0; i < count; ++i) to[c + i] = square[i];
    }
    for (; c < width; ++c)
      for (int i = 0; i < count; ++i) to[c][i] = rows[i][c];
  }

  // The way back, to the first few rows.
  static void scatter(const V* from, int64_t width, R* const* rows, int few) {
    int64_t c = 0;
    for (; c + count <= width; c += count) {
      V square[count];
      for (int i = 0; i < count; ++i) square[i] = from[c + i];
      transpose(square);
      for (int i = 0; i < few; ++i) *reinterpret_cast<V*>(rows[i] + c) = square[i];
    }
    for (; c < width; ++c)
      for (int i = 0; i < few; ++i) rows[i][c] = from[c][i];
  }

  // Room for so many vectors in this thread, where the last one was.
  static V* room(int64_t vectors) {
    constexpr int64_t line = 64;
    thread_local std::vector<char> kept;
    const int64_t bytes = vectors * sizeof(V) + line;
    if (static_cast<int64_t>(kept.size()) < bytes) kept.resize(bytes);
    const auto place = reinterpret_cast<uintptr_t>(kept.data());
    return reinterpret_cast<V*>((place + line - 1) / line * line);
  }
};

// Rows that wait until there is one for each lane.
template <class R>
struct Waiting {
  int64_t rows[Lanes<R>::count];
  int count = 0;

  // f(rows, count) once all lanes are taken.
  template <class F>
  void add(int64_t row, F f) {
    rows[count++] = row;
    if (count == Lanes<R>::count) flush(f);
  }

  // f(rows, count) of those that wait; the last one is in the lanes that are left too.
  template <class F>
  void flush(F f) {
    if (count == 0) return;
    for (int i = count; i < Lanes<R>::count; ++i) rows[i] = rows[count - 1];
    f(rows, count);
    count = 0;
  }
};

}  // namespace
