// Orders of derivatives that the compiler knows, and Taylor's coefficients up to them.

#pragma once

#include <array>
#include <type_traits>
#include <vector>

namespace {

// use(n) with n known to the compiler, by its type, for the orders that training on force constants needs.
template <class Use>
void with_known_order(int order, Use use) {
  if (order == 0) return use(std::integral_constant<int, 0>());
  if (order == 1) return use(std::integral_constant<int, 1>());
  if (order == 2) return use(std::integral_constant<int, 2>());
  if (order == 3) return use(std::integral_constant<int, 3>());
  use(order);
}

// Room for Taylor's coefficients of a function at one point; all 0.
template <class R, class Order>
inline auto series_of(Order order) {
  if constexpr (std::is_same_v<Order, int>) {
    return std::vector<R>(order + 1);
  } else {
    return std::array<R, Order::value + 1>{};
  }
}

inline constexpr double factorial(int n) {
  double product = 1;
  for (int k = 2; k <= n; ++k) product *= k;
  return product;
}

}  // namespace
