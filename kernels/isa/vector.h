// A vector of words as wide as the instruction set's registers, and loops over it.
//
// Kernels are written once, on a type T that is Vector or, for the last few elements, Word: the operators are
// the same. Files that are compiled for an instruction set keep to <cstdint>-like headers and to functions of
// internal linkage: an inline function of a shared header could be merged with its twin of another set.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "../table.h"

// SHAREFLOW_ISA is the namespace of the instruction set that this file is compiled for.
namespace shareflow {
namespace SHAREFLOW_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 8;
#elif defined(__AVX2__)
constexpr int kLanes = 4;
#else
constexpr int kLanes = 2;
#endif

typedef Word Vector __attribute__((vector_size(8 * kLanes)));
typedef Word Unaligned __attribute__((vector_size(8 * kLanes), aligned(8), may_alias));

template <class T>
struct Lanes;
template <>
struct Lanes<Vector> {
  static constexpr int count = kLanes;
  static inline Vector load(const Word* p) { return *reinterpret_cast<const Unaligned*>(p); }
  static inline void store(Word* p, Vector x) { *reinterpret_cast<Unaligned*>(p) = x; }
  static inline Vector fill(Word x) { return Vector{} + x; }
  // 0, 1, 2, ...
  static inline Vector index() {
    Vector x;
    for (int i = 0; i < kLanes; ++i) x[i] = i;
    return x;
  }
};
template <>
struct Lanes<Word> {
  static constexpr int count = 1;
  static inline Word load(const Word* p) { return *p; }
  static inline void store(Word* p, Word x) { *p = x; }
  static inline Word fill(Word x) { return x; }
  static inline Word index() { return 0; }
};

template <class T>
inline T load(const Word* p) {
  return Lanes<T>::load(p);
}
template <class T>
inline void store(Word* p, T x) {
  Lanes<T>::store(p, x);
}
template <class T>
inline T fill(Word x) {
  return Lanes<T>::fill(x);
}

// Whether rows of `width` words from `out` on, `total` words in all, are written past the caches with `put`:
// then lines are not read before they are overwritten, nor evicted one by one. Not for small outputs, which
// the next op finds in the cache; and not in pieces of a quarter of a line.
inline bool past_caches(const Word* out, int64_t width, int64_t total) {
  constexpr int64_t kSmall = int64_t{1} << 19;
  return kLanes >= 4 && total >= kSmall && width % kLanes == 0 &&
         reinterpret_cast<uintptr_t>(out) % sizeof(Vector) == 0;
}
inline void put(Word* out, Vector x, bool past) {
#if defined(__SSE2__)
  if (past) {
#if defined(__AVX512F__)
    return _mm512_stream_si512(reinterpret_cast<__m512i*>(out), (__m512i)x);
#elif defined(__AVX2__)
    return _mm256_stream_si256(reinterpret_cast<__m256i*>(out), (__m256i)x);
#else
    return _mm_stream_si128(reinterpret_cast<__m128i*>(out), (__m128i)x);
#endif
  }
#endif
  store<Vector>(out, x);
}
inline void put(Word* out, Word x, bool) { *out = x; }
// Before other threads read what was put past the caches.
inline void settle(bool past) {
#if defined(__SSE2__)
  if (past) _mm_sfence();
#endif
}

// body(T{}, i) for the elements i .. i + lanes of T in [begin, end).
template <class Body>
inline void each(int64_t begin, int64_t end, const Body& body) {
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) body(Vector{}, i);
  for (; i < end; ++i) body(Word{}, i);
}

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

}  // namespace
}  // namespace SHAREFLOW_ISA
}  // namespace shareflow
