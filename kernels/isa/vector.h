// A vector of words as wide as the instruction set's registers, and loops over it.
//
// Kernels are written once, on a type T that is Vector or, for the last few elements, Word: the operators are the same.
// Files that are compiled for an instruction set keep to <cstdint>-like headers and to functions of internal linkage:
// an inline function of a shared header could otherwise be merged with its twin of another instruction set.

#pragma once

#include <cstdint>
#include <cstring>

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
inline T load(const Word* p) { return Lanes<T>::load(p); }
template <class T>
inline void store(Word* p, T x) { Lanes<T>::store(p, x); }
template <class T>
inline T fill(Word x) { return Lanes<T>::fill(x); }

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
