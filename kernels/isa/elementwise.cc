// One pass over elements: truncation, the product with a bit, shifts.

#include "functions.h"
#include "vector.h"

namespace shareflow {
namespace SHAREFLOW_ISA {
namespace {

// x mod 2^64 times 2^amount, for amount up to 64.
template <class T>
inline T scaled(T x, int amount) {
  return amount < 64 ? x << amount : fill<T>(0);
}

// P = (A >> f) - 2^(64-f) A63 - 2^(62-f): the public part of (A - 2^62 + a) >> f.
template <class T>
inline T public_part(T opened, int shift) {
  return (opened >> shift) - scaled<T>(opened >> 63, 64 - shift) - fill<T>(Word{1} << (62 - shift));
}

// q v = -2^(64-f) (1 - A63) v.
template <class T>
inline T wrap_part(T opened, T v, int shift) {
  const T keep = (opened >> 63) - fill<T>(1);  // all ones if A63 = 0
  return fill<T>(0) - (scaled<T>(v, 64 - shift) & keep);
}

// -x where the mask is all ones, x where it is 0.
template <class T>
inline T negate_where(T mask, T x) {
  return (x ^ mask) - mask;
}

// All ones or zero: bits i .. of the packed words, i not crossing a word.
template <class T>
inline T bit_mask(const Word* words, int64_t i) {
  return fill<T>(0) - ((fill<T>(words[i / 64]) >> (Lanes<T>::index() + fill<T>(i % 64))) & fill<T>(1));
}

}  // namespace

void truncate_opened(const Word* opened, const Word* t, const Word* v, int64_t begin, int64_t end, int shift,
                     bool leader, Word* out) {
  const Word mask = leader ? ~Word{0} : 0;
  each(begin, end, [=](auto kind, int64_t i) {
    using T = decltype(kind);
    const T a = load<T>(opened + i);
    const T share = load<T>(t + i) + wrap_part<T>(a, load<T>(v + i), shift);
    store<T>(out + i, share + (public_part<T>(a, shift) & fill<T>(mask)));
  });
}

void multiply_bit(const Word* alpha, const Word* a, const Word* m, const Word* l, const Word* al,
                  int64_t begin, int64_t end, bool leader, Word* out) {
  const Word lead = leader ? ~Word{0} : 0;
  each(begin, end, [=](auto kind, int64_t i) {
    using T = decltype(kind);
    const T x = load<T>(alpha + i), mask = bit_mask<T>(m, i);
    const T kept = (load<T>(a + i) + (x & fill<T>(lead))) & mask;
    store<T>(out + i, kept + negate_where<T>(mask, x * load<T>(l + i) + load<T>(al + i)));
  });
}

void truncate_multiply_bit(const Word* opened, const Word* m, const Word* t, const Word* v, const Word* l,
                           const Word* tl, const Word* vl, int64_t begin, int64_t end, int shift, bool leader,
                           Word* out) {
  const Word lead = leader ? ~Word{0} : 0;
  each(begin, end, [=](auto kind, int64_t i) {
    using T = decltype(kind);
    const T a = load<T>(opened + i), mask = bit_mask<T>(m, i), p = public_part<T>(a, shift);
    const T kept = (load<T>(t + i) + wrap_part<T>(a, load<T>(v + i), shift) + (p & fill<T>(lead))) & mask;
    const T other = p * load<T>(l + i) + load<T>(tl + i) + wrap_part<T>(a, load<T>(vl + i), shift);
    store<T>(out + i, kept + negate_where<T>(mask, other));
  });
}

void shift_right(const Word* x, int64_t begin, int64_t end, int amount, Word* out) {
  each(begin, end, [=](auto kind, int64_t i) {
    using T = decltype(kind);
    store<T>(out + i, load<T>(x + i) >> amount);
  });
}

void shift_left(const Word* x, int64_t begin, int64_t end, int amount, Word* out) {
  each(begin, end, [=](auto kind, int64_t i) {
    using T = decltype(kind);
    store<T>(out + i, load<T>(x + i) << amount);
  });
}

}  // namespace SHAREFLOW_ISA
}  // namespace shareflow
