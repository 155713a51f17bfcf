// What the engines of vector instructions share: B in panels of kColumns columns, the last narrower.

#pragma once

#include "vector.h"

namespace shareflow {
namespace SHAREFLOW_ISA {
namespace {

constexpr int64_t kDepth = 256;
// Eight words more than the depth: the rows of a staged panel begin in different sets of the L1 cache.
constexpr int64_t kPitch = kDepth + 8;

// The width in which n columns are stored: a last panel is rounded up to a whole register.
inline int64_t stored_columns(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

template <int kColumns>
int64_t packed_words(int64_t k, int64_t n) {
  return k * stored_columns(n);
}

// Panel after panel, each [k, width] with its columns side by side.
template <int kColumns>
void pack(Matrix b, int64_t k, int64_t n, Word* packed) {
  for (int64_t j = 0; j < n; j += kColumns) {
    const int64_t width = least(kColumns, stored_columns(n) - j), used = least(width, n - j);
    const Word* from = b.data + j * b.column;
    if (used < width) std::memset(packed, 0, k * width * sizeof(Word));
    if (b.column == 1 && used == kColumns) {
      for (int64_t i = 0; i < k; ++i)
        std::memcpy(packed + i * kColumns, from + i * b.row, kColumns * sizeof(Word));
    } else if (b.column == 1) {
      for (int64_t i = 0; i < k; ++i)
        for (int64_t q = 0; q < used; ++q) packed[i * width + q] = from[i * b.row + q];
    } else {
      for (int64_t q = 0; q < used; ++q)
        for (int64_t i = 0; i < k; ++i) packed[i * width + q] = from[i * b.row + q * b.column];
    }
    packed += k * width;
  }
}

}  // namespace
}  // namespace SHAREFLOW_ISA
}  // namespace shareflow
