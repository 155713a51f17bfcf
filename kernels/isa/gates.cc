// The gates of a comparison: (G', P') of `radix` neighbours.
//
// Products come in this order: l_G[k] with each nonempty set of {l_P[j] : j > k}, for k = 0 .. radix-2; then
// the sets of two or more of the l_P, without l_P[0] when the gate is the last. Within each part the bit
// masks of the sets increase.

#include "functions.h"
#include "vector.h"

namespace shareflow {
namespace SHAREFLOW_ISA {
namespace {

// Whether a set of the l_P stands among the products.
inline bool is_product(int set, bool last) { return (set & (set - 1)) != 0 && !(last && (set & 1)); }

template <int kRadix, bool kLast>
void products_of(const Word* l, int64_t gates, int64_t t, int64_t begin, int64_t end, int64_t width,
                 Word* out) {
  const Word* l_g = l + t * kRadix * width;
  const Word* l_p = l_g + gates * kRadix * width;
  const int64_t row = gates * width;
  const bool past = past_caches(out, width, gate_product_count(kRadix, kLast) * row);
  each(begin, end, [&](auto kind, int64_t word) {
    using T = decltype(kind);
    Word* to = out + t * width + word;
    T p[kRadix];
    for (int j = 0; j < kRadix; ++j) p[j] = load<T>(l_p + j * width + word);
    T product[1 << kRadix];
    for (int k = 0; k + 1 < kRadix; ++k) {
      product[0] = load<T>(l_g + k * width + word);
      for (int j = k + 1, size = 1; j < kRadix; ++j, size *= 2)
        for (int s = 0; s < size; ++s) {
          product[s + size] = product[s] & p[j];
          put(to + (size - 1 + s) * row, product[s + size], past);
        }
      to += ((1 << (kRadix - 1 - k)) - 1) * row;
    }
    product[0] = fill<T>(~Word{0});
    for (int j = 0; j < kRadix; ++j)
      for (int s = 0; s < 1 << j; ++s) {
        product[s | 1 << j] = product[s] & p[j];
        if (!is_product(s | 1 << j, kLast)) continue;
        put(to, product[s | 1 << j], past);
        to += row;
      }
  });
  settle(past);
}

template <int kRadix, bool kLast>
void gate_of(const Word* m, const Word* l, const Word* products, int64_t gates, int64_t t, int64_t begin,
             int64_t end, int64_t width, bool leader, Word* out) {
  const int64_t row = gates * width;
  const Word *m_g = m + t * kRadix * width, *m_p = m_g + row * kRadix;
  const Word *l_g = l + t * kRadix * width, *l_p = l_g + row * kRadix;
  const Word one = leader ? ~Word{0} : 0;
  constexpr int kFirstSet = (1 << kRadix) - 1 - kRadix;  // products that hold an l_G
  each(begin, end, [&](auto kind, int64_t word) {
    using T = decltype(kind);
    const Word* from = products + t * width + word;
    T p[kRadix];
    for (int j = 0; j < kRadix; ++j) p[j] = load<T>(m_p + j * width + word);

    // all[S] is a share of AND_{j in S} l_P[j] & AND_{j folded} P_j; gates fold from the top down.
    T all[1 << kRadix];
    all[0] = fill<T>(one);
    const Word* set = from + kFirstSet * row;
    for (int s = 1; s < 1 << kRadix; ++s) {
      if (kLast && (s & 1)) continue;
      if (is_product(s, kLast)) {
        all[s] = load<T>(set);
        set += row;
      } else {
        all[s] = load<T>(l_p + __builtin_ctz(s) * width + word);
      }
    }
    T generate = fill<T>(0);
    const Word* with_g = from + kFirstSet * row;
    for (int k = kRadix - 1; k >= 0; --k) {
      const int size = 1 << (kRadix - 1 - k);
      with_g -= (size - 1) * row;
      // part[S]: as all[S], times l_G[k].
      T part[1 << (kRadix - 1)];
      part[0] = load<T>(l_g + k * width + word);
      for (int s = 1; s < size; ++s) part[s] = load<T>(with_g + (s - 1) * row);
      for (int j = kRadix - 1, half = size / 2; j > k; --j, half /= 2)
        for (int s = 0; s < half; ++s) part[s] = part[s + half] ^ (p[j] & part[s]);
      generate ^= (load<T>(m_g + k * width + word) & all[0]) ^ part[0];
      if (kLast && k == 0) break;
      for (int s = 0; s < 1 << k; ++s) {
        if (kLast && (s & 1)) continue;
        all[s] = all[s | 1 << k] ^ (p[k] & all[s]);
      }
    }
    store<T>(out + t * width + word, generate);
    if (!kLast) store<T>(out + row + t * width + word, all[0]);
  });
}

}  // namespace

#define SHAREFLOW_BY_RADIX(function, ...)                                             \
  switch (radix) {                                                                    \
    case 2:                                                                           \
      return last ? function<2, true>(__VA_ARGS__) : function<2, false>(__VA_ARGS__); \
    case 3:                                                                           \
      return last ? function<3, true>(__VA_ARGS__) : function<3, false>(__VA_ARGS__); \
    case 4:                                                                           \
      return last ? function<4, true>(__VA_ARGS__) : function<4, false>(__VA_ARGS__); \
    case 5:                                                                           \
      return last ? function<5, true>(__VA_ARGS__) : function<5, false>(__VA_ARGS__); \
    case 6:                                                                           \
      return last ? function<6, true>(__VA_ARGS__) : function<6, false>(__VA_ARGS__); \
    case 7:                                                                           \
      return last ? function<7, true>(__VA_ARGS__) : function<7, false>(__VA_ARGS__); \
    default:                                                                          \
      return last ? function<8, true>(__VA_ARGS__) : function<8, false>(__VA_ARGS__); \
  }

void gate_products(const Word* l, int64_t gates, int64_t t, int64_t begin, int64_t end, int64_t width,
                   int radix, bool last, Word* products) {
  SHAREFLOW_BY_RADIX(products_of, l, gates, t, begin, end, width, products)
}

void gate(const Word* m, const Word* l, const Word* products, int64_t gates, int64_t t, int64_t begin,
          int64_t end, int64_t width, int radix, bool last, bool leader, Word* out) {
  SHAREFLOW_BY_RADIX(gate_of, m, l, products, gates, t, begin, end, width, leader, out)
}

}  // namespace SHAREFLOW_ISA
}  // namespace shareflow
